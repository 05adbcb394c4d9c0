"""One sequence in the KV cache: its tokens, and the pages that hold their keys and values."""

from __future__ import annotations

from collections.abc import Sequence as Tokens

from clarion.runtime.core import PAGE_SIZE, KvCache
from clarion.runtime.pages import PagePool


class Sequence:
    """Token i of `tokens` is stored at slot i % 64 of page `pages[i // 64]`.

    Forks share pages. A sequence writes only behind its end, so only a shared last page is ever copied, and
    only when somebody is about to write to it.
    """

    __slots__ = ("_cache", "_pool", "pages", "tokens")

    def __init__(self, pool: PagePool, cache: KvCache) -> None:
        self._pool = pool
        self._cache = cache
        self.pages: list[int] = []
        self.tokens: list[int] = []

    def missing(self, n: int) -> int:
        """How many free pages `reserve(n)` needs."""
        length = len(self.tokens)
        new = max(0, -(-(length + n) // PAGE_SIZE) - len(self.pages))
        return new + (n > 0 and self._writes_to_shared_page())

    def reserve(self, n: int) -> bool:
        """Makes room for n more tokens where nobody else reads; False, and no change, without free pages."""
        if self.missing(n) > self._pool.n_free:
            return False
        if n > 0 and self._writes_to_shared_page():
            last = len(self.tokens) // PAGE_SIZE
            shared, self.pages[last] = self.pages[last], self._pool.take()
            self._cache.copy_page(shared, self.pages[last])
            self._pool.release(shared)
        while len(self.pages) * PAGE_SIZE < len(self.tokens) + n:
            self.pages.append(self._pool.take())
        return True

    def append(self, tokens: Tokens[int]) -> None:
        """The keys and values of these tokens are in the reserved room now."""
        self.tokens.extend(tokens)

    def truncate(self, length: int) -> None:
        """Forgets every token from position `length` on, and room reserved behind it."""
        del self.tokens[length:]
        while len(self.pages) > -(-length // PAGE_SIZE):
            self._pool.release(self.pages.pop())

    def fork(self, length: int) -> Sequence:
        """A sequence of its own with the same first `length` tokens; nothing is copied yet."""
        twin = Sequence(self._pool, self._cache)
        twin.tokens = self.tokens[:length]
        twin.pages = self.pages[: -(-length // PAGE_SIZE)]
        for page in twin.pages:
            self._pool.share(page)
        return twin

    def common_prefix(self, tokens: Tokens[int]) -> int:
        """How many tokens at the beginning agree."""
        n = min(len(self.tokens), len(tokens))
        for i in range(n):
            if self.tokens[i] != tokens[i]:
                return i
        return n

    def _writes_to_shared_page(self) -> bool:
        partial = len(self.tokens) % PAGE_SIZE != 0
        return partial and self._pool.is_shared(self.pages[len(self.tokens) // PAGE_SIZE])
