"""Items from threads reach their loop, in order, with fewer calls than items."""

from __future__ import annotations

import asyncio
import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from clarion.runtime.mail import Channel, _mail


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=4), st.integers(1, 3))
def test_items_of_each_thread_arrive_in_their_order(counts: list[int], n_channels: int) -> None:
    async def run() -> list[list[tuple[int, int]]]:
        channels: list[Channel[tuple[int, int]]] = [Channel() for _ in range(n_channels)]

        def post(thread: int) -> None:
            for i in range(counts[thread]):
                for channel in channels:
                    channel.put((thread, i))

        threads = [threading.Thread(target=post, args=(n,)) for n in range(len(counts))]
        for thread in threads:
            thread.start()
        found = [[await channel.get() for _ in range(sum(counts))] for channel in channels]
        for thread in threads:
            thread.join()
        assert all(channel.peek() is None for channel in channels)
        return found

    for items in asyncio.run(run()):
        for thread, count in enumerate(counts):
            assert [i for other, i in items if other == thread] == list(range(count))


def test_a_loop_is_called_once_for_all_that_waits() -> None:
    calls = 0

    async def run() -> None:
        nonlocal calls
        loop, mail = asyncio.get_running_loop(), _mail()
        first, second = Channel[int](), Channel[int]()
        deliver = mail._deliver

        def counted() -> None:
            nonlocal calls
            calls += 1
            deliver()

        mail._deliver = counted  # type: ignore[method-assign]
        assert _mail() is mail
        for i in range(10):  # the loop runs none of it before this task waits
            first.put(i)
            second.put(-i)
        assert [await first.get() for _ in range(10)] == list(range(10))
        assert [await second.get() for _ in range(10)] == [-i for i in range(10)]
        first.put(10)
        assert await first.get() == 10
        assert loop is mail.loop

    asyncio.run(run())
    assert calls == 2


def test_a_closed_loop_is_told_nothing() -> None:
    async def run() -> Channel[int]:
        return Channel()

    channel = asyncio.run(run())
    channel.put(1)
    channel.put(2)
    assert channel.peek() is None
    assert not channel._mail._waiting
