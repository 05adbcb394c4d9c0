"""The operation table: for each operation its parameters, which buffers may be one, and the rule for its
shapes.

The rules repeat what docs/architecture.md says in words, and what the machine relies on. Memory layout asks
the table what may be done in place; the verifier holds every operation of a plan against its rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from clarion.errors import PlanError
from clarion.plan.ir import Kind, Rows, Weight

ENCODED: tuple[Kind, ...] = ("fast", "high", "bf16")


@dataclass(frozen=True, slots=True)
class Shape:
    """What a rule sees of a buffer."""

    name: str
    kind: Kind
    rows: Rows
    width: int
    slots_per_token: int


def _text(rows: Rows, slots: int, width: int) -> str:
    return f"[{rows}{f' × {slots}' if rows == 'slots' else ''}, {width}]"


@dataclass(frozen=True, slots=True)
class Call:
    """One operation of a plan, its buffers and weights looked up. Every check that fails is a PlanError."""

    where: str
    inputs: Sequence[Shape]
    outputs: Sequence[Shape]
    weights: Sequence[Weight | None]
    ints: Mapping[str, int]
    floats: Mapping[str, float]
    arrays: Mapping[str, Sequence[float]]

    def fail(self, what: str) -> NoReturn:
        raise PlanError(f"{self.where}: {what}")

    def counts(self, inputs: Sequence[int], outputs: Sequence[int], weights: Sequence[int] = (0,)) -> None:
        """How many inputs, outputs and weights there may be."""
        for kind, found, allowed in (
            ("inputs", self.inputs, inputs),
            ("outputs", self.outputs, outputs),
            ("weights", self.weights, weights),
        ):
            if len(found) not in allowed:
                self.fail(f"{len(found)} {kind}, expected {' or '.join(map(str, allowed))}")

    def shape(self, buffer: Shape, kinds: Kind | Sequence[Kind], rows: Rows | Shape, width: int) -> None:
        """A buffer's kind, rows (by name, or those of another buffer) and width."""
        kinds = (kinds,) if isinstance(kinds, str) else kinds
        like = rows if isinstance(rows, Shape) else Shape("", "f32", rows, width, 1)
        expected = (like.rows, like.slots_per_token, width)
        found = (buffer.rows, buffer.slots_per_token, buffer.width)
        if buffer.kind not in kinds or found != expected:
            self.fail(
                f"{buffer.name} is {buffer.kind} {_text(*found)}, "
                f"expected {' or '.join(kinds)} {_text(*expected)}"
            )

    def matrix(self, i: int, rows: int | None, cols: int, *, experts: bool = False) -> Weight:
        """Weight i, a matrix of rows × cols; several of them where `experts`."""
        weight = self.weights[i]
        if weight is None:
            self.fail(f"weight {i} is absent")
        if weight.cols != cols or rows not in (None, weight.rows) or (weight.experts > 1 and not experts):
            self.fail(f"{weight.name} is {list(weight.shape)}, expected [{rows or '·'}, {cols}]")
        return weight

    def vector(self, i: int, n: int, *, optional: bool = False) -> None:
        """Weight i, n float32 values."""
        weight = self.weights[i]
        if weight is None:
            if not optional:
                self.fail(f"weight {i} is absent")
        elif weight.format != "F32" or (weight.experts, weight.rows, weight.cols) != (1, 1, n):
            self.fail(f"{weight.name} is {weight.format} {list(weight.shape)}, expected F32 [{n}]")

    def product_input(self, x: Shape, weights: Sequence[Weight]) -> None:
        """Weights in BF16 read f32 or bf16, other floats f32; quantised ones f32 or integers."""
        for weight in weights:
            floats = ("f32", "bf16") if weight.format == "BF16" else ("f32",)
            if x.kind not in (floats if weight.is_float else ("f32", "fast", "high")):
                self.fail(f"{weight.name} in {weight.format} cannot multiply {x.name}, which is {x.kind}")

    def heads(self, x: Shape, n_head: str) -> None:
        """x holds that many heads."""
        self.shape(x, "f32", "tokens", self.ints[n_head] * self.ints["head_dim"])

    def rotation(self, table: Shape) -> None:
        """The table is as wide as what it rotates, which is part of a head."""
        n_rot = self.ints["n_rot"]
        self.shape(table, "f32", "tokens", n_rot)
        if n_rot % 2 or not 0 < n_rot <= self.ints["head_dim"]:
            self.fail(f"n_rot is {n_rot}, expected an even number up to head_dim, {self.ints['head_dim']}")
        self.flag("neox")

    def flag(self, name: str) -> None:
        """Zero or one."""
        if self.ints[name] not in (0, 1):
            self.fail(f"{name} is {self.ints[name]}, expected 0 or 1")


