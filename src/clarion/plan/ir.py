"""What the passes rewrite: a list of nodes over values, each value written once.

A graph and a plan are the same list at different ages. The graph says what is computed; every pass returns a
new list that computes the same; the last ones give values a place in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

Kind = Literal["f32", "fast", "high", "bf16", "i32"]
Rows = Literal["tokens", "outputs", "batch"]
Activations = Literal["fast", "high", "exact"]
CacheFormat = Literal["f32", "f16", "bf16", "q8_0", "q4_0"]

# Products over these read plain float32 activations; products over every other format read encoded ones.
FLOAT_FORMATS = frozenset({"F64", "F32", "F16", "BF16"})


class Format(Protocol):
    """A weight format as the file names it."""

    @property
    def name(self) -> str: ...
    @property
    def type_id(self) -> int: ...


class Bytes(Protocol):
    """Raw bytes that a tensor holds, wherever they are."""

    @property
    def nbytes(self) -> int: ...
    def tobytes(self) -> bytes: ...


class Tensor(Protocol):
    """A tensor of the file: what models and plans need to know of one."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def format(self) -> Format: ...
    @property
    def view(self) -> Bytes: ...


@dataclass(frozen=True, slots=True)
class Weight:
    """A tensor as an operation reads it: `experts` matrices of `rows` × `cols`; a vector is one row."""

    name: str
    format: str
    type_id: int
    rows: int
    cols: int
    experts: int
    n_bytes: int

    @property
    def is_float(self) -> bool:
        return self.format in FLOAT_FORMATS

    @property
    def shape(self) -> tuple[int, ...]:
        if self.experts > 1:
            return (self.experts, self.rows, self.cols)
        return (self.rows, self.cols) if self.rows > 1 else (self.cols,)


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """Rows of `width` elements: for each token, each wanted output, or the whole batch, one row, or
    `slots_per_token` where experts have rows of their own."""

    name: str
    width: int
    rows: Rows = "tokens"
    kind: Kind = "f32"
    slots_per_token: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operation. Its name and the order of its parts are those of the operation table."""

    op: str
    inputs: tuple[Value, ...] = ()
    outputs: tuple[Value, ...] = ()
    weights: tuple[Weight | None, ...] = ()
    ints: Mapping[str, int] = field(default_factory=dict)
    floats: Mapping[str, float] = field(default_factory=dict)
    arrays: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    fallback: str = ""


def users(nodes: Iterable[Node]) -> dict[Value, list[Node]]:
    """For each value that is read, the nodes that read it, in order."""
    table: dict[Value, list[Node]] = {}
    for node in nodes:
        for value in dict.fromkeys(node.inputs):
            table.setdefault(value, []).append(node)
    return table


def producers(nodes: Iterable[Node]) -> dict[Value, Node]:
    """For each value, the node that writes it."""
    return {value: node for node in nodes for value in node.outputs}
