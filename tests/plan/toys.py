"""Small graphs for tests, and what the definitions say of them."""

from __future__ import annotations

import functools
import json
import subprocess
import sys

import numpy as np

from clarion import models
from clarion.plan import compile
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Graph
from clarion.plan.interpret import Text, interpret
from clarion.plan.output import Logits
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


def of_no_golden():
    """A plan of the operations that no golden needs, and of `layer_norm` before quantised products."""
    tensors = golden("llama-split")[1]
    g, w = Graph(hyperparameters("llama-split")), Checkpoint(tensors)
    n_vocab, n_embd = g.hyperparameters.n_vocab, g.hyperparameters.n_embd
    x = g.relu_squared(g.embed(w.token_embd, n_vocab, n_embd))
    x = g.columns(g.repeat_heads(x, 3, n_head=2), n_embd, n_embd)
    for i in range(2):
        y = g.layer_norm(x, w.blk[i].attn_norm, 1e-5)
        x = x + y * g.linear(y, w.blk[i].attn_output, n_embd)
    g.output(g.linear(g.select(x), w.token_embd, n_vocab), Logits())
    return g.plan()


# Programs of one operation, whose operands are of a kind that none takes: all are refused, but not before the
# module that holds the operation was asked for. As it is not given, the next operation asks again.
_MODULES = """
import json
from clarion.host import native

asked = []

class Asked(Exception):
    pass

def refuse(module):
    asked.append(module)
    raise Asked

buffer = {"name": "x", "offset": 0, "kind": "i32", "rows": "tokens", "slots_per_token": 1, "width": 3}
machine = native()
machine.load_modules_with(refuse)
holds = {}
for name in machine.op_names():
    asked.clear()
    op = {"op": name, "inputs": [0], "outputs": [0], "weights": [], "ints": {}, "floats": {}, "arrays": {}}
    spec = {"arena_bytes": 64, "max_tokens": 1, "max_outputs": 1, "states": [], "weights": [], "ops": [op]}
    try:
        machine.Program(machine.Machine(1), spec | {"buffers": [buffer]})
    except Asked:
        pass
    except ValueError as error:
        assert name in str(error), error
    holds[name] = asked[0] if asked else ""
print(json.dumps(holds))
"""


@functools.cache
def modules_of_operations():
    """Which further native module holds each operation; "" is the main one."""
    command = [sys.executable, "-c", _MODULES]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return json.loads(found.stdout)
