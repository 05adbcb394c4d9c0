"""Pass: does the plan keep the rules? Knows nothing of how the plan was made.

Shapes, kinds and parameters, by the operation table; which buffers share memory; whether what is read was
written and is still there; the order of writing and reading the cache.
"""

from __future__ import annotations

from typing import assert_never

from clarion.errors import PlanError
from clarion.plan.memory import ALIGNMENT
from clarion.plan.operation import Call, Operation, Reads, Shape, Writes
from clarion.plan.operations import OPERATIONS
from clarion.plan.plan import OUTPUT, Buffer, Op, Plan


def verify(plan: Plan) -> None:
    """Raises PlanError, naming the operation, for the first rule that the plan breaks."""
    _buffers(plan)
    valid = _Contents(plan)
    cache = _Cache(plan)
    for i, op in enumerate(plan.ops):
        where = f"operation {i} ({op.op})"
        entry = OPERATIONS.get(op.op)
        if entry is None:
            raise PlanError(f"{where} is unknown; known: {', '.join(OPERATIONS)}")
        call = _call(plan, op, where, entry)
        call.verify()
        _aliasing(plan, op, call, entry)
        valid.run(op, where)
        cache.run(op, call)
    _output(plan)
    index = {buffer.name: i for i, buffer in enumerate(plan.buffers)}
    for name in plan.kept:
        if name not in index:
            raise PlanError(f"no buffer is named {name}")
        valid.read(index[name], "the end")


def _output(plan: Plan) -> None:
    """What every plan is for: one row of n_vocab for each wanted output."""
    if plan.kept[:1] != (OUTPUT,):
        raise PlanError(f"the buffers kept are {list(plan.kept)}, expected {OUTPUT} first")
    for buffer in plan.buffers:
        if buffer.name == OUTPUT and (buffer.kind, buffer.rows, buffer.width) != (
            "f32",
            "outputs",
            plan.n_vocab,
        ):
            raise PlanError(f"buffer {OUTPUT} is {buffer}, expected f32 outputs of {plan.n_vocab}")


def _buffers(plan: Plan) -> None:
    names = set()
    for buffer in plan.buffers:
        if buffer.name in names:
            raise PlanError(f"two buffers are named {buffer.name}")
        names.add(buffer.name)
        if buffer.offset % ALIGNMENT or buffer.offset < 0:
            raise PlanError(
                f"buffer {buffer.name} lies at {buffer.offset}, expected a multiple of {ALIGNMENT}"
            )
        end = buffer.offset + buffer.n_bytes
        if end > plan.arena_bytes:
            raise PlanError(f"buffer {buffer.name} ends at {end}, the arena at {plan.arena_bytes}")


def _call(plan: Plan, op: Op, where: str, entry: Operation) -> Call:
    for kind, found, known in (
        ("ints", op.ints, entry.ints),
        ("floats", op.floats, entry.floats),
        ("arrays", op.arrays, entry.arrays),
    ):
        if set(found) != known:
            raise PlanError(f"{where} has {kind} {sorted(found)}, expected {sorted(known)}")
    for i in (*op.inputs, *op.outputs):
        if not 0 <= i < len(plan.buffers):
            raise PlanError(f"{where} names buffer {i} of {len(plan.buffers)}")
    for i in op.weights:
        if not -1 <= i < len(plan.weights):
            raise PlanError(f"{where} names weight {i} of {len(plan.weights)}")
    return Call(
        where,
        entry,
        [_shape(plan.buffers[i]) for i in op.inputs],
        [_shape(plan.buffers[i]) for i in op.outputs],
        [plan.weights[i] if i >= 0 else None for i in op.weights],
        {**op.ints, **op.floats, **op.arrays},
    )


def _shape(buffer: Buffer) -> Shape:
    return Shape(buffer.name, buffer.kind, buffer.rows, buffer.width, buffer.slots_per_token)


def _overlap(a: Buffer, b: Buffer) -> bool:
    return a.offset < b.offset + b.n_bytes and b.offset < a.offset + a.n_bytes


def _aliasing(plan: Plan, op: Op, call: Call, entry: Operation) -> None:
    """What is written shares no memory with anything else of the operation, but where the table says so."""
    for o, written in enumerate(op.outputs):
        at, must = entry.alias(o) or (-1, False)
        if must and op.inputs[at] != written:
            call.fail(f"output {o} must be the buffer of input {at}")
        for i, read in enumerate(op.inputs):
            same = written == read and i == at
            if not same and _overlap(plan.buffers[written], plan.buffers[read]):
                call.fail(f"output {plan.buffers[written].name} shares memory with {plan.buffers[read].name}")
        for other in op.outputs[:o]:
            if _overlap(plan.buffers[written], plan.buffers[other]):
                call.fail(f"outputs {plan.buffers[written].name} and {plan.buffers[other].name} share memory")


class _Contents:
    """Which buffers hold what was written to them: writing one ends all others that share its memory."""

    def __init__(self, plan: Plan) -> None:
        self._buffers = plan.buffers
        self._whole: set[int] = set()
        self._ended_by: dict[int, str] = {}

    def run(self, op: Op, where: str) -> None:
        for i in op.inputs:
            self.read(i, where)
        for i in op.outputs:
            ended = {other for other in self._whole if _overlap(self._buffers[other], self._buffers[i])}
            self._ended_by |= dict.fromkeys(ended, where)
            self._whole -= ended
        self._whole |= set(op.outputs)

    def read(self, i: int, where: str) -> None:
        if i not in self._whole:
            cause = f"{self._ended_by[i]} overwrote it" if i in self._ended_by else "nothing wrote it"
            raise PlanError(f"{where} reads {self._buffers[i].name}: {cause}")


class _Cache:
    """Each layer of the cache is written once, and read only then."""

    def __init__(self, plan: Plan) -> None:
        self._layers = plan.kv_layers
        self._written: set[int] = set()

    def run(self, op: Op, call: Call) -> None:
        state = call.entry.state
        if state is None:
            return
        layer = op.ints["layer"]
        if not 0 <= layer < len(self._layers):
            call.fail(f"layer is {layer} of {len(self._layers)}")
        n_head, dim_k, dim_v = self._layers[layer]
        match state:
            case Reads():
                if layer not in self._written:
                    call.fail(f"reads layer {layer} of the cache, which nothing wrote")
                found = tuple(call.size(name) for name in (state.heads, state.k, state.v))
                if found != (n_head, dim_k, dim_v):
                    call.fail(f"the cache's layer {layer} is {self._layers[layer]}, found {found}")
            case Writes():
                if layer in self._written:
                    call.fail(f"layer {layer} of the cache is written twice")
                self._written.add(layer)
                k, v = call.size(state.k), call.size(state.v)
                if (k, v) != (n_head * dim_k, n_head * dim_v):
                    call.fail(
                        f"the cache's layer {layer} is {self._layers[layer]}, found k {k} and v {v} wide"
                    )
            case _:
                assert_never(state)
