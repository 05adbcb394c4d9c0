"""Observing changes no result, and sees what the definition sees."""

import numpy as np
import pytest

from clarion import models, plan
from clarion.plan.observe import Layers, SquareSums
from clarion.plan.sources import Sources
from clarion.programs import host_target
from clarion.residency import Mapped, Store
from clarion.runtime.executor import Executor
from tests.models.files import NAMES, expected, golden, mapped
from tests.plan.reference import TARGET, Memory, Reference, row_bytes

N = 24
SUM = 1e-5  # of some thousand float32 roundings, relative to the largest value


def compiled(name, observe=None, fuse=True, activations="high"):
    graph = models.build(*golden(name))
    options = {"max_tokens": N, "max_outputs": N, "context": N, "fuse": fuse, "activations": activations}
    return plan.compile(graph.plan(), host_target(), **options, observe=observe)


def kept(p, name, ids):
    store = Store(p.weights, Mapped(Sources(p.weights, golden(name)[1])))
    executor = Executor(p, store, threads=2)
    assert list(executor.each_batch(ids)) == [slice(0, len(ids))]
    return {name: np.array(executor.array(name)) for name in p.kept}


def reference(p, name, ids):
    spec = p.native_spec(mapped(name, p))
    machine = Reference(spec)
    machine.extents = [(b.offset, b.offset + b.n_bytes) for b in p.buffers]
    here = np.arange(len(ids))
    machine.run(Memory(p.states), ids, here, 0 * here, here)
    return {name: machine.buffer(name) for name in p.kept}


@pytest.mark.parametrize("activations", ["fast", "high", "exact"])
@pytest.mark.parametrize("name", NAMES)
def test_the_logits_keep_their_bits(name, activations):
    ids = expected(name)[0][:N]
    wanted = kept(compiled(name, activations=activations), name, ids)["logits"]
    for observe in (SquareSums(lambda name: True), Layers()):
        for fuse in (True, False):
            found = kept(compiled(name, observe, fuse, activations), name, ids)["logits"]
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_seen_is_what_the_definition_computes(name):
    ids = expected(name)[0][:N]
    for observe in (SquareSums(lambda name: True), Layers()):
        p = compiled(name, observe, activations="exact")
        found, wanted = kept(p, name, ids), reference(p, name, ids)
        for buffer in p.kept[1:]:
            scale = np.abs(wanted[buffer]).max()
            np.testing.assert_allclose(found[buffer], wanted[buffer], rtol=0, atol=SUM * scale)


@pytest.mark.parametrize("name", NAMES)
def test_each_matrix_and_each_layer_is_found(name):
    squares, layers = SquareSums(lambda name: True), Layers()
    p = compiled(name, squares)
    products = [op for op in p.ops if op.op in ("linear", "expert_linear")]
    assert set(squares.found) == {p.weights[i].name for op in products for i in op.weights[: len(op.outputs)]}
    assert {buffer for found in squares.found.values() for buffer in (found.sums, found.counts)} == set(
        p.kept[1:]
    )
    p = compiled(name, layers)
    assert list(p.kept[1:]) == layers.found
    assert len(layers.found) == p.hyperparameters.n_layer
    # What leaves the last layer is what the output's norm reads.
    last = next(op for op in reversed(p.ops) if op.op == "rms_norm")
    source = {op.outputs[0]: op.inputs[0] for op in p.ops if op.op == "select"}
    kept_last = next(i for i, buffer in enumerate(p.buffers) if buffer.name == layers.found[-1])
    assert source[last.inputs[0]] == source[kept_last]


def test_row_bytes_of_a_batch_do_not_grow_with_it():
    graph = models.build(*golden("mixtral"))
    options = {"context": 64, "observe": SquareSums(lambda name: True)}
    p = plan.compile(graph.plan(), TARGET, max_tokens=64, max_outputs=64, **options)
    for buffer in p.buffers:
        if buffer.rows == "batch":
            assert buffer.n_bytes == row_bytes("f32", buffer.width)
            assert f"[1, {buffer.width}]" in str(p)
