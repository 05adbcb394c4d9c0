"""The memory of a program's states: how much there is of each kind, and the native objects that have it.

Kinds share one budget of bytes. So that whoever has bytes left also has a page or a snapshot left, each kind
has address space for the whole budget; what nobody touches costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, assert_never

from clarion._native import files
from clarion.plan.program import Program
from clarion.plan.state import PagedGroup, RecurrentGroup
from clarion.runtime.states.kinds import Kind
from clarion.runtime.states.paged import Paged
from clarion.runtime.states.pages import PAGE_SIZE, columns
from clarion.runtime.states.recurrent import Recurrent
from clarion.runtime.states.states import States
from clarion.runtime.states.windowed import Windowed, most_pages, snapshot_pages

# Restore points for each text as long as the context: the border of what many texts begin with, the ends of a
# prompt and of its answer, and one between them.
POINTS = 4


class StateMemory:
    """Memory for the states of a program.

    Attributes:
        native: of each group of the program's states, what `Program.run` takes.
        kinds: of each group, who has what of it.
        budget_bytes: what sequences, retained prefixes and restore points may use together.
    """

    def __init__(
        self,
        module: Any,
        program: Program,
        *,
        n_slots: int,
        cache_tokens: int | None = None,
        cache_bytes: int | None = None,
    ) -> None:
        """`module`: the native module that runs the program; `cache_tokens`: see `budget`, in the place of
        which `cache_bytes` says how many bytes there are."""
        self._context = program.context
        self._n_slots = n_slots
        self.budget_bytes = budget(program, cache_tokens) if cache_bytes is None else cache_bytes
        self.native: list[object] = []
        self.kinds: list[Kind] = []
        for group in program.state_groups:
            match group:
                case PagedGroup():
                    self._add_pages(module, program, group)
                case RecurrentGroup():
                    self._add_slots(group)
                case _:
                    assert_never(group)

    def states(self, meaning: str | Callable[[], str] = "") -> States:
        """The states of sequences. There is one such object at a time. `meaning`: see `States`."""
        return States(
            self.kinds,
            n_slots=self._n_slots,
            context=self._context,
            budget_bytes=self.budget_bytes,
            meaning=meaning,
        )

    def _add_pages(self, module: Any, program: Program, group: PagedGroup) -> None:
        page_bytes = PAGE_SIZE * group.position_bytes(program.kv)
        n_pages = -(-self.budget_bytes // page_bytes)
        cache = module.KvCache(group.layers, n_pages, PAGE_SIZE, program.kv.keys, program.kv.values)
        assert cache.page_bytes == page_bytes, (cache.page_bytes, page_bytes)
        self.native.append(cache)
        shape = {"n_pages": n_pages, "n_slots": self._n_slots, "context": self._context}
        if _gives_back(group, self._context):
            self.kinds.append(Windowed(cache, window=group.window, batch=program.max_tokens, **shape))
        else:
            self.kinds.append(Paged(cache, **shape))

    def _add_slots(self, group: RecurrentGroup) -> None:
        n_snapshots = -(-self.budget_bytes // _padded_bytes(group))
        slots = files.SlotStates(group.layers, self._n_slots, n_snapshots)
        self.native.append(slots.native)
        self.kinds.append(Recurrent(slots, n_layers=len(group.layers), n_slots=self._n_slots))


def budget(program: Program, cache_tokens: int | None) -> int:
    """The bytes of states for so many tokens, of texts that are up to as long as the context, and for restore
    points where the program needs them; None: of one text, to which nobody comes back."""
    context, formats = program.context, program.kv
    held = cache_tokens or context
    texts = -(-held // context)
    sequences = snapshots = 0
    for group in program.state_groups:
        match group:
            case PagedGroup():
                page_bytes = PAGE_SIZE * group.position_bytes(formats)
                if _gives_back(group, context):
                    sequences += texts * most_pages(group.window, program.max_tokens, context) * page_bytes
                    snapshots += snapshot_pages(group.window, context) * page_bytes
                else:
                    sequences += columns(held) * page_bytes
            case RecurrentGroup():
                snapshots += _padded_bytes(group)
            case _:
                assert_never(group)
    return sequences + (0 if cache_tokens is None else texts * POINTS * snapshots)


def longest_context(program: Program, n_bytes: int) -> int:
    """The longest context, up to the program's, of which one text and its restore points fit into so many
    bytes of states; 0 if none does."""
    shortest, longest = 0, program.context
    while shortest < longest:  # `budget` grows with the context
        middle = (shortest + longest + 1) // 2
        if budget(replace(program, context=middle), middle) <= n_bytes:
            shortest = middle
        else:
            longest = middle - 1
    return shortest


def slot_bytes(program: Program) -> int:
    """Bytes that each slot has beside the budget: of recurrent states, and what is kept to take tokens
    back."""
    log_rows = 64  # native/machine/slot_states.h: two logs of 32 tokens, and two copies of the state
    return sum(
        4 * (3 * _padded(size) + log_rows * _padded(log))
        for group in program.state_groups
        if isinstance(group, RecurrentGroup)
        for size, log in group.layers
    )


def most_slots(program: Program, n_bytes: int) -> int:
    """Slots for as many texts as have outputs in one batch, fewer where these would take more than so many
    bytes beside the budget."""
    each = slot_bytes(program)
    return min(program.max_outputs, max(1, n_bytes // each)) if each else program.max_outputs


def _gives_back(group: PagedGroup, context: int) -> bool:
    """Whether a text can be longer than what is kept of it. A window as wide as the context is none."""
    return 0 < group.window < context


def _padded_bytes(group: RecurrentGroup) -> int:
    return 4 * sum(_padded(size) for size, _ in group.layers)


def _padded(n: int) -> int:
    """Floats in whole cache lines, as the native memory has them."""
    return -(-n // 16) * 16
