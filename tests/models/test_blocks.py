"""Layers of one model may differ: a family's block asks the number and changes the layer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from clarion.models.blocks import attention, decoder, feed_forward
from clarion.models.keys import Keys
from clarion.models.rope import Rope
from clarion.plan.checkpoint import Checkpoint
from tests.models.files import Tensor, expected, golden, nmse
from tests.plan.toys import computed, run

NAME = "llama-mqa-head20"  # 3 layers, 3 heads of 20, one of keys and values
SLOW = Rope(tuple(50.0 ** (-i / 5) for i in range(5)), 1.0, "half of a head, base 50")


def llama(metadata, tensors, change=lambda layer: layer):
    def block(layer, x):
        layer = change(layer)
        x = x + attention(layer, layer.norm(x, "attn_norm"), neox=False)
        return x + feed_forward(layer, layer.norm(x, "ffn_norm"))

    w = Checkpoint(tensors)
    graph = decoder(Keys(metadata), w, block)
    w.refuse_unused()
    return graph.plan()


def varied(layer):
    """A window without positions, other frequencies for fewer elements, and more heads of keys and values."""
    if layer.number == 0:
        return replace(layer, hp=replace(layer.hp, window=4), rope=None)
    if layer.number == 1:
        return replace(layer, rope=SLOW)
    return replace(layer, hp=replace(layer.hp, n_head_kv=3))


def with_three_heads_of_keys(tensors, layer):
    """The tensors, the keys and values of a layer being those of its queries."""
    query = tensors[f"blk.{layer}.attn_q.weight"]
    for name in (f"blk.{layer}.attn_k.weight", f"blk.{layer}.attn_v.weight"):
        tensors[name] = Tensor(name, query.shape, query.format, query.data)
    return tensors


def test_layers_that_differ():
    ids = expected(NAME)[0]
    metadata, tensors = golden(NAME)
    tensors = with_three_heads_of_keys(tensors, 2)
    plan = llama(metadata, tensors, varied)
    ops = plan.nodes()
    assert [op.ints["window"] for op in ops if op.op == "attention"] == [4, 0, 0]
    assert [state.n_head for state in plan.states] == [1, 1, 3]
    assert [op.ints["n_rot"] for op in ops if op.op == "rope"] == [10, 10, 20, 20]
    assert len([op for op in ops if op.op == "rope_table"]) == 2
    found = run(plan, ids, tensors, activations="exact")["logits"]
    assert nmse(found, computed(plan, ids, tensors)["logits"]) < 1e-9


def test_each_difference_changes_the_logits():
    ids, logits = expected(NAME)
    metadata, tensors = golden(NAME)
    assert nmse(computed(llama(metadata, tensors), ids, tensors)["logits"], logits) < 1e-11
    for number in (0, 1):
        plan = llama(metadata, tensors, lambda layer, n=number: varied(layer) if layer.number == n else layer)
        assert nmse(computed(plan, ids, tensors)["logits"], logits) > 1e-4


def test_a_rotation_has_one_table_in_all_layers():
    metadata, tensors = golden(NAME)
    plan = llama(metadata, tensors, lambda layer: replace(layer, rope=SLOW) if layer.number else layer)
    tables = [node.outputs[0].width for node in plan.nodes() if node.op == "rope_table"]
    np.testing.assert_array_equal(tables, [20, 10])
