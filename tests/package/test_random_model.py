"""benchmarks/random_model.py writes models that load and compute finite logits."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import clarion

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from random_model import RECIPES, Shape, use_more_bits, write

SMALL = Shape.parse("width=256,layers=2,heads=4,kv_heads=2,ffn=512,vocabulary=1000,context=512")


@pytest.mark.parametrize("type", RECIPES)
def test_a_random_model_computes(type: str, tmp_path: Path) -> None:
    path = tmp_path / "random.gguf"
    write(path, SMALL, type)
    with clarion.load(path, threads=1) as model:
        logits = model.logits(model.tokenize("any text"))  # [T, V]
    assert np.isfinite(logits).all()
    assert 0.1 < logits.std() < 10


def test_equal_arguments_give_equal_bytes(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path, seed in zip(paths, (1, 1, 2), strict=True):
        write(path, SMALL, seed=seed)
    a, b, c = (path.read_bytes() for path in paths)
    assert a == b != c


def test_an_unknown_dimension_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown dimension 'depth'"):
        Shape.parse("depth=3")


def test_q4_k_m_gives_more_bits_to_half_of_the_layers() -> None:
    assert [layer for layer in range(16) if use_more_bits(layer, 16)] == [0, 1, 4, 7, 10, 13, 14, 15]
