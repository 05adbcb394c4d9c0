"""What an entry declares is held by tests: whatever is changed in it, a plan or a refusal changes.

Each declaration of each entry is falsified, one at a time. Then the passes must make other plans of the
goldens, or the verifier must judge one of them, or one of its spoiled copies, in another way.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pytest

from clarion import models, plan
from clarion.errors import PlanError
from clarion.plan import verify as verify_module
from clarion.plan.observe import SquareSums
from clarion.plan.operation import ANY_FLOAT, ENCODED, F32, I32, Operation, Reads, Writes
from clarion.plan.operations import OPERATIONS
from clarion.runtime.cost import byte_products_per_token, bytes_per_token
from tests.models.files import golden
from tests.plan.reference import TARGET
from tests.plan.toys import modules_of_operations, of_no_golden

# Between them they have every operation that any golden has; those of ordinary models come first.
MODELS = (
    "llama-bias",
    "qwen3",
    "mixtral-q8_0",
    "llama-split",
    "qwen35moe",
    "mistral4",
    "deepseek2",
    "gemma4-experts",
    "gpt-oss",
    "mamba",
    "mamba2",
    "encoders/bert",
    "encoders/bert-classifier",
)
OPTIONS = {"max_tokens": 16, "max_outputs": 4, "context": 64}
KINDS = (F32, I32, ENCODED, ANY_FLOAT)


class Other:
    """A kind of state that no plan has."""


def flips(entry: Operation) -> Iterator[tuple[str, Operation]]:
    """Each declaration falsified: what was changed, and the entry."""
    for part in ("inputs", "outputs", "weights"):
        for i, operand in enumerate(getattr(entry, part)):
            for what, changed in falsified(operand, entry.has_many):
                operands = getattr(entry, part)
                yield (
                    f"{part}[{i}] {what}",
                    replace(entry, **{part: (*operands[:i], changed, *operands[i + 1 :])}),
                )
    if entry.multiplies:
        yield "multiplies", replace(entry, multiplies="")
    if entry.adds:
        yield "adds", replace(entry, adds="")
    if entry.check:
        yield "check", replace(entry, check=None)
    match entry.state:
        case Reads(kind, sizes) | Writes(kind, sizes):
            yield "state", replace(entry, state=None)
            yield "state's kind", replace(entry, state=replace(entry.state, kind=Other))
            other = Writes if isinstance(entry.state, Reads) else Reads
            yield "state's use", replace(entry, state=other(kind, sizes))
            for i, (of_state, width) in enumerate(sizes):
                changed = (*sizes[:i], (of_state, f"{width}·2"), *sizes[i + 1 :])
                yield f"state's {of_state}", replace(entry, state=replace(entry.state, sizes=changed))
        case None:
            pass
    yield "module", replace(entry, module="" if entry.module else "formats")
    for flag in entry.flags:
        yield f"flag {flag}", replace(entry, flags=entry.flags - {flag})
    for names in ("ints", "floats", "arrays"):
        for name in getattr(entry, names):
            yield f"parameter {name}", replace(entry, **{names: getattr(entry, names) - {name}})


def falsified(operand, has_many) -> Iterator[tuple[str, object]]:
    if hasattr(operand, "kinds"):
        for kinds in KINDS:
            if kinds != operand.kinds:
                yield f"kinds {kinds}", replace(operand, kinds=kinds)
        for rows in ("R", "T", "O", "B", "S", "B|S", "1"):
            if rows != operand.rows:
                yield f"rows {rows}", replace(operand, rows=rows)
        yield "width", replace(operand, width=f"{operand.width}·2")
    else:
        for i, size in enumerate(operand.shape):
            shape = (*operand.shape[:i], f"{size}·2", *operand.shape[i + 1 :])
            yield f"shape[{i}]", replace(operand, shape=shape)
        # Where a tensor has no experts, what is chosen is all of it.
        for read in ("all", "row", *(["chosen"] if operand.shape[0] == "experts" else [])):
            if read != operand.read and len(operand.shape) > 1:
                yield f"read {read}", replace(operand, read=read)
    for flag in ("optional", "many"):
        # Of one output, as many weights as outputs are one.
        if hasattr(operand, flag) and (flag != "many" or has_many or not hasattr(operand, "shape")):
            yield flag, replace(operand, **{flag: not getattr(operand, flag)})
    for name in ("in_place", "may_alias", "copy_of"):
        if getattr(operand, name, ""):
            yield name, replace(operand, **{name: ""})


WAYS = ({}, {"fuse": False}, {"activations": "exact"}, {"observe": SquareSums(lambda name: True)})


@functools.cache
def graphs():
    """The plans, by name, of which programs are made."""
    return {name: models.build(*golden(name)).plan() for name in MODELS} | {"no golden's": of_no_golden()}


def compiled(name, **options):
    return plan.compile(graphs()[name], TARGET, **(OPTIONS | options))


@functools.cache
def programs():
    """Programs of all of them, by name and number of the way."""
    return {(name, i): compiled(name, **way) for name in graphs() for i, way in enumerate(WAYS)}


@functools.cache
def places(op):
    """The programs in which an operation stands."""
    return [place for place, p in programs().items() if any(each.op == op for each in p.ops)]


def made(place):
    """What the passes make of a plan in one way, and what that costs; or why they refuse."""
    name, i = place
    try:
        p = compiled(name, **WAYS[i])
    except Exception as error:  # whatever a wrong table leads to
        return type(error).__name__
    return f"{p.to_json()} {bytes_per_token(p)} {byte_products_per_token(p)} {p.read_together}"


@functools.cache
def spoiled(name):
    """Plans and the number of an operation of this name in them, spoiled there in one way each."""
    cases, sorts = [], Counter()
    for place in places(name):
        p = programs()[place]
        for i, op in enumerate(p.ops):
            kinds = tuple(p.buffers[b].kind for b in (*op.inputs, *op.outputs))
            sort = (kinds, len(op.outputs), tuple(w < 0 for w in op.weights))
            sorts[sort] += op.op == name
            if op.op != name or sorts[sort] > 2:
                continue
            cases += [(p, i), *((q, i) for q in spoils(apart(p, i), i))]
            if "state" in p.ops[i].ints:
                cases.append((changed(p, i, ints={**p.ops[i].ints, "state": 77}), i))
    return cases


def spoils(p, i):
    op = p.ops[i]
    for part in ("inputs", "outputs", "weights"):
        found = getattr(op, part)
        yield changed(p, i, **{part: found[:-1]})
        yield changed(p, i, **{part: (*found, *found[-1:])})
    operands = {*op.inputs, *op.outputs}
    slots_there = {p.buffers[b].slots_per_token for b in operands}
    for b in operands:
        for kind in ("f32", "fast", "high", "bf16", "i32"):
            yield buffer(p, b, kind=kind)
        for rows, slots in product(("tokens", "outputs"), {1, 2, 3} | slots_there):
            yield buffer(p, b, rows=rows, slots_per_token=slots)
        yield buffer(p, b, rows="batch", slots_per_token=1)
        yield buffer(p, b, width=p.buffers[b].width + 1)
    few = p
    for b in operands:
        few = buffer(few, b, rows="outputs")
    yield few
    for b in op.inputs:
        for o in range(len(op.outputs)):
            yield changed(p, i, outputs=(*op.outputs[:o], b, *op.outputs[o + 1 :]))
    for at, w in enumerate(op.weights):
        if w >= 0:
            yield changed(p, i, weights=(*op.weights[:at], -1, *op.weights[at + 1 :]))
            for parts in ({"rows": 3}, {"cols": 3}, {"experts": 3}, {"format": "F16"}, {"format": "Q8_0"}):
                weights = (*p.weights[:w], replace(p.weights[w], **parts), *p.weights[w + 1 :])
                yield replace(p, weights=weights)
    for name, value in op.ints.items():
        for other in (-1, 0, 1, 3, 5, 77):
            if other != value:
                q = changed(p, i, ints={**op.ints, name: other})
                yield q
                yield fitted(q, i)


def apart(p, i):
    """With results in buffers of their own."""
    first = len(p.buffers)
    for n, b in enumerate(p.ops[i].outputs):
        own = replace(p.buffers[b], name=f"own{n}", offset=p.arena_bytes)
        p = replace(p, buffers=(*p.buffers, own), arena_bytes=p.arena_bytes + own.n_bytes)
    return changed(p, i, outputs=tuple(range(first, len(p.buffers))))


def fitted(p, i):
    """With buffers as wide as the operation's parameters say."""
    entry, op = OPERATIONS[p.ops[i].op], p.ops[i]
    call = call_of(p, i)
    operands = [*zip(entry.inputs, op.inputs, strict=False), *zip(entry.outputs, op.outputs, strict=False)]
    for operand, b in operands:
        if (width := call.size(operand.width)) is not None:
            p = buffer(p, b, width=width)
        elif "·" not in operand.width:
            call.sizes[operand.width] = p.buffers[b].width
    return p


