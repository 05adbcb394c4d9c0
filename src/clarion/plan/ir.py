"""What the passes rewrite: a list of nodes over values, each value written once.

A plan and a program are the same list at different ages. The plan says what is computed; every pass returns
a new list that computes the same; the last ones give values a place in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from clarion.plan.weight import Weight

Kind = Literal["f32", "fast", "high", "bf16", "i32"]
Rows = Literal["tokens", "outputs", "batch"]
Activations = Literal["fast", "high", "exact"]
CacheFormat = Literal["f32", "f16", "bf16", "q8_0", "q4_0"]

CALLER = "caller"  # stands for an operation where whoever runs the list reads a value


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
class Value:
    """Rows of `width` elements: for each token, each wanted output, or the whole batch, one row, or
    `slots_per_token` where experts have rows of their own. No two values of a list have the same name."""

    name: str
    width: int
    rows: Rows = "tokens"
    kind: Kind = "f32"
    slots_per_token: int = 1

    def __hash__(self) -> int:
        return hash(self.name)  # a tenth of what all fields take; passes look values up all the time


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


def users(nodes: Iterable[Node], kept: Iterable[Value] = ()) -> dict[Value, list[Node]]:
    """For each value that is read, the nodes that read it, in order.

    kept: values that the caller reads after the last node. Each has one more reader here, which is no node of
        the list.
    """
    table: dict[Value, list[Node]] = {}
    for node in (*nodes, *(Node(CALLER, (value,)) for value in kept)):
        for value in dict.fromkeys(node.inputs):
            table.setdefault(value, []).append(node)
    return table


def producers(nodes: Iterable[Node]) -> dict[Value, Node]:
    """For each value, the node that writes it."""
    return {value: node for node in nodes for value in node.outputs}
