"""Vectors and scores of whole texts: as many texts as fit share a batch, whatever their lengths.

A text enters one batch as a whole, so models that read in both directions see all of it, and nothing is kept
from one batch to the next. Texts stand one behind the other; none is padded.
"""

from __future__ import annotations

import os
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from clarion.errors import CancelledError, ClosedError
from clarion.plan.output import Output, Pooled, Ranks
from clarion.runtime.executor import Executor

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]


class Embedder:
    """Computes the rows of texts on one executor, for one thread at a time; others wait."""

    def __init__(self, executor: Executor, batch: int, check: Callable[[], None]) -> None:
        """batch: tokens computed at once, as far as texts are not longer; `check` raises where results are
        worthless."""
        self._executor = executor
        self._states = executor.memory.states()
        self._batch = min(batch, executor.program.max_tokens)
        self._check_file = check
        (self._output,) = executor.program.outputs
        self._lock = threading.Lock()
        self._closing = False
        self._process = os.getpid()

    @property
    def output(self) -> Output:
        """What a row is."""
        return self._output

    @property
    def context(self) -> int:
        """Tokens of a text at most."""
        return self._executor.program.context

    def rows(self, texts: Sequence[Sequence[int]]) -> Floats:
        """A row for each text: [len(texts), width]. No text is empty, or longer than the context.

        Raises:
            ClosedError: after `close`, or in a forked process.
        """
        import numpy as np

        width = self._executor.array(self._output.value).shape[1]
        found = np.empty((len(texts), width), np.float32)
        for part in self._parts(texts):
            with self._lock:
                self._check()
                found[part.start : part.stop] = self._run(texts[part.start : part.stop])
                self._check_file()
        return found

    def close(self) -> None:
        """Ends the batch that runs; whoever waits for it gets a ClosedError."""
        if os.getpid() == self._process:
            self._closing = True
            self._executor.cancel()
            with self._lock:  # until the batch has ended
                return

    def _check(self) -> None:
        if os.getpid() != self._process:
            raise ClosedError("the model was loaded by another process; load it again after a fork")
        if self._closing:
            raise ClosedError("the model is closed")

    def _parts(self, texts: Sequence[Sequence[int]]) -> Iterator[range]:
        """Texts that follow each other and fit into one batch."""
        most = min(self._executor.n_slots, self._executor.program.max_outputs)
        begin = n_tokens = 0
        for i, text in enumerate(texts):
            if i > begin and (n_tokens + len(text) > self._batch or i - begin == most):
                yield range(begin, i)
                begin, n_tokens = i, 0
            n_tokens += len(text)
        if begin < len(texts):
            yield range(begin, len(texts))

    def _run(self, texts: Sequence[Sequence[int]]) -> Floats:
        """The rows of the texts of one batch, a view that the next overwrites."""
        tokens, positions, slots, outputs = (array("i") for _ in range(4))
        first = isinstance(self._output, Pooled | Ranks) and self._output.how == "cls"
        states = []
        try:
            for text in texts:
                state = self._states.open(text, reuse=False)
                assert state is not None, "there is a slot for each text of a batch"
                states.append(state)
                has_room = state.reserve(len(text))
                assert has_room, "the states have room for a batch"
                outputs.append(len(tokens) if first else len(tokens) + len(text) - 1)
                tokens.extend(text)
                positions.extend(range(len(text)))
                slots.extend([state.slot] * len(text))
            tables = self._states.tables
            if self._executor.run(tokens, positions, slots, tables, outputs) is None:
                self._check()
                raise CancelledError("the computation was cancelled")
        finally:
            for state in states:
                state.release()
        return self._executor.array(self._output.value)[: len(texts)]