def changed(p, i, **parts):
    return replace(p, ops=(*p.ops[:i], replace(p.ops[i], **parts), *p.ops[i + 1 :]))


def buffer(p, b, **parts):
    return replace(p, buffers=(*p.buffers[:b], replace(p.buffers[b], **parts), *p.buffers[b + 1 :]))


def judged(name):
    """For each case whether the verifier accepts the operation's shapes, its memory, and the whole plan."""
    return [verdicts(p, i) for p, i in spoiled(name)]


def call_of(p, i):
    return verify_module._call(p.ops[i], i, [buffer.value for buffer in p.buffers], p.weights)


def verdicts(p, i):
    op = p.ops[i]
    found = [accepts(lambda: call_of(p, i).verify())]
    if found == [True]:
        found.append(accepts(lambda: verify_module._aliasing(p, op, call_of(p, i))))
    if "state" in op.ints and found == [True, True]:
        found.append(accepts(lambda: verify_module.verify(p)))
    return found


def accepts(check):
    try:
        check()
    except PlanError:
        return False
    except Exception as error:  # whatever a wrong table leads to
        return type(error).__name__
    return True


@pytest.mark.sample(5)
@pytest.mark.parametrize("name", OPERATIONS)
def test_nothing_that_an_entry_declares_can_change_unseen(name, monkeypatch):
    entry, verdicts = OPERATIONS[name], judged(name)
    wanted = [made(place) for place in places(name)]
    assert verdicts[0][0] is True
    assert sum(verdict[0] is False for verdict in verdicts) >= 10
    for what, other in flips(entry):
        with monkeypatch.context() as patch:
            patch.setitem(OPERATIONS, name, other)
            seen = (
                other.module != modules_of_operations()[name]
                or judged(name) != verdicts
                or any(made(place) != before for place, before in zip(places(name), wanted, strict=True))
            )
            assert seen, f"{name}: {what} can be changed and nothing fails"
