"""Does a plan, or a program, keep the rules? Knows nothing of how it was made.

Of both: shapes, kinds and parameters, by the operation table; states, and the order of writing and reading
them; outputs; whether what is read was written. Of a program, also which buffers share memory, and whether
what was written is still there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn, assert_never

from clarion.errors import PlanError
from clarion.plan import output as outputs
from clarion.plan.ir import Value
from clarion.plan.memory import ALIGNMENT
from clarion.plan.operation import Call, Reads, Writes, size_of_state
from clarion.plan.operations import OPERATIONS
from clarion.plan.plan import Op, Plan
from clarion.plan.program import Buffer, Program
from clarion.plan.state import State
from clarion.plan.weight import Weight


def verify_plan(plan: Plan) -> None:
    """Raises PlanError, naming the operation, for the first rule that the plan breaks."""
    names = {value.name for value in plan.values}
    if len(names) < len(plan.values):
        raise PlanError(f"{len(plan.values)} values have {len(names)} names, expected one for each")
    for value in plan.values:
        if value.kind not in ("f32", "i32"):
            raise PlanError(
                f"value {value.name} is {value.kind}, expected f32 or i32: a plan encodes nothing"
            )
    written: set[int] = set()
    states = _States(plan.states)
    for i, op in enumerate(plan.ops):
        call = _call(op, i, plan.values, plan.weights)
        call.verify()
        for v in op.inputs:
            if v not in written:
                call.fail(f"reads {plan.values[v].name}, which nothing wrote before")
        for v in op.outputs:
            if v in written:
                call.fail(f"writes {plan.values[v].name} again")
            written.add(v)
        states.run(op, call)
    _outputs(plan, {plan.values[v].name: plan.values[v] for v in written})


def verify(program: Program) -> None:
    """Raises PlanError, naming the operation, for the first rule that the program breaks."""
    _buffers(program)
    valid = _Contents(program)
    states = _States(program.states)
    values = [buffer.value for buffer in program.buffers]
    for i, op in enumerate(program.ops):
        call = _call(op, i, values, program.weights)
        call.verify()
        _aliasing(program, op, call)
        valid.run(op, call.where)
        states.run(op, call)
    index = {buffer.name: i for i, buffer in enumerate(program.buffers)}
    _outputs(program, {value.name: value for value in values})
    for name in program.kept:
        if name not in index:
            raise PlanError(f"no buffer is named {name}")
        valid.read(index[name], "the end")


def _outputs(found: Plan | Program, values: Mapping[str, Value]) -> None:
    """There is something to compute, and it has the shape that it is said to have."""

    def fail(what: str) -> NoReturn:
        raise PlanError(f"output {what}")

    if not found.outputs:
        raise PlanError("there is no output")
    for output in found.outputs:
        if output.value not in values:
            fail(f"{output.value}: nothing is named so, expected {outputs.describe(output)}")
        outputs.check(output, values[output.value], found.n_vocab, fail)


def _buffers(program: Program) -> None:
    names = set()
    for buffer in program.buffers:
        if buffer.name in names:
            raise PlanError(f"two buffers are named {buffer.name}")
        names.add(buffer.name)
        if buffer.offset % ALIGNMENT or buffer.offset < 0:
            raise PlanError(
                f"buffer {buffer.name} lies at {buffer.offset}, expected a multiple of {ALIGNMENT}"
            )
        end = buffer.offset + buffer.n_bytes
        if end > program.arena_bytes:
            raise PlanError(f"buffer {buffer.name} ends at {end}, the arena at {program.arena_bytes}")


def _call(op: Op, i: int, values: Sequence[Value], weights: Sequence[Weight]) -> Call:
    """Operation i, what it names looked up."""
    where = f"operation {i} ({op.op})"
    entry = OPERATIONS.get(op.op)
    if entry is None:
        raise PlanError(f"{where} is unknown; known: {', '.join(OPERATIONS)}")
    for kind, found, known in (
        ("ints", op.ints, entry.ints),
        ("floats", op.floats, entry.floats),
        ("arrays", op.arrays, entry.arrays),
    ):
        if set(found) != known:
            raise PlanError(f"{where} has {kind} {sorted(found)}, expected {sorted(known)}")
    for v in (*op.inputs, *op.outputs):
        if not 0 <= v < len(values):
            raise PlanError(f"{where} names value {v} of {len(values)}")
    for w in op.weights:
        if not -1 <= w < len(weights):
            raise PlanError(f"{where} names weight {w} of {len(weights)}")
    return Call(
        where,
        entry,
        [values[v] for v in op.inputs],
        [values[v] for v in op.outputs],
        [weights[w] if w >= 0 else None for w in op.weights],
        {**op.ints, **op.floats, **op.arrays},
    )


def _overlap(a: Buffer, b: Buffer) -> bool:
    return a.offset < b.offset + b.n_bytes and b.offset < a.offset + a.n_bytes


def _aliasing(program: Program, op: Op, call: Call) -> None:
    """What is written shares no memory with anything else of the operation, but where the table says so."""
    for o, written in enumerate(op.outputs):
        at, must = call.entry.alias(o) or (-1, False)
        if must and op.inputs[at] != written:
            call.fail(f"output {o} must be the buffer of input {at}")
        for i, read in enumerate(op.inputs):
            same = written == read and i == at
            if not same and _overlap(program.buffers[written], program.buffers[read]):
                call.fail(
                    f"output {program.buffers[written].name} shares memory with {program.buffers[read].name}"
                )
        for other in op.outputs[:o]:
            if _overlap(program.buffers[written], program.buffers[other]):
                call.fail(
                    f"outputs {program.buffers[written].name} and {program.buffers[other].name} share memory"
                )


class _Contents:
    """Which buffers hold what was written to them: writing one ends all others that share its memory."""

    def __init__(self, program: Program) -> None:
        self._buffers = program.buffers
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


class _States:
    """Each state is written by one operation, and read only after that."""

    def __init__(self, states: Sequence[State]) -> None:
        self._states = states
        self._written: set[int] = set()

    def run(self, op: Op, call: Call) -> None:
        use = call.entry.state
        if use is None:
            return
        i = op.ints["state"]
        if not 0 <= i < len(self._states):
            call.fail(f"state is {i} of {len(self._states)}")
        state = self._states[i]
        if not isinstance(state, use.kind):
            call.fail(f"state {i} is {state}, expected {use.kind.__name__}")
        for of_state, width in use.sizes:
            wanted, found = size_of_state(of_state, state), call.size(width)
            if found != wanted:
                call.fail(f"state {i} is {state}: its {of_state} is {wanted}, found {width} of {found}")
        match use:
            case Reads():
                if i not in self._written:
                    call.fail(f"reads state {i}, which nothing wrote")
            case Writes():
                if i in self._written:
                    call.fail(f"state {i} is written twice")
                self._written.add(i)
            case _:
                assert_never(use)
