"""What growth costs: a family is one file, one line in the registry and one golden; all else is an entry."""

from __future__ import annotations

import inspect
import json
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest

import clarion
from clarion import models
from clarion.convert import convert
from clarion.convert.families import recognise
from clarion.errors import ModelError, UnsupportedError
from clarion.gguf import File, Writer
from clarion.plan.operations import OPERATIONS
from tests.convert.files import NAMES as CHECKPOINTS
from tests.convert.files import expected as expected_of_checkpoint
from tests.convert.files import unpack as unpack_checkpoint
from tests.models.files import ALL, BIDIRECTIONAL, GOLDENS, expected, golden, kind, nmse, unpack
from tests.models.growth import ARMS, CLASSES, Copy

SHARED = {
    "__init__.py",
    "blocks.py",
    "family.py",
    "heads.py",
    "hyperparameters.py",
    "keys.py",
    "latent.py",
    "recurrent.py",
    "rope.py",
    "tables.py",
}
# Their checkpoints are no models of transformers, which could make a golden; only files of them are read.
FROM_FILES_ALONE = {"jina-bert-v2", "nomic-bert-moe"}


def test_every_family_has_a_file_of_its_own():
    folder = Path(models.__file__).parent
    families = {path.name for path in folder.glob("*.py")} - SHARED
    assert {Path(inspect.getfile(family.build)).name for family in models.FAMILIES.values()} == families


@pytest.mark.parametrize("family", models.FAMILIES.values(), ids=models.FAMILIES)
def test_a_family_fits_on_a_page(family):
    assert len(Path(inspect.getfile(family.build)).read_text(encoding="utf-8").splitlines()) <= 150


def test_every_family_has_a_golden_and_every_golden_a_family():
    found = {models.family(golden(name)[0]).architecture for name in (*ALL, *BIDIRECTIONAL)}
    assert found | FROM_FILES_ALONE == set(models.FAMILIES)
    assert not found & FROM_FILES_ALONE
    assert not any(models.FAMILIES[name].checkpoints for name in FROM_FILES_ALONE)


def test_every_kind_of_checkpoint_has_a_golden():
    wanted = {kind.model_type for family in models.FAMILIES.values() for kind in family.checkpoints}
    found = {kind(name) for name in (*ALL, *BIDIRECTIONAL)} - {None}
    for name in CHECKPOINTS:
        with tempfile.TemporaryDirectory() as folder:
            config = json.loads((unpack_checkpoint(name, folder) / "config.json").read_text())
        found.add(recognise(config)[1].model_type)
    assert found == wanted


def test_goldens_are_small_and_complete():
    files = [path for path in GOLDENS.rglob("*") if path.is_file()]
    names = (*ALL, *BIDIRECTIONAL)
    assert {path.relative_to(GOLDENS).as_posix() for path in files} == {
        f"{name}{end}" for name in names for end in (".gguf.xz", ".npz")
    }
    assert sum(path.stat().st_size for path in files) <= 4e6


PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"
EPSILON = "attention.head_norm_epsilon"


def page_example():
    """The file of the family that the page adds."""
    (source,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return source


@pytest.fixture
def example(monkeypatch):
    source, module = page_example(), {}
    exec(compile(source, str(PAGE), "exec"), module)
    monkeypatch.setitem(models.FAMILIES, "example", module["FAMILY"])
    return source


def as_example(folder, **changes):
    """A golden of Qwen 3, which computes what the example does, under the example's names."""
    path = folder / "example.gguf"
    with File.open(unpack("qwen3", folder)) as file:
        metadata = {key.replace("qwen3.", "example."): v for key, v in file.metadata.exact().items()}
        metadata["general.architecture"] = "example"
        metadata[f"example.{EPSILON}"] = metadata["example.attention.layer_norm_rms_epsilon"]
        metadata = {key: v for key, v in (metadata | changes).items() if v is not None}
        with Writer(path, metadata) as writer:
            for tensor in file.tensors.values():
                writer.add(tensor.name, tensor.shape, tensor.format, tensor.data)
    return path


def test_the_worked_example_is_a_family(example, tmp_path):
    assert len(example.splitlines()) <= 150
    ids, logits = expected("qwen3")
    with clarion.load(as_example(tmp_path), activations="exact") as model:
        assert nmse(model.logits(ids.tolist()), logits) <= 1e-9
        assert "fallbacks: " in str(model.program)
        assert not any(line.split()[1:2] == ["head_norm"] for line in str(model.program).splitlines())


def as_checkpoint(folder, **changes):
    """A checkpoint of Qwen 3 under the example's names."""
    checkpoint = unpack_checkpoint("qwen3-fp8", folder / "checkpoint")
    config = json.loads((checkpoint / "config.json").read_text())
    config |= {"model_type": "example", "head_norm_eps": config["rms_norm_eps"]} | changes
    (checkpoint / "config.json").write_text(json.dumps(config))
    return checkpoint


def test_the_worked_example_is_converted(example, tmp_path):
    ids, logits = expected_of_checkpoint("qwen3-fp8")
    (path,) = convert(as_checkpoint(tmp_path), tmp_path / "example.gguf", "f32")
    with clarion.load(path, activations="exact") as model:
        assert nmse(model.logits(ids.tolist()), logits) <= 1e-11
    with pytest.raises(ModelError, match=r"config\.json: head_norm_eps is None"):
        convert(as_checkpoint(tmp_path / "other", head_norm_eps=None), path)


def test_what_the_worked_example_forgets_is_an_error(example, tmp_path):
    with pytest.raises(ModelError, match=f"example.{EPSILON}"):
        clarion.load(as_example(tmp_path, **{f"example.{EPSILON}": None}))
    with pytest.raises(UnsupportedError, match=r"example\.new_idea"):
        clarion.load(as_example(tmp_path, **{"example.new_idea": np.uint32(1)}))


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A copy of the package with a family, an operation, a state, a source of weights, a place and an output
    more: what the type checker misses first, what is left when that is there, and the copy."""
    pytest.importorskip("mypy")
    copy = Copy(tmp_path_factory.mktemp("grown"))
    copy.add_family(page_example())
    copy.declare()
    missing = copy.missing()
    copy.complete()
    return missing, copy.missing(), copy


@pytest.mark.parametrize("kind", ARMS)
def test_the_type_checker_names_every_place_that_misses_a_new_kind(grown, kind):
    assert grown[0][CLASSES[kind]] == ARMS[kind].keys()


def test_nothing_else_misses_them(grown):
    assert grown[0].keys() == set(CLASSES.values())
    assert grown[1] == {}


def test_a_new_kind_of_everything_works_together(grown):
    """One plan with all of them is verified, printed, written, computed and compiled; the operation is on the
    page of operations."""
    assert grown[2].use(PAGE.parents[1] / "scripts" / "make_operations_page.py").split() == [
        "used",
        str(len(OPERATIONS) + 1),
    ]
