"""Small graphs for tests, and what the definitions say of them."""

from __future__ import annotations

import numpy as np

from clarion import models
from clarion.plan import compile
from clarion.plan.interpret import Text, interpret
from clarion.plan.sources import Sources
from clarion.programs import host_target
from clarion.residency import Mapped, Store
from clarion.runtime.executor import Executor
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
    executor = Executor(
        program, Store(program.weights, Mapped(Sources(program.weights, *tensors))), threads=1
    )
    assert list(executor.each_batch(list(ids))) == [slice(0, n)]
    return {output.value: np.array(executor.array(output.value)) for output in program.outputs}