@dataclass(frozen=True, slots=True)
class Operation:
    """An entry of the table.

    `in_place`: output → the input whose buffer it must be. `may_alias`: output → the input whose buffer it
    may take.
    """

    rule: Callable[[Call], None]
    ints: frozenset[str]
    floats: frozenset[str]
    arrays: frozenset[str]
    in_place: Mapping[int, int]
    may_alias: Mapping[int, int]


OPERATIONS: dict[str, Operation] = {}
Rule = Callable[[Call], None]


def operation(
    name: str,
    *,
    ints: str = "",
    floats: str = "",
    arrays: str = "",
    in_place: Mapping[int, int] | None = None,
    may_alias: Mapping[int, int] | None = None,
) -> Callable[[Rule], Rule]:
    """Enters a rule into the table."""

    def enter(rule: Rule) -> Rule:
        names = (frozenset(ints.split()), frozenset(floats.split()), frozenset(arrays.split()))
        OPERATIONS[name] = Operation(rule, *names, in_place or {}, may_alias or {})
        return rule

    return enter


@operation("embed", floats="scale")
def _embed(c: Call) -> None:
    c.counts((0,), (1,), (1,))
    c.shape(c.outputs[0], "f32", "tokens", c.outputs[0].width)
    c.matrix(0, None, c.outputs[0].width)


@operation("rope_table", floats="magnitude", arrays="inv_freq")
def _rope_table(c: Call) -> None:
    c.counts((0,), (1,))
    c.shape(c.outputs[0], "f32", "tokens", 2 * len(c.arrays["inv_freq"]))


@operation("norm", floats="eps")
def _norm(c: Call) -> None:
    c.counts((1,), (1, 2), (1,))
    x = c.inputs[0]
    c.shape(x, "f32", x, x.width)
    for y in c.outputs:
        c.shape(y, ("f32", *ENCODED), x, x.width)
    if len(c.outputs) == 2 and [y.kind == "f32" for y in c.outputs] != [True, False]:
        c.fail("two outputs must be f32 and an encoding, in this order")
    c.vector(0, x.width)


@operation("encode")
def _encode(c: Call) -> None:
    c.counts((1,), (1,))
    x = c.inputs[0]
    c.shape(x, "f32", x, x.width)
    c.shape(c.outputs[0], ENCODED, x, x.width)


@operation("linear", may_alias={0: 1})
def _linear(c: Call) -> None:
    n = max(len(c.outputs), 1)
    c.counts((1, 2) if n == 1 else (1,), (n,), (2 * n,))
    a = c.inputs[0]
    weights = [c.matrix(i, y.width, a.width) for i, y in enumerate(c.outputs)]
    c.product_input(a, weights)
    for i, y in enumerate(c.outputs):
        c.shape(y, "f32", a, y.width)
        c.vector(n + i, y.width, optional=True)
    for residual in c.inputs[1:]:
        c.shape(residual, "f32", a, c.outputs[0].width)


@operation("rope", ints="n_head head_dim n_rot neox", floats="eps", in_place={0: 0})
def _rope(c: Call) -> None:
    c.counts((2,), (1,), (1,))
    c.heads(c.inputs[0], "n_head")
    c.rotation(c.inputs[1])
    c.vector(0, c.ints["head_dim"], optional=True)


@operation("kv_write", ints="layer")
def _kv_write(c: Call) -> None:
    c.counts((2,), (0,))
    for x in c.inputs:
        c.shape(x, "f32", "tokens", x.width)


