"""Vectors and scores of whole texts: as many texts as fit share a batch, whatever their lengths.

A text enters one batch as a whole, so models that read in both directions see all of it, and nothing is kept
from one batch to the next. Texts stand one behind the other; none is padded.
"""

from __future__ import annotations

import os
import threading
from array import array
from collections.abc import Iterator, Sequence
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

    def __init__(self, executor: Executor, batch: int) -> None:
        """batch: tokens computed at once, as far as texts are not longer."""
        self._executor = executor
        self._batch = batch
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

        found = np.empty((len(texts), self._executor.rows(self._output.value).shape[1]), np.float32)
        for part in self._parts(texts):
            with self._lock:
                self._check()
                found[part.start : part.stop] = self._run(texts[part.start : part.stop])
        return found

    def close(self) -> None:
        """Ends the batch that runs; whoever waits for it gets a ClosedError."""
        if os.getpid() == self._process:
            self._closing = True
            self._executor.cancel()
            with self._lock:
                self._executor.release()

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
        for slot, text in enumerate(texts):
            outputs.append(len(tokens) if first else len(tokens) + len(text) - 1)
            tokens.extend(text)
            positions.extend(range(len(text)))
            slots.extend([slot] * len(text))
        tables = self._executor.fresh([len(text) for text in texts])
        if self._executor.run(tokens, positions, slots, tables, outputs) is None:
            self._check()
            raise CancelledError("the computation was cancelled")
        return self._executor.array(self._output.value)[: len(texts)]
