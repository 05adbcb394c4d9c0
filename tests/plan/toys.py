"""Small graphs for tests, and what the definitions say of them."""

from __future__ import annotations

import numpy as np

from clarion import models
from clarion.host import native
from clarion.plan import compile
from clarion.plan.interpret import Text, interpret
from clarion.plan.sources import Sources
from clarion.plan.state import paged_layers
from clarion.programs import host_target
from clarion.residency import Mapped, Store
from tests.models.files import golden
from tests.plan.reference import dequantize, with_axes


def hyperparameters(name):
    return models.build(*golden(name)).hyperparameters


def computed(plan, ids, *tensors):
    """The outputs of a plan by their names, in float64, for one text."""
    sources = Sources(plan.weights, *tensors)

    def stored(weight, n_axes):
        shape = {"experts": weight.experts, "rows": weight.rows, "cols": weight.cols}
        return with_axes(
            dequantize({"format": weight.type_id, "data": sources[weight.name].view, **shape}), n_axes
        )

    return interpret(np, plan.nodes(), plan.kept(), stored, Text(np, np.asarray(ids), 0, plan.states))


def run(plan, ids, *tensors, **options):
    """The same on the native machine, every row wanted."""
    n = len(ids)
    options = {"max_tokens": n, "max_outputs": n, "context": 64} | options
    program = compile(plan, host_target(), **options)
    module = native()
    store = Store(program.weights, Mapped(Sources(program.weights, *tensors)))
    bound = module.Program(module.Machine(1), program.native_spec(store))
    layers, kv = paged_layers(program.states), program.kv
    cache = module.KvCache(layers, 1, 64, kv.keys, kv.values) if layers else None
    here = np.arange(n, dtype=np.int32)
    assert bound.run(cache, np.asarray(ids, np.int32), here, 0 * here, np.zeros((1, 1), np.int32), here)
    return {output.value: np.array(bound.buffer(output.value)) for output in program.outputs}
