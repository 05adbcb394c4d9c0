"""The verifier finds every way in which these tests break a good plan, and names the operation."""

from __future__ import annotations

import random
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarion import models, plan
from clarion.errors import PlanError
from clarion.plan.ir import Value
from clarion.plan.observe import SquareSums
from clarion.plan.operation import Call
from clarion.plan.operations import OPERATIONS
from clarion.plan.state import Paged
from clarion.plan.verify import verify
from clarion.plan.weight import Weight, Whole
from tests.models.files import BIDIRECTIONAL, NAMES, golden
from tests.plan.reference import TARGET
from tests.plan.toys import of_no_golden

OPTIONS = {"max_tokens": 16, "max_outputs": 4, "context": 64}


def compiled(name, **options):
    return plan.compile(models.build(*golden(name)).plan(), TARGET, **(OPTIONS | options))


def find(p, op):
    return next(i for i, candidate in enumerate(p.ops) if candidate.op == op)


def changed(p, i, **parts):
    """The plan with one operation changed."""
    return replace(p, ops=(*p.ops[:i], replace(p.ops[i], **parts), *p.ops[i + 1 :]))


def moved(p, i, **parts):
    """The plan with one buffer changed."""
    return replace(p, buffers=(*p.buffers[:i], replace(p.buffers[i], **parts), *p.buffers[i + 1 :]))


def refused(p, *words):
    with pytest.raises(PlanError) as caught:
        verify(p)
    for word in words:
        assert str(word) in str(caught.value)


def test_every_operation_has_a_place_in_some_plan():
    names = (*NAMES, *BIDIRECTIONAL)
    used = {op.op for name in names for fuse in (True, False) for op in compiled(name, fuse=fuse).ops}
    used |= {op.op for op in compiled("mixtral", observe=SquareSums(lambda name: True)).ops}
    used |= {node.op for node in of_no_golden().nodes()}
    assert used == set(OPERATIONS)


def test_the_document_shows_the_operation_table():
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    script = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "make_operations_page.py"))
    assert text == script["page"]()


def test_parameters():
    p = compiled("qwen3")
    i = find(p, "rope_kv")
    ints = dict(p.ops[i].ints)
    for name in ints:
        refused(changed(p, i, ints={**ints, name: 77}), f"operation {i} (rope_kv)")
        refused(changed(p, i, ints={k: v for k, v in ints.items() if k != name}), name)
    refused(changed(p, i, ints=ints | {"more": 1}), "more")
    refused(changed(p, i, op="rope_vk"), "rope_vk", "known")
    i = find(p, "rms_norm")
    refused(changed(p, i, floats={}), "eps")
    i = find(p, "rope_table")
    refused(changed(p, i, arrays={"inv_freq": (1.0, 0.5)}), "rope")


def test_counts_of_inputs_outputs_and_weights():
    p = compiled("llama-bias", fuse=False)
    for op in {op.op for op in p.ops}:
        i = find(p, op)
        found = p.ops[i]
        refused(changed(p, i, inputs=(*found.inputs, 0, 0)), f"operation {i} ({op})")
        refused(changed(p, i, outputs=(*found.outputs, 0, 0)), f"operation {i} ({op})")
        refused(changed(p, i, weights=(*found.weights, 0)), f"operation {i} ({op})")
        if found.inputs:
            refused(changed(p, i, inputs=found.inputs[:-1]), f"operation {i} ({op})")


def test_indices():
    p = compiled("llama-mha")
    refused(changed(p, 2, inputs=(len(p.buffers),)), "operation 2 (rms_norm)", len(p.buffers))
    refused(changed(p, 2, inputs=(-1,)), "operation 2 (rms_norm)")
    refused(changed(p, 2, weights=(len(p.weights),)), "operation 2 (rms_norm)", len(p.weights))
    i = find(p, "linear")
    refused(changed(p, i, weights=(-1, *p.ops[i].weights[1:])), f"operation {i} (linear)", "absent")


def test_shapes_kinds_and_rows():
    p = compiled("llama-q8_0")
    i = find(p, "linear")
    a, y = p.ops[i].inputs[0], p.ops[i].outputs[1]
    refused(moved(p, a, width=96), "expected")
    refused(moved(p, y, width=p.buffers[y].width + 1), f"operation {i} (linear)", "blk.0.attn_k.weight")
    refused(moved(p, y, rows="outputs"), f"operation {i} (linear)", p.buffers[y].name)
    refused(moved(p, y, kind="i32"), f"operation {i} (linear)", "i32")
    i = find(p, "select")
    refused(moved(p, p.ops[i].outputs[0], rows="tokens"), "select")


def test_biases_of_experts_multiply_nothing():
    """They are floats, whatever the activations are encoded as."""
    x, ids = Value("x", 64, kind="high"), Value("ids", 2, kind="i32")
    matrices = Weight("w", Whole("w"), "Q8_0", 8, 8, 64, 4, 4 * 8 * 68)
    biases = Weight("b", Whole("b"), "F32", 0, 4, 8, 1, 4 * 8 * 4)
    y = Value("y", 8, slots_per_token=2)
    Call("here", OPERATIONS["expert_linear"], [x, ids], [y], [matrices, biases], {}).verify()
    floats = replace(matrices, format="F32")
    call = Call("here", OPERATIONS["expert_linear"], [x, ids], [y], [floats, biases], {})
    with pytest.raises(PlanError, match="w in F32 cannot multiply x, which is high"):
        call.verify()


