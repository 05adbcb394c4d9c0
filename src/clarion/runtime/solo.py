"""One text at a time on a program of its own, for whoever looks at more of it than logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from clarion.errors import ContextError, ParameterError
from clarion.host import native
from clarion.host.hierarchy import hierarchy
from clarion.host.threads import default_threads
from clarion.plan import Program
from clarion.plan.state import paged_layers
from clarion.residency import Residency
from clarion.runtime.core import PAGE_SIZE, Floats, Ints


class Solo:
    """A program on a machine and a cache of its own. Its wanted rows are as many as its tokens at most."""

    def __init__(
        self,
        program: Program,
        residency: Residency,
        *,
        threads: int | None = None,
        isa: str | None = None,
    ) -> None:
        """`residency` has the weights' bytes.

        Raises:
            ParameterError: the program computes logits for fewer rows than it takes tokens.
        """
        if program.max_outputs < program.max_tokens:
            raise ParameterError(
                f"the program has {program.max_outputs} outputs, "
                f"expected {program.max_tokens}, one for each token"
            )
        core = native(isa)
        self.program = program
        self._core = core
        self._machine = core.Machine(threads or default_threads(), **hierarchy().cache_bytes)
        self._pages = np.arange(-(-program.context // PAGE_SIZE), dtype=np.int32)[None]  # [1, pages]
        self._cache = core.KvCache(
            paged_layers(program.states), self._pages.size, PAGE_SIZE, program.kv.keys, program.kv.values
        )
        self.use(residency)

    def use(self, residency: Residency) -> None:
        """From now on the weights' bytes are those of `residency`."""
        self._program = self._core.Program(self._machine, self.program.native_spec(residency))

    def run(self, tokens: Sequence[int] | Ints, first: int = 0) -> Iterator[slice]:
        """Computes a text from its beginning, batch by batch.

        After each batch, while `buffer` holds its results, yields which of the text's rows have logits there;
        those from `first` on are wanted.

        Raises:
            ContextError: more tokens than the program's context.
        """
        ids = np.asarray(tokens, np.int32)
        if len(ids) > self.program.context:
            raise ContextError(f"{len(ids)} tokens are more than the context of {self.program.context}")
        for begin in range(0, len(ids), self.program.max_tokens):
            end = min(begin + self.program.max_tokens, len(ids))
            positions = np.arange(begin, end, dtype=np.int32)
            wanted = slice(min(max(first, begin), end), end)
            outputs = np.arange(wanted.start - begin, end - begin, dtype=np.int32)
            self._program.run(
                self._cache, ids[begin:end], positions, np.zeros_like(positions), self._pages, outputs
            )
            yield wanted

    def buffer(self, name: str) -> Floats:
        """A kept buffer's rows, a view that the next batch overwrites; of outputs only as many are valid as
        were wanted."""
        rows: Floats = self._program.buffer(name)
        return rows

    def logits(self, tokens: Sequence[int] | Ints, first: int = 0) -> Floats:
        """The logits after every token from `first` on: [T - first, V]."""
        result = np.empty((len(tokens) - first, self.program.n_vocab), np.float32)
        for rows in self.run(tokens, first):
            if rows.start < rows.stop:
                result[rows.start - first : rows.stop - first] = self.buffer(self.program.outputs[0].value)[
                    : rows.stop - rows.start
                ]
        return result
