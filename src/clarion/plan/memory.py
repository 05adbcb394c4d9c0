"""Pass: where each value lies in one arena.

Values that are never needed at the same time share memory. Largest first, each takes the lowest place that is
free over its lifetime: within a few percent of the optimum for such chains, and no worse for being simple.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from clarion.errors import PlanError
from clarion.plan.ir import Kind, Node, Value, users
from clarion.plan.operations import OPERATIONS
from clarion.plan.program import Buffer

ALIGNMENT = 64  # a cache line, and the widest vector


@dataclass(slots=True)
class _Block:
    """One buffer to be: the values that follow each other in it, from operation `first` to `last`."""

    values: list[Value]
    first: int
    last: int
    n_bytes: int
    offset: int = 0


def memory(
    nodes: Sequence[Node],
    kept: Collection[Value],
    max_rows: Callable[[Value], int],
    row_bytes: Callable[[Kind, int], int],
) -> tuple[tuple[Buffer, ...], dict[Value, int], int]:
    """Lays out the arena.

    Args:
        kept: the values that are read after the run.
        max_rows: rows of a value in the largest batch.
        row_bytes: bytes of a row, by kind and width.

    Returns:
        the buffers, the index of each value's buffer, and the arena's size in bytes.

    Raises:
        PlanError: a value is read after an operation overwrote it in place.
    """
    blocks = _blocks(nodes, kept, max_rows, row_bytes)
    placed: list[_Block] = []
    for block in sorted(blocks, key=lambda block: (-block.n_bytes, block.first)):
        others = [other for other in placed if other.first <= block.last and block.first <= other.last]
        for other in sorted(others, key=lambda other: other.offset):
            if block.offset + block.n_bytes <= other.offset:
                break
            block.offset = max(block.offset, other.offset + other.n_bytes)
        placed.append(block)

    buffers = tuple(
        Buffer(
            value.name,
            value.kind,
            value.rows,
            value.width,
            block.offset,
            block.n_bytes,
            value.slots_per_token,
        )
        for block in blocks
        for value in (block.values[-1:] if block.values[-1] in kept else block.values[:1])
    )
    index = {value: i for i, block in enumerate(blocks) for value in block.values}
    return buffers, index, max((block.offset + block.n_bytes for block in blocks), default=0)


def _blocks(
    nodes: Sequence[Node],
    kept: Collection[Value],
    max_rows: Callable[[Value], int],
    row_bytes: Callable[[Kind, int], int],
) -> list[_Block]:
    position = {node: i for i, node in enumerate(nodes)}
    last_use = {value: position[readers[-1]] for value, readers in users(nodes).items()}
    last_use |= dict.fromkeys(kept, len(nodes))
    blocks: dict[Value, _Block] = {}
    for i, node in enumerate(nodes):
        entry = OPERATIONS[node.op]
        for o, value in enumerate(node.outputs):
            last = last_use.get(value, i)
            source: Value | None = None
            if (alias := entry.alias(o)) is not None:
                at, must = alias
                source = node.inputs[at] if must else _dying(node, at, i, last_use)
                if source is not None and (reader := last_use[source]) > i:
                    raise PlanError(
                        f"{node.op} overwrites {source.name}, which operation {reader} reads later"
                    )
            if source is not None:
                blocks[value] = blocks[source]
                blocks[value].values.append(value)
                blocks[value].last = last
                continue
            n_bytes = max_rows(value) * row_bytes(value.kind, value.width)
            blocks[value] = _Block([value], i, last, -(-n_bytes // ALIGNMENT) * ALIGNMENT)
    return list({id(block): block for block in blocks.values()}.values())


def _dying(node: Node, i: int, position: int, last_use: dict[Value, int]) -> Value | None:
    """Input i, if there is one and nobody reads it after this node, nor this node twice."""
    if i >= len(node.inputs):
        return None
    value = node.inputs[i]
    return value if last_use[value] == position and node.inputs.count(value) == 1 else None