@operation("rope_kv", ints="n_head n_head_kv head_dim n_rot neox layer", floats="eps", in_place={0: 0})
def _rope_kv(c: Call) -> None:
    c.counts((4,), (1,), (2,))
    q, k, v, table = c.inputs
    c.heads(q, "n_head")
    c.heads(k, "n_head_kv")
    c.heads(v, "n_head_kv")
    c.rotation(table)
    c.vector(0, c.ints["head_dim"], optional=True)
    c.vector(1, c.ints["head_dim"], optional=True)


@operation("attention", ints="layer n_head n_head_kv head_dim window", floats="scale")
def _attention(c: Call) -> None:
    c.counts((1,), (1,))
    c.heads(c.inputs[0], "n_head")
    c.heads(c.outputs[0], "n_head")
    if c.ints["n_head"] % c.ints["n_head_kv"] or c.ints["window"] < 0:
        c.fail(f"n_head, n_head_kv or window out of range: {dict(c.ints)}")


@operation("silu")
def _silu(c: Call) -> None:
    c.counts((1,), (1,))
    for x in (c.inputs[0], c.outputs[0]):
        c.shape(x, "f32", c.inputs[0], c.inputs[0].width)


@operation("mul", may_alias={0: 0})
@operation("add", may_alias={0: 0})
def _binary(c: Call) -> None:
    c.counts((2,), (1,))
    for x in (*c.inputs, c.outputs[0]):
        c.shape(x, "f32", c.inputs[0], c.inputs[0].width)


@operation("gate")
def _gate(c: Call) -> None:
    c.counts((2,), (1,))
    for x in c.inputs:
        c.shape(x, "f32", c.inputs[0], c.inputs[0].width)
    c.shape(c.outputs[0], ("f32", *ENCODED), c.inputs[0], c.inputs[0].width)


@operation("select")
def _select(c: Call) -> None:
    c.counts((1,), (1,))
    c.shape(c.inputs[0], "f32", "tokens", c.inputs[0].width)
    c.shape(c.outputs[0], "f32", "outputs", c.inputs[0].width)


@operation("route", ints="k normalize")
def _route(c: Call) -> None:
    c.counts((1,), (2,))
    c.shape(c.inputs[0], "f32", "tokens", c.inputs[0].width)
    c.shape(c.outputs[0], "i32", "tokens", c.ints["k"])
    c.shape(c.outputs[1], "f32", "tokens", c.ints["k"])
    c.flag("normalize")
    if not 0 < c.ints["k"] <= c.inputs[0].width:
        c.fail(f"k is {c.ints['k']}, expected 1 to {c.inputs[0].width}, the number of experts")


@operation("expert_linear")
def _expert_linear(c: Call) -> None:
    n = max(len(c.outputs), 1)
    c.counts((2,), (n,), (n,))
    a, ids = c.inputs
    _routed(c, a, ids)
    weights = [c.matrix(i, y.width, a.width, experts=True) for i, y in enumerate(c.outputs)]
    c.product_input(a, weights)
    for y in c.outputs:
        c.shape(y, "f32", Shape("", "f32", "slots", 0, ids.width), y.width)


@operation("expert_sum")
def _expert_sum(c: Call) -> None:
    c.counts((2, 3), (1,))
    y, w = c.inputs[:2]
    c.shape(w, "f32", "tokens", w.width)
    c.shape(y, "f32", Shape("", "f32", "slots", 0, w.width), y.width)
    for x in (*c.inputs[2:], c.outputs[0]):
        c.shape(x, "f32", "tokens", y.width)


@operation("square_sums", ints="experts")
def _square_sums(c: Call) -> None:
    c.counts((1, 2), (2,))
    x, n = c.inputs[0], c.ints["experts"]
    c.shape(x, "f32", x, x.width)
    if len(c.inputs) > 1:
        _routed(c, x, c.inputs[1])
    elif n != 1:
        c.fail(f"experts is {n}, expected 1 without their ids")
    c.shape(c.outputs[0], "f32", "batch", n * x.width)
    c.shape(c.outputs[1], "f32", "batch", n)


def _routed(c: Call, x: Shape, ids: Shape) -> None:
    """x has a row for each token, or for each of its experts."""
    c.shape(ids, "i32", "tokens", ids.width)
    if x.rows != "tokens":
        c.shape(x, x.kind, Shape("", "f32", "slots", 0, ids.width), x.width)
