"""Budgets on the built-in model: they are kept, and a mixture is better than the recipe of its size."""

import json

import pytest

from clarion.cli.main import execute
from clarion.errors import ModelError, ParameterError
from clarion.evaluate.request import Request, run
from clarion.gguf import File
from clarion.quantize import quantize
from clarion.quantize.budget import choose, quantize_to_budget
from clarion.quantize.measure import own_text
from tests.end_to_end.files import BUILT_IN
from tests.evaluate.test_perplexity_golden import TEXT

# To measure with, and to judge by: the first tale of the held-out text, and the last.
MEASURE, JUDGE = TEXT[:20_000], TEXT[-20_000:]
# A short text and few formats where it does not matter how good a mixture is.
SHORT = TEXT[:1500]
OPTIONS = {"text": SHORT, "candidates": ("Q2_K", "Q4_K", "Q8_0"), "allow_requantize": True, "threads": 1}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """The model by the usual recipe, and the importance matrix that served both."""
    folder = tmp_path_factory.mktemp("recipe")
    text = folder / "measure.txt"
    text.write_text(MEASURE)
    imatrix, path = folder / "imatrix.gguf", folder / "q4_k_m.gguf"
    command = ["imatrix", str(BUILT_IN), str(text), "-o", str(imatrix), "--process-output", "-t", "1"]
    assert execute([*command, "-c", "256"]) == 0
    quantize(BUILT_IN, path, "Q4_K_M", imatrix=imatrix, allow_requantize=True, threads=1)
    return path, imatrix


def divergences(*paths):
    request = Request(paths, JUDGE, reference=BUILT_IN, context=256, n_chunks=8, threads=1)
    return [figures["divergence"]["mean"] for figures in run(request).report()["models"]]


@pytest.mark.full
def test_a_mixture_beats_the_recipe_of_its_size(recipe, tmp_path):
    path, imatrix = recipe
    size = path.stat().st_size
    out = tmp_path / "mixture.gguf"
    options = {"text": MEASURE, "imatrix": imatrix, "allow_requantize": True, "threads": 1}
    done, mixture = quantize_to_budget(BUILT_IN, out, size, **options)
    assert done.paths == [out]
    assert size * 0.995 < out.stat().st_size == mixture.n_bytes <= size
    of_recipe, of_mixture = divergences(path, out)
    assert of_mixture < 0.85 * of_recipe  # measured: 0.64 (docs/budget.md)
    assert of_mixture == pytest.approx(mixture.cost, rel=0.35)


def test_the_frontier_falls_and_ends_at_the_model_itself(tmp_path):
    out = tmp_path / "m.gguf"
    whole = BUILT_IN.stat().st_size + 4096  # metadata says more than before
    _, mixture = quantize_to_budget(BUILT_IN, out, whole, **OPTIONS)
    points = mixture.frontier.points
    assert points[-1].cost == mixture.cost == 0
    assert [p.n_bytes for p in points] == sorted({p.n_bytes for p in points})
    assert [p.cost for p in points] == sorted((p.cost for p in points), reverse=True)
    with File.open(out) as file, File.open(BUILT_IN) as source:
        assert {t.name: bytes(t.data) for t in file.tensors.values()} == {
            t.name: bytes(t.data) for t in source.tensors.values()
        }
    assert divergences(out)[0] < 1e-6


@pytest.mark.full
def test_threads_change_no_byte(tmp_path):
    for threads in (1, 2):
        options = OPTIONS | {"threads": threads}
        quantize_to_budget(BUILT_IN, tmp_path / f"{threads}.gguf", 3_500_000, **options)
    assert (tmp_path / "1.gguf").read_bytes() == (tmp_path / "2.gguf").read_bytes()


def test_what_a_person_fixes_stays_fixed(tmp_path):
    out, overrides = tmp_path / "m.gguf", [(r"attn_(q|k)", "Q5_0"), ("token_embd", "Q6_K")]
    quantize_to_budget(BUILT_IN, out, 4_000_000, overrides=overrides, **OPTIONS)
    assert out.stat().st_size <= 4_000_000
    with File.open(out) as file:
        formats = {tensor.name: tensor.format.name for tensor in file.tensors.values()}
    assert formats["blk.3.attn_q.weight"] == formats["blk.0.attn_k.weight"] == "Q5_0"
    assert formats["token_embd.weight"] == "Q6_K"
    assert formats["blk.0.attn_norm.weight"] == "F32"


@pytest.mark.full
def test_a_budget_that_cannot_be_reached_names_what_can(tmp_path):
    out = tmp_path / "m.gguf"
    with pytest.raises(
        ParameterError, match=r"budget of 1 MB .* smallest file is [\d.]+ MB \((\d+)"
    ) as caught:
        quantize_to_budget(BUILT_IN, out, 1_000_000, **OPTIONS)
    assert list(tmp_path.iterdir()) == []
    least = int(str(caught.value).rpartition("(")[2].split()[0])
    _, mixture = quantize_to_budget(BUILT_IN, out, least, **OPTIONS)
    assert out.stat().st_size == mixture.n_bytes == least
    assert {offer.format for offer in mixture.offers} == {"Q2_K"}
    with pytest.raises(ParameterError, match="smallest file"):
        choose(mixture.measured, least - 1, mixture.others, mixture.n_weights)


def test_nothing_is_measured_where_nothing_may_be_written(tmp_path):
    options = OPTIONS | {"allow_requantize": False}
    with pytest.raises(ModelError, match="--allow-requantize"):
        quantize_to_budget(BUILT_IN, tmp_path / "m.gguf", 4_000_000, **options)
    with pytest.raises(ParameterError, match="expected at least 2"):
        quantize_to_budget(BUILT_IN, tmp_path / "m.gguf", 4_000_000, **(OPTIONS | {"text": ""}))


def test_without_a_text_the_model_writes_one():
    tokens = own_text(BUILT_IN, 50, threads=1)
    assert len(tokens) == 51
    assert tokens == own_text(BUILT_IN, 50, threads=2)
    assert len(set(tokens)) > 20


def test_the_command_line(tmp_path, capsys):
    text, out = tmp_path / "text.txt", tmp_path / "m.gguf"
    text.write_text(SHORT)
    command = ["quantize", str(BUILT_IN), str(out), "--text", str(text), "--allow-requantize", "-t", "1"]
    command += ["--formats", "q2_k,Q4_K,Q8_0"]
    assert execute([*command, "--budget", "3.5MB"]) == 0
    shown = capsys.readouterr().out
    assert "estimated mean KLD" in shown
    assert f"chosen for 3.5 MB: {out.stat().st_size} bytes" in shown
    assert execute([*command, "--budget", "3.5MB", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bytes"] == out.stat().st_size <= found["budget"] == 3_500_000
    assert {offer["format"] for offer in found["matrices"][0]["offers"]} == {"Q2_K", "Q4_K", "Q8_0"}
    for arguments, message in (
        (["--budget", "1MB"], "smallest file"),
        (["--budget", "much"], "expected a number"),
        ([], "either TYPE or --budget"),
        (["Q4_K_M", "--budget", "4MB"], "either TYPE or --budget"),
        (["Q4_K_M"], "go with --budget"),
        (["--budget", "4MB", "--keep-split"], "one file"),
        (["--budget", "4MB", "--formats", "Q9_K"], "Q9_K"),
    ):
        assert execute([*command, *arguments]) == 2
        assert message in capsys.readouterr().err
