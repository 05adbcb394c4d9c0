"""Sequences on pages, against plain lists, under any order of operations."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from clarion.runtime.core import PAGE_SIZE
from clarion.runtime.pages import PagePool
from clarion.runtime.sequence import Sequence
from tests.runtime.fakes import FakeCache

N_PAGES = 12


class Pages(RuleBasedStateMachine):
    """Every sequence reads back from its pages exactly what was written to it, whatever the others do."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = PagePool(N_PAGES)
        self.cache = FakeCache(N_PAGES)
        self.twins: list[tuple[Sequence, list[int]]] = []
        self.next_token = 0

    @rule()
    def create(self) -> None:
        self.twins.append((Sequence(self.pool, self.cache), []))

    @precondition(lambda self: self.twins)
    @rule(data=st.data(), n=st.integers(0, 150), written=st.booleans())
    def extend(self, data: st.DataObject, n: int, written: bool) -> None:
        sequence, tokens = data.draw(st.sampled_from(self.twins))
        free, needed = self.pool.n_free, sequence.missing(n)
        if not sequence.reserve(n):
            assert needed > free == self.pool.n_free
            return
        assert self.pool.n_free == free - needed
        assert sequence.missing(n) == 0
        if not written:  # a run that was cancelled
            return
        new = list(range(self.next_token, self.next_token + n))
        self.next_token += n
        for i, token in enumerate(new, len(tokens)):
            self.cache.slots[sequence.pages[i // PAGE_SIZE], i % PAGE_SIZE] = token
        sequence.append(new)
        tokens.extend(new)

    @precondition(lambda self: self.twins)
    @rule(data=st.data(), share=st.floats(0, 1))
    def truncate(self, data: st.DataObject, share: float) -> None:
        sequence, tokens = data.draw(st.sampled_from(self.twins))
        del tokens[int(len(tokens) * share) :]
        sequence.truncate(len(tokens))

    @precondition(lambda self: self.twins)
    @rule(data=st.data(), share=st.floats(0, 1))
    def fork(self, data: st.DataObject, share: float) -> None:
        sequence, tokens = data.draw(st.sampled_from(self.twins))
        length = int(len(tokens) * share)
        free = self.pool.n_free
        self.twins.append((sequence.fork(length), tokens[:length]))
        assert self.pool.n_free == free

    @precondition(lambda self: self.twins)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        i = data.draw(st.integers(0, len(self.twins) - 1))
        self.twins.pop(i)[0].truncate(0)

    @invariant()
    def each_reads_what_it_wrote(self) -> None:
        for sequence, tokens in self.twins:
            assert sequence.tokens == tokens
            assert len(sequence.pages) * PAGE_SIZE >= len(tokens)
            for i, token in enumerate(tokens):
                assert self.cache.slots[sequence.pages[i // PAGE_SIZE], i % PAGE_SIZE] == token

    @invariant()
    def no_page_is_lost(self) -> None:
        used = {page for sequence, _ in self.twins for page in sequence.pages}
        assert self.pool.n_free == N_PAGES - len(used)


Pages.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestPages = Pages.TestCase


def test_common_prefix() -> None:
    sequence = Sequence(PagePool(1), FakeCache(1))
    sequence.append([1, 2, 3])
    assert sequence.common_prefix([1, 2, 3, 4]) == 3
    assert sequence.common_prefix([1, 2]) == 2
    assert sequence.common_prefix([1, 9, 3]) == 1
    assert sequence.common_prefix([]) == 0