def test_float_weights_cannot_multiply_encoded_activations():
    p = compiled("llama-split")
    norm = p.ops[find(p, "rms_norm")]
    f32, encoded = norm.outputs
    i = next(i for i, op in enumerate(p.ops) if op.op == "linear" and op.inputs[0] == f32)
    refused(changed(p, i, inputs=(encoded,)), f"operation {i} (linear)", "F16", "high")


def test_vectors_are_float32():
    p = compiled("llama-mha")
    i = find(p, "rms_norm")
    w = p.ops[i].weights[0]
    weights = list(p.weights)
    weights[w] = replace(weights[w], format="F16")
    refused(replace(p, weights=tuple(weights)), f"operation {i} (rms_norm)", "F16", "expected F32")


def test_memory():
    p = compiled("llama-mha")
    refused(moved(p, 3, offset=p.buffers[3].offset + 4), "multiple of 64")
    refused(moved(p, 3, offset=p.arena_bytes), p.buffers[3].name, "arena")
    refused(moved(p, 3, name=p.buffers[2].name), p.buffers[2].name)
    refused(replace(p, arena_bytes=p.arena_bytes - 64), "arena")


def test_results_must_not_share_memory_with_operands():
    p = compiled("llama-mha")
    i = find(p, "linear")
    a, (q, k, _) = p.ops[i].inputs[0], p.ops[i].outputs
    wide = replace(p, arena_bytes=10 * p.arena_bytes)
    refused(moved(wide, q, offset=p.buffers[a].offset), f"operation {i} (linear)", "shares memory")
    refused(moved(wide, k, offset=p.buffers[q].offset), f"operation {i} (linear)", "share memory")
    i = find(p, "rope_kv")
    refused(changed(p, i, outputs=(p.ops[i].inputs[2],)), f"operation {i} (rope_kv)")


def test_reading_what_was_not_written_or_is_gone():
    p = compiled("llama-mha")
    i = find(p, "linear")
    refused(replace(p, ops=(*p.ops[:i], *p.ops[i + 1 :])), "nothing wrote it")
    swapped = (*p.ops[:2], p.ops[3], p.ops[2], *p.ops[4:])
    refused(replace(p, ops=swapped), "operation 2 (linear)", "nothing wrote it")
    table = p.ops[find(p, "rope_table")].outputs[0]
    wide = replace(p, arena_bytes=10 * p.arena_bytes)
    down = max(i for i, op in enumerate(p.ops[:12]) if op.op == "swiglu")
    over = p.buffers[p.ops[down].outputs[0]].offset
    refused(moved(wide, table, offset=over), "rope", "overwrote it")


def test_the_logits():
    p = compiled("llama-mha")
    refused(replace(p, ops=p.ops[:-1]), "the end", "logits")
    i = p.ops[-1].outputs[0]
    refused(moved(p, i, name="result"), "logits")


def test_the_states():
    p = compiled("llama-mha")
    first, second = (i for i, op in enumerate(p.ops) if op.op == "rope_kv")
    attention = find(p, "attention")
    ints = dict(p.ops[second].ints) | {"state": 0}
    refused(changed(p, second, ints=ints), f"operation {second} (rope_kv)", "twice")
    ints = dict(p.ops[attention].ints) | {"state": 1}
    refused(changed(p, attention, ints=ints), f"operation {attention} (attention)", "nothing wrote")
    ints = dict(p.ops[first].ints) | {"state": 2}
    refused(changed(p, first, ints=ints), "state is 2 of 2")
    for other in (Paged(2, 12, 12), Paged(4, 6, 12), Paged(4, 12, 6)):
        refused(replace(p, states=(other, *p.states[1:])), f"operation {first} (rope_kv)", "state 0")


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(["llama-q8_0", "qwen3moe", "mistral-window"]), st.integers(0, 1 << 32))
def test_no_layout_with_a_buffer_moved_at_random_passes_and_computes_wrongly(name, seed):
    """Move one buffer onto another: the verifier objects, or no operation reads what was lost."""
    rng = random.Random(seed)
    p = compiled(name)
    i, onto = rng.sample(range(len(p.buffers)), 2)
    broken = moved(replace(p, arena_bytes=2 * p.arena_bytes), i, offset=p.buffers[onto].offset)
    try:
        verify(broken)
    except PlanError:
        return
    lives = _lifetimes(p)
    assert lives[i][1] < lives[onto][0] or lives[onto][1] < lives[i][0]


def _lifetimes(p):
    lives = {}
    for at, op in enumerate(p.ops):
        for i in (*op.inputs, *op.outputs):
            lives[i] = (lives.get(i, (at, at))[0], at)
    return lives


def test_what_is_kept_lives_to_the_end():
    p = compiled("llama-mha", observe=SquareSums(lambda name: name.startswith("blk.0")))
    assert len(p.kept) == 1 + 2 * 4  # logits; sums and counts of four inputs
    refused(replace(p, outputs=()), "no output")
    refused(replace(p, observed=(*p.observed, "nowhere")), "nowhere")
    lost = find(p, "rms_norm")
    name = p.buffers[p.ops[lost].outputs[0]].name
    refused(replace(p, observed=(*p.observed, name)), "the end", name, "overwrote")


def test_square_sums():
    p = compiled("mixtral", observe=SquareSums(lambda name: True))
    i = next(i for i, op in enumerate(p.ops) if op.op == "square_sums" and op.ints["experts"] > 1)
    where = f"operation {i} (square_sums)"
    refused(changed(p, i, ints={"experts": 1}), where)
    refused(changed(p, i, inputs=p.ops[i].inputs[:1]), where, "without their ids")
    refused(moved(p, p.ops[i].outputs[0], rows="tokens"), where, "batch")
