"""Each tensor that the format names for an architecture is read, or a file that has it is refused."""

from __future__ import annotations

import re
from collections import defaultdict

import gguf
import numpy as np
import pytest

from clarion import models
from clarion.errors import ModelError
from tests.models.files import ALL, BIDIRECTIONAL, Format, Tensor, golden

ARCHITECTURES = {name: architecture for architecture, name in gguf.MODEL_ARCH_NAMES.items()}
# What a file may hold beside what is read.
LEFT = {
    ("deepseek2", "blk.{bid}.attn_kv_b"): "the same numbers as attn_k_b and attn_v_b",
    ("mistral4", "blk.{bid}.attn_kv_b"): "the same numbers as attn_k_b and attn_v_b",
    ("gemma-embedding", "output"): "vectors need no head",
}


def goldens():
    """By architecture: metadata and tensors of its first golden, and the names of the tensors of all."""
    first, stems = {}, defaultdict(set)
    for name in (*ALL, *BIDIRECTIONAL):
        metadata, tensors = golden(name)
        architecture = metadata["general.architecture"]
        first.setdefault(architecture, (metadata, tensors))
        stems[architecture] |= {
            re.sub(r"\.(weight|bias)$", "", re.sub(r"blk\.\d+\.", "blk.{bid}.", tensor)) for tensor in tensors
        }
    return first, stems


def test_each_name_is_read_or_refused():
    first, stems = goldens()
    tested, left = 0, set()
    for architecture, (metadata, tensors) in first.items():
        named = {gguf.TENSOR_NAMES[tensor] for tensor in gguf.MODEL_TENSORS[ARCHITECTURES[architecture]]}
        for stem in sorted(named - stems[architecture]):
            name = stem.format(bid=0, xid=0) + ".weight"
            extra = Tensor(name, (8,), Format("F32", 0), np.zeros(8, np.float32))
            tested += 1
            if (architecture, stem) in LEFT:
                models.build(dict(metadata), tensors | {name: extra})
                left.add((architecture, stem))
                continue
            with pytest.raises(ModelError, match=re.escape(name)):
                models.build(dict(metadata), tensors | {name: extra})
    assert left == set(LEFT)
    assert tested > 30
    assert len(first) >= len(models.FAMILIES) - 2  # two have no golden: transformers does not have them
