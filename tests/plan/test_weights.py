"""Weights that are parts of tensors, and weights of several files."""

from __future__ import annotations

import pickle

import gguf
import numpy as np
import pytest

from clarion import models
from clarion.errors import ModelError, UnsupportedError
from clarion.plan import Plan
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.sources import Sources
from clarion.plan.weight import Slice, Whole
from tests.models.files import Format, Tensor, expected, golden, zeros
from tests.plan.toys import run

FUSED = ("attn_q", "attn_k", "attn_v")


def with_fused_qkv(name):
    """A golden's metadata and tensors, in which query, key and value of a layer are rows of one tensor."""
    metadata, tensors = golden(name)
    for i in range(metadata["llama.block_count"]):
        for leaf in ("weight", "bias"):
            found = [tensors.pop(f"blk.{i}.{part}.{leaf}", None) for part in FUSED]
            if found[0] is not None:
                shape = (sum(tensor.shape[0] for tensor in found), *found[0].shape[1:])
                data = np.concatenate([tensor.view for tensor in found])
                fused = f"blk.{i}.attn_qkv.{leaf}"
                tensors[fused] = Tensor(fused, shape, found[0].format, data)
    return metadata, tensors


@pytest.mark.parametrize("name", ["llama-mha", "llama-q8_0", "llama-bias"])
def test_rows_of_one_tensor_are_three_weights(name):
    """The same bits as of three tensors, in every format and with biases."""
    metadata, tensors = with_fused_qkv(name)
    plan = models.build(metadata, tensors).plan()
    parts = [weight for weight in plan.weights if isinstance(weight.source, Slice)]
    n_layer = metadata["llama.block_count"]
    assert {weight.source.tensor for weight in parts} >= {f"blk.{i}.attn_qkv.weight" for i in range(n_layer)}
    for copy in (Plan.from_json(plan.to_json()), pickle.loads(pickle.dumps(plan))):
        assert copy == plan
    ids = expected(name)[0]
    for activations in ("fast", "high", "exact"):
        whole = run(models.build(*golden(name)).plan(), ids, golden(name)[1], activations=activations)
        np.testing.assert_array_equal(
            run(plan, ids, tensors, activations=activations)["logits"], whole["logits"]
        )


def test_the_first_of_several_sources_gives_the_bytes():
    name = "llama-q8_0"
    plan, tensors = models.build(*golden(name)).plan(), golden(name)[1]
    first = {key: tensor for key, tensor in tensors.items() if key.startswith("blk.")}
    rest = {key: tensor for key, tensor in tensors.items() if key not in first}
    spoiled = {key: zeros(key, *tensor.shape, fmt=tensor.format.name) for key, tensor in tensors.items()}
    ids = expected(name)[0]
    wanted = run(plan, ids, tensors)["logits"]
    np.testing.assert_array_equal(run(plan, ids, first, rest)["logits"], wanted)
    np.testing.assert_array_equal(run(plan, ids, tensors, spoiled)["logits"], wanted)
    assert not (run(plan, ids, spoiled, tensors)["logits"] == wanted).all()
    with pytest.raises(ModelError, match=r"'token_embd.weight' is missing: none of 1 sources"):
        Sources(plan.weights, first)["token_embd.weight"]


def tensor(name, *shape, fmt="Q8_0"):
    kind = gguf.GGMLQuantizationType[fmt]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    n_bytes = int(np.prod(shape)) // block * size
    return Tensor(name, shape, Format(fmt, int(kind)), np.arange(n_bytes, dtype=np.uint8))


def test_parts_and_their_bytes():
    tensors = {t.name: t for t in (tensor("m.weight", 6, 64), tensor("e.weight", 4, 3, 32))}
    tensors["v.bias"] = tensor("v.bias", 10, fmt="F32")
    w = Checkpoint(tensors)

    def data(weight):
        return Sources([weight], tensors)[weight.name].view

    assert w.m.matrix(6, 64, rows=slice(None)).source == Whole("m.weight")
    rows = w.m.matrix(6, 64, rows=slice(2, 5))
    assert (rows.name, rows.shape) == ("m.weight[0:1, 2:5, 0:64]", (3, 64))
    np.testing.assert_array_equal(data(rows), tensors["m.weight"].view[2 * 68 : 5 * 68])
    assert np.shares_memory(data(rows), tensors["m.weight"].view)
    experts = w.e.experts(4, 3, 32, experts=slice(1, 3))
    assert experts.shape == (2, 3, 32)
    np.testing.assert_array_equal(data(experts), tensors["e.weight"].view[3 * 34 : 9 * 34])
    bias = w.v.bias(10, rows=slice(4, None))
    assert (bias.rows, bias.cols) == (1, 6)
    np.testing.assert_array_equal(data(bias), tensors["v.bias"].view[16:])


def test_parts_that_are_no_piece_of_bytes_are_refused():
    w = Checkpoint({"m.weight": tensor("m.weight", 6, 64)})
    with pytest.raises(UnsupportedError, match=r"'m.weight' in Q8_0: .* columns \(0, 32\) are no one piece"):
        w.m.matrix(6, 64, cols=slice(32))
    with pytest.raises(UnsupportedError, match="no one piece"):
        w.m.matrix(6, 64, rows=slice(1), cols=slice(32))
    for rows in (slice(3, 3), slice(0, 6, 2), slice(7, 9)):
        with pytest.raises(ModelError, match="none, or not in order"):
            w.m.matrix(6, 64, rows=rows)
