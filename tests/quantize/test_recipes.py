"""Per-tensor formats are those of llama.cpp's quantizer (scripts/make_quantize_goldens.py)."""

import json
import re

import pytest

from clarion.errors import ParameterError, UnsupportedError
from clarion.gguf import File
from clarion.quantize import RECIPES, choose_formats, recipe_named
from tests.quantize.files import GOLDENS, MODELS, write_model

RECORDED = json.loads((GOLDENS / "recipes.json").read_text())
# llama.cpp refuses rows that are no whole blocks of these.
REFUSED = {"Q1_0"}
OURS = {"NVFP4", "MXFP4"}  # which it has no recipe for, or one for experts alone


@pytest.fixture(scope="module", params=MODELS)
def model(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("recipes") / "model.gguf"
    with File.open(write_model(request.param, path)) as file:
        yield request.param, file


@pytest.mark.sample(100)
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("imatrix", [False, True], ids=["without", "with"])
def test_formats_are_those_of_the_recipe(model, recipe, imatrix):
    name, file = model
    recorded = RECORDED[name].get(recipe, {}).get("with" if imatrix else "without")
    if recorded is None:
        # Without an importance matrix llama.cpp refuses what would lose too much.
        assert recipe in ("Q2_K_S", *OURS, *REFUSED) or recipe.startswith("IQ")
        return
    kinds = {}
    for choice in choose_formats(file, recipe_named(recipe), imatrix=imatrix):
        kinds.setdefault(re.sub(r"blk\.\d+", "blk.*", choice.tensor.name), []).append(choice.format.name)
    found = {kind: each for kind, each in kinds.items() if set(each) != {"F32"}}
    wanted = {
        kind: [format for run in runs.split(", ") for format, n in [run.split()] for _ in range(int(n))]
        for kind, runs in recorded.items()
    }
    assert found == wanted


def test_the_goldens_hold_every_recipe():
    for name in ("llama", "mixtral", "qwen2-tied"):
        assert set(RECORDED[name]) == set(RECIPES) - OURS


def test_names():
    assert recipe_named("q4_k").name == "Q4_K_M"
    assert recipe_named("Q3_K").name == "Q3_K_M"
    with pytest.raises(ParameterError, match="'Q9_K', expected one of F32"):
        recipe_named("Q9_K")


@pytest.mark.parametrize("name", ["llama", "mixtral", "qwen2-tied"])
@pytest.mark.parametrize("recipe", ["MXFP4", "NVFP4"])
def test_a_four_bit_float_is_for_all_matrices(tmp_path, name, recipe):
    with File.open(write_model(name, tmp_path / "model.gguf")) as file:
        found = {c.tensor.name: c.format.name for c in choose_formats(file, recipe_named(recipe.lower()))}
        plain = {c.tensor.name: c.format.name for c in choose_formats(file, recipe_named("Q4_0"))}
    # As with Q4_0: what makes the logits, and the values of eight experts, have more bits.
    assert found == {tensor: recipe if format == "Q4_0" else format for tensor, format in plain.items()}
    assert found["blk.1.attn_q.weight"] == recipe


@pytest.fixture
def odd(tmp_path):
    with File.open(write_model("odd", tmp_path / "odd.gguf")) as file:
        yield file


def test_overrides_come_before_the_recipe_and_the_first_decides(odd):
    overrides = [(r"blk\.[01]\.ffn_down", "q8_0"), ("ffn_down", "Q5_1"), ("^output", "F16")]
    found = {c.tensor.name: c.format.name for c in choose_formats(odd, recipe_named("Q4_0"), overrides)}
    assert found["output.weight"] == "F16"
    assert found["blk.1.ffn_down.weight"] == "Q8_0"
    assert found["blk.2.ffn_down.weight"] == "Q5_1"
    assert found["blk.2.ffn_up.weight"] == "Q4_0"
    assert found["blk.2.ffn_norm.weight"] == "F32"


@pytest.mark.parametrize(
    ("override", "error"),
    [
        (("nothing_of_that_name", "Q8_0"), "no tensor that can be quantized"),
        (("attn_norm", "Q8_0"), "no tensor that can be quantized"),
        (("(", "Q8_0"), "no regular expression"),
    ],
)
def test_overrides_that_mean_nothing_are_refused(odd, override, error):
    with pytest.raises(ParameterError, match=error):
        choose_formats(odd, recipe_named("Q4_0"), [override])


def test_an_override_of_an_unknown_format_is_refused(odd):
    with pytest.raises(UnsupportedError, match="Q17"):
        choose_formats(odd, recipe_named("Q4_0"), [("ffn_down", "Q17")])
