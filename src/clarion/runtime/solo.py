"""One text at a time on a program of its own, for whoever looks at more of it than logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from clarion.errors import ContextError, ParameterError
from clarion.host import native
from clarion.host.hierarchy import hierarchy
from clarion.host.threads import default_threads
from clarion.plan import Plan
from clarion.residency import Store
from clarion.runtime.core import PAGE_SIZE, Floats, Ints


class Solo:
    """A plan on a machine and a cache of its own. Its wanted rows are as many as its tokens at most."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        *,
        threads: int | None = None,
        isa: str | None = None,
    ) -> None:
        """`store` has the weights.

        Raises:
            ParameterError: the plan computes logits for fewer rows than it takes tokens.
        """
        if plan.max_outputs < plan.max_tokens:
            raise ParameterError(
                f"the plan has {plan.max_outputs} outputs, expected {plan.max_tokens}, one for each token"
            )
        core = native(isa)
        self.plan = plan
        self._store = store
        self._pages = np.arange(-(-plan.context // PAGE_SIZE), dtype=np.int32)[None]  # [1, pages]
        self._cache = core.KvCache(
            list(plan.kv_layers), self._pages.size, PAGE_SIZE, plan.kv.keys, plan.kv.values
        )
        machine = core.Machine(threads or default_threads(), **hierarchy().cache_bytes)
        self._program = core.Program(machine, plan.native_spec(store))
        store.start()

    def run(self, tokens: Sequence[int] | Ints, first: int = 0) -> Iterator[slice]:
        """Computes a text from its beginning, batch by batch.

        After each batch, while `buffer` holds its results, yields which of the text's rows have logits there;
        those from `first` on are wanted.

        Raises:
            ContextError: more tokens than the plan's context.
        """
        ids = np.asarray(tokens, np.int32)
        if len(ids) > self.plan.context:
            raise ContextError(f"{len(ids)} tokens are more than the context of {self.plan.context}")
        for begin in range(0, len(ids), self.plan.max_tokens):
            end = min(begin + self.plan.max_tokens, len(ids))
            positions = np.arange(begin, end, dtype=np.int32)
            wanted = slice(min(max(first, begin), end), end)
            outputs = np.arange(wanted.start - begin, end - begin, dtype=np.int32)
            self._store.before_run()
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
        result = np.empty((len(tokens) - first, self.plan.n_vocab), np.float32)
        for rows in self.run(tokens, first):
            if rows.start < rows.stop:
                result[rows.start - first : rows.stop - first] = self.buffer("logits")[
                    : rows.stop - rows.start
                ]
        return result
