"""Goldens of models that make vectors: in float64 by the definitions, and on the machine.

A golden holds the rows of transformers' last layer, or the scores of a classifier.
"""

from __future__ import annotations

import lzma

import numpy as np
import pytest

from clarion import models
from clarion.errors import UnsupportedError
from clarion.gguf import File
from clarion.plan.output import HiddenRows, Logits, Pooled, Ranks
from tests.models.files import GOLDENS
from tests.plan.toys import computed, run

FOLDER = GOLDENS / "encoders"
NAMES = sorted(path.name.removesuffix(".gguf.xz") for path in FOLDER.glob("*.gguf.xz"))
LIMITS = {"exact": 1e-9, "high": 2e-6}  # keys and values in f16


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    opened = {}
    for name in NAMES:
        path = folder / f"{name}.gguf"
        path.write_bytes(lzma.decompress((FOLDER / f"{name}.gguf.xz").read_bytes()))
        opened[name] = File.open(path)
    yield opened
    for file in opened.values():
        file.close()


def plan_of(file, name, output=None):
    """The plan of rows or of scores, and the output's name."""
    wanted = output or (None if name.endswith("classifier") else HiddenRows())
    plan = models.build(file.metadata, file.tensors, output=wanted).plan()
    return plan, plan.outputs[0].value


def error(found, wanted):
    """The mean square of the difference, relative to that of what is wanted."""
    return float(((found - wanted) ** 2).mean() / (wanted**2).mean())


def golden(name):
    stored = np.load(FOLDER / f"{name}.npz")
    return stored["ids"], stored["rows"]


@pytest.mark.parametrize("name", NAMES)
def test_rows_in_float64(files, name):
    ids, rows = golden(name)
    plan, value = plan_of(files[name], name)
    found = computed(plan, ids, files[name].tensors)[value]
    assert error(found[: len(rows)], rows) < 1e-11


@pytest.mark.parametrize("activations", LIMITS)
@pytest.mark.parametrize("name", NAMES)
def test_rows_on_the_machine(files, name, activations):
    ids, rows = golden(name)
    plan, value = plan_of(files[name], name)
    found = run(plan, ids, files[name].tensors, activations=activations)[value]
    assert error(found[: len(rows)], rows) <= LIMITS[activations]


@pytest.mark.parametrize("how", ["mean", "cls", "last"])
@pytest.mark.parametrize("name", ["bert", "modern-bert"])
def test_a_vector_is_made_of_the_rows(files, name, how):
    ids, rows = golden(name)
    plan, value = plan_of(files[name], name, Pooled(how))
    found = computed(plan, ids, files[name].tensors)[value]
    wanted = {"mean": np.tile(rows.mean(0), (len(rows), 1)), "cls": rows, "last": rows}[how]
    assert error(found, wanted) < 1e-11


def test_an_encoder_writes_no_text(files):
    with pytest.raises(UnsupportedError, match="bert is an encoder"):
        plan_of(files["bert"], "bert", Logits())
    with pytest.raises(UnsupportedError, match="no classifier"):
        plan_of(files["bert"], "bert", Ranks("cls"))
