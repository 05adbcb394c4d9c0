"""A program bound to a machine, to a store of its weights and to states: what computes a batch.

Models, evaluation, importance matrices and benchmarks all compute with it. Whoever makes an executor runs it:
one thread at a time, except for `cancel`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from clarion._native import sampling
from clarion.errors import ContextError, ParameterError
from clarion.host import choose, native
from clarion.host.threads import default_threads
from clarion.plan.output import Logits
from clarion.plan.program import Program
from clarion.residency import Store
from clarion.runtime.interfaces import Draws
from clarion.runtime.machine import shared_machine
from clarion.runtime.states.memory import StateMemory
from clarion.runtime.states.states import States

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]


class Executor:
    """Computes batches of one program.

    Attributes:
        program: what it computes.
        isa, threads: the native module, and the threads of its machine that compute.
        n_slots: sequences that have a state at once; each has a row in the tables of states.
        memory: of the states.
    """

    def __init__(
        self,
        program: Program,
        store: Store,
        *,
        n_slots: int = 1,
        cache_tokens: int | None = None,
        cache_bytes: int | None = None,
        threads: int | None = None,
        isa: str | None = None,
    ) -> None:
        """`store` has the weights; the states have memory for `cache_tokens`, or `cache_bytes`, or what one
        text needs that is computed from its beginning."""
        self.program = program
        self.isa = choose(isa).name
        self.threads = threads or default_threads()
        self.n_slots = n_slots
        module = native(self.isa)
        self._machine = shared_machine(self.isa, self.threads)
        self.memory = StateMemory(
            module, program, n_slots=n_slots, cache_tokens=cache_tokens, cache_bytes=cache_bytes
        )
        self._store = store
        self._bound = module.Program(self._machine, program.native_spec(store), self.threads)

    def run(
        self,
        tokens: Any,
        positions: Any,
        slots: Any,
        tables: list[memoryview],
        outputs: Any,
        draws: Draws = ((), ()),
    ) -> list[int | ValueError] | None:
        """Computes one batch, and draws tokens from its rows of logits. Arguments are buffers of 32-bit
        integers.

        Args:
            tokens, positions, slots: [T]; a token's slot is the row of its sequence in the tables.
            tables: of each group of states, [n_slots, columns]: the page of each sequence's positions 64·i to
                64·i + 63. `States.tables` has them.
            outputs: [O], the tokens whose rows are wanted.
            draws: states of samplers, and of each the row that it draws its next token from.

        Returns what was drawn: a token, or the error of a row from which none can be drawn. None when
        `cancel` ended the batch early: outputs and new positions are then undefined.
        """
        self._store.before_run()
        states, rows = draws
        drawing = self._sampling.drawing(cast(Any, states), self._logits, rows) if states else None
        epilogue = None if drawing is None else drawing.epilogue
        if not self._bound.run(self.memory.native, tokens, positions, slots, tables, outputs, epilogue):
            return None
        drawn = [] if drawing is None else drawing.tokens()
        return [token if isinstance(token, int) else ValueError(token) for token in drawn]

    def cancel(self) -> None:
        """Ends the run in progress between two operations; from any thread."""
        self._bound.cancel()

    def rows(self, name: str = Logits().value) -> memoryview:
        """A kept buffer, float32 [most rows, width]: a view that the next batch overwrites. Of outputs only
        as many rows are valid as were wanted."""
        view: memoryview = self._bound.rows(name)
        return view

    def array(self, name: str = Logits().value) -> Floats:
        """`rows` as an array of numpy."""
        values: Floats = self._bound.buffer(name)
        return values

    def log_probabilities(self, row: int, token: int, n: int) -> list[tuple[int, float]]:
        """ln softmax of a row of the logits: of `token`, then of the n most probable tokens."""
        return self._sampling.log_probabilities(self._logits, row, token, n)

    # Made once, when a token is first drawn: who only measures draws none.

    @cached_property
    def _sampling(self) -> sampling.Samplers:
        return sampling.Samplers(self.program.n_vocab, self.threads)

    @cached_property
    def _logits(self) -> memoryview:
        return self.rows()

    @cached_property
    def _states(self) -> States:
        """Of texts that this executor computes itself."""
        return self.memory.states()

    # ---- one text from its beginning ---------------------------------------------------------------------

    def each_batch(self, tokens: Sequence[int], first: int = 0) -> Iterator[slice]:
        """Computes a text from its beginning, batch by batch.

        After each batch, while `rows` holds its results, yields which of the text's rows have outputs there;
        those from `first` on are wanted.

        Raises:
            ContextError: more tokens than the program's context.
            ParameterError: the program has fewer rows of outputs than of tokens.
        """
        program = self.program
        if program.max_outputs < program.max_tokens:
            raise ParameterError(
                f"the program has {program.max_outputs} outputs, expected {program.max_tokens}, "
                f"one for each token"
            )
        if len(tokens) > program.context:
            raise ContextError(f"{len(tokens)} tokens are more than the context of {program.context}")
        ids = array("i", tokens)
        state = self._states.open(tokens, reuse=False)
        assert state is not None, "another text is being computed"
        try:
            for begin in range(0, len(ids), program.max_tokens):
                end = min(begin + program.max_tokens, len(ids))
                wanted = slice(min(max(first, begin), end), end)
                has_room = state.reserve(end - begin)
                assert has_room, "the states of one text have room for its context"
                self.run(
                    ids[begin:end],
                    array("i", range(begin, end)),
                    array("i", [state.slot]) * (end - begin),
                    self._states.tables,
                    array("i", range(wanted.start - begin, end - begin)),
                )
                state.append(tokens[begin:end])
                yield wanted
        finally:
            state.release()

    def logits(self, tokens: Sequence[int], first: int = 0) -> Floats:
        """The logits after every token of a text from `first` on: [T - first, V]."""
        import numpy as np

        result = np.empty((len(tokens) - first, self.program.n_vocab), np.float32)
        for rows in self.each_batch(tokens, first):
            if rows.start < rows.stop:
                result[rows.start - first : rows.stop - first] = self.array()[: rows.stop - rows.start]
        return result
