"""What a plan computes for its caller: logits, rows of vectors, pooled vectors, alone or together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clarion import models
from clarion.errors import PlanError
from clarion.plan import Graph, Plan
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.output import HiddenRows, Logits, Pooled
from clarion.plan.verify import verify_plan
from tests.models.files import expected, golden
from tests.plan.toys import computed, hyperparameters, run

NAME = "llama-q8_0"
IDS = expected(NAME)[0][:20]
TENSORS = golden(NAME)[1]


def encoder(rows="tokens"):
    """Embeddings, a product, a norm: no logits."""
    hp, w = hyperparameters(NAME), Checkpoint(TENSORS)
    g = Graph(hp)
    x = g.embed(w.token_embd, hp.n_vocab, hp.n_embd)
    x = x + g.linear(x, w.blk[0].attn_q, hp.n_embd)
    x = g.rms_norm(x if rows == "tokens" else g.select(x), w.output_norm, hp.norm_eps)
    return g, x


@pytest.mark.parametrize("rows", ["tokens", "outputs"])
@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("activations", ["fast", "high", "exact"])
def test_an_encoder_gives_hidden_rows(rows, fuse, activations):
    g, x = encoder(rows)
    g.output(x, HiddenRows())
    plan = g.plan()
    assert Plan.from_json(plan.to_json()) == plan
    assert "hidden_rows (hidden rows)" in str(plan)
    wanted = computed(plan, IDS, TENSORS)["hidden_rows"]
    found = run(plan, IDS, TENSORS, fuse=fuse, activations=activations)["hidden_rows"]
    assert found.shape == wanted.shape == (20, plan.hyperparameters.n_embd)
    limit = {"fast": 3e-2, "high": 3e-4, "exact": 1e-5}[activations]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=limit * np.abs(wanted).max())


def test_a_pooled_vector_is_an_output():
    g, x = encoder()
    g.output(g.mean_rows(x), Pooled("mean"))
    g.output(x, HiddenRows())
    plan = g.plan()
    assert Plan.from_json(plan.to_json()) == plan
    found = computed(plan, IDS, TENSORS)
    np.testing.assert_allclose(found["pooled"], np.tile(found["hidden_rows"].mean(0), (20, 1)), rtol=1e-12)


@pytest.mark.parametrize("fuse", [True, False])
def test_what_an_output_needs_is_left_whole(fuse):
    """The rows that enter the output's matrix are wanted too, and the sums before them: no pass removes
    them."""
    graph = models.build(*golden(NAME))
    norm = next(node for node in reversed(graph.nodes) if node.op == "rms_norm")
    values = {node.outputs[0].name: node.outputs[0] for node in graph.nodes if node.outputs}
    plan = graph.plan()
    assert norm.outputs[0].name in values
    before = [value.name for value in (norm.outputs[0], norm.inputs[0], _added(plan))]
    more = replace(plan, outputs=(*plan.outputs, *map(HiddenRows, before)))
    verify_plan(more)
    found, wanted = run(more, IDS, TENSORS, fuse=fuse), computed(more, IDS, TENSORS)
    assert list(found) == ["logits", *before]
    for name, rows in wanted.items():
        np.testing.assert_allclose(found[name], rows, rtol=0, atol=1e-3 * np.abs(rows).max())
    np.testing.assert_array_equal(found["logits"], run(plan, IDS, TENSORS, fuse=fuse)["logits"])


def _added(plan):
    """What leaves the first layer's attention, before it is added to the residual."""
    return plan.values[next(op for op in plan.ops if op.op == "add").inputs[1]]


def test_outputs_have_the_shape_that_they_state():
    g, x = encoder()
    g.output(x)
    with pytest.raises(PlanError, match=r"logits is \[tokens, \d+\], expected \[outputs, 80\] of logits"):
        g.plan()
    g, x = encoder()
    g.output(x, Pooled("mean"))
    with pytest.raises(PlanError, match=r"pooled is .* expected \[outputs, \d+\] of vectors of texts"):
        g.plan()
    plan = models.build(*golden(NAME)).plan()
    with pytest.raises(PlanError, match="nowhere: nothing is named so"):
        verify_plan(replace(plan, outputs=(Logits("nowhere"),)))
    mixtral = models.build(*golden("mixtral")).plan()
    slots = next(value for value in mixtral.values if value.slots_per_token > 1)
    with pytest.raises(PlanError, match="rows for each of tokens"):
        verify_plan(replace(mixtral, outputs=(HiddenRows(slots.name),)))


def test_a_plan_is_verified_by_the_table():
    plan = models.build(*golden(NAME)).plan()

    def refused(match, **parts):
        with pytest.raises(PlanError, match=match):
            verify_plan(replace(plan, **parts))

    i = next(i for i, op in enumerate(plan.ops) if op.op == "attention")
    without = (*plan.ops[: i - 1], *plan.ops[i:])
    refused(r"operation \d+ \(attention\): reads state 0, which nothing wrote", ops=without)
    refused("reads token_embd, which nothing wrote before", ops=plan.ops[1:])
    refused(r"\(embed\): writes token_embd again", ops=(plan.ops[0], *plan.ops))
    refused("expected f32 or i32", values=(replace(plan.values[0], kind="high"), *plan.values[1:]))
    refused("names, expected one for each", values=(plan.values[1], *plan.values[1:]))
    refused("state is 0 of 0", states=())
    refused("expected", values=(replace(plan.values[0], width=7), *plan.values[1:]))
