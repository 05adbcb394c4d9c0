"""benchmarks/random_family.py writes files of published shapes that load and compute finite rows."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clarion
from clarion.gguf import File
from clarion.programs import writes

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from random_family import tensors, write
from shapes import SHAPES, Shape

# Less of everything that is large; what is not stated in a shape stays unstated.
SMALL: dict[str, Any] = {
    "embedding_length": 256,
    "feed_forward_length": 512,
    "expert_feed_forward_length": 64,
    "attention.head_count": 4,
    "context_length": 512,
}


def small(shape: Shape) -> Shape:
    keys = {key: SMALL.get(key, value) for key, value in shape.keys.items()}
    keys["block_count"] = 4
    if "attention.head_count_kv" in keys:
        keys["attention.head_count_kv"] = 1
    return replace(shape, vocabulary=1000, keys=keys)


@pytest.mark.parametrize("name", SHAPES)
def test_a_file_of_each_shape_computes(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.gguf"
    write(path, name, small(SHAPES[name]))
    with clarion.load(path, threads=1) as model:
        if writes(model.program):
            rows = model.logits(model.tokenize("any text"))  # [T, V]
        else:
            rows = model.embed(["any text"], normalize=False)
    assert np.isfinite(rows).all()
    assert 0.05 < rows.std() < 10


def test_equal_names_give_equal_bytes(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b")]
    for path in paths:
        write(path, "bert-base", small(SHAPES["bert-base"]))
    a, b = (path.read_bytes() for path in paths)
    assert a == b


def test_formats_are_those_of_published_quantisations(tmp_path: Path) -> None:
    gemma = tensors(SHAPES["gemma3-1b"])  # rows of 1152 are no whole blocks of 256
    assert gemma["token_embd.weight"][0].name == "Q8_0"
    assert gemma["blk.3.ffn_gate.weight"][0].name == "Q5_0"
    assert gemma["blk.3.ffn_down.weight"][0].name == "Q4_K"
    experts = tensors(SHAPES["gpt-oss-20b-4-layers"])
    assert experts["blk.0.ffn_up_exps.weight"][0].name == "MXFP4"
    assert experts["blk.0.attn_q.weight"][0].name == "Q8_0"
    assert experts["blk.0.ffn_gate_inp.weight"][0].name == "F32"


def test_a_file_holds_what_its_family_reads(tmp_path: Path) -> None:
    shape = small(SHAPES["deepseek2-lite-4-layers"])
    write(tmp_path / "model.gguf", "deepseek2", shape)
    with File.open(tmp_path / "model.gguf") as file:
        assert set(file.tensors) == set(tensors(shape))
        assert "blk.0.ffn_gate.weight" in file.tensors  # the layer without experts
        assert "blk.1.ffn_gate_shexp.weight" in file.tensors
