"""What adding a family costs: one file, one line in the registry, one golden."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from clarion import models
from tests.models.files import GOLDENS, NAMES, golden

SHARED = {"__init__.py", "keys.py", "rope.py", "transformer.py"}


def test_every_family_has_a_file_of_its_own():
    folder = Path(models.__file__).parent
    families = {path.name for path in folder.glob("*.py")} - SHARED
    registered = [Path(inspect.getfile(build)).name for build in models.FAMILIES.values()]
    assert sorted(registered) == sorted(families)


@pytest.mark.parametrize("build", models.FAMILIES.values(), ids=models.FAMILIES)
def test_a_family_fits_on_a_page(build):
    assert len(Path(inspect.getfile(build)).read_text(encoding="utf-8").splitlines()) <= 150


def test_every_family_has_a_golden_and_every_golden_a_family():
    assert {models.family(golden(name)[0]) for name in NAMES} == set(models.FAMILIES)


def test_goldens_are_small_and_complete():
    files = [path for path in GOLDENS.iterdir() if path.is_file()]
    assert {path.name for path in files} == {f"{n}{end}" for n in NAMES for end in (".gguf.xz", ".npz")}
    assert sum(path.stat().st_size for path in files) <= 1.5e6
