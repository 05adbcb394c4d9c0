"""Threads that compute in the background, and interrupts of those who wait for them."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import clarion
from clarion.exiting import Background
from clarion.residency import moving


class Interrupt(BaseException):
    pass


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """A signal's handler raises in the main thread, as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with pytest.raises(Interrupt):
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_an_interrupted_join_does_not_end_a_thread() -> None:
    go_on = threading.Event()
    done: list[int] = []

    def work(n: int) -> None:
        go_on.wait(60)
        done.append(n)

    thread = Background(work, 5, name="work")
    with pytest.raises(RuntimeError, match="before it is started"):
        thread.join()
    thread.start()
    for _ in range(3):
        with interrupted_after(0.05):
            thread.join()
        assert thread.is_alive()
    thread.join(0.01)
    assert thread.is_alive()
    assert done == []
    threading.Timer(0.1, go_on.set).start()
    thread.join()
    assert done == [5]
    assert not thread.is_alive()
    thread.join()


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_thread_whose_start_is_interrupted_never_begins_or_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, has_begun: bool
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    begins = 0
    start = threading.Thread.start

    def work() -> None:
        nonlocal begins
        begins += 1
        begun.set()
        go_on.wait(60)

    def interrupted(thread: threading.Thread) -> None:
        if has_begun:
            start(thread)
            begun.wait()
        raise Interrupt

    thread = Background(work, name="work")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(Interrupt):
            thread.start()
    thread.join(0.01)
    assert thread.is_alive() is has_begun
    go_on.set()
    thread.join()
    if not has_begun:
        start(thread)  # the system's thread comes late
    threading.Thread.join(thread)
    assert begins == has_begun


def test_a_model_whose_loading_is_interrupted_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(threading.enumerate())
    start = threading.Thread.start
    names = ["clarion-weights", "clarion-speaker", "clarion-engine"]
    for name in names:

        def interrupted(thread: threading.Thread, name: str = name) -> None:
            start(thread)
            if thread.name == name:
                raise Interrupt

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", interrupted)
            with pytest.raises(Interrupt):
                clarion.load(context=64, threads=1, weights="moving")
        for thread in set(threading.enumerate()) - before:
            threading.Thread.join(thread, 10)
            assert not thread.is_alive(), thread.name


def test_a_close_that_was_interrupted_is_done_by_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(moving, "_yield_to_others", lambda: go_on.wait(60))  # weights that move for long
    model = clarion.load(context=64, threads=1, weights="moving")
    policy = model._store._policy
    assert isinstance(policy, moving.Moving)
    assert policy._thread is not None
    with interrupted_after(0.1):
        model.close()
    assert policy._thread.is_alive()
    threading.Timer(0.1, go_on.set).start()
    model.close()
    assert not policy._thread.is_alive()


def test_a_thread_that_fails_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(threading, "excepthook", seen.append)

    def fail() -> None:
        raise ValueError

    thread = Background(fail, name="fail")
    thread.start()
    thread.join()
    assert len(seen) == 1


SCRIPT = """
import atexit, os, signal, sys, threading, time


def ended():
    print([thread.name for thread in threading.enumerate() if thread.name.startswith("clarion")])


atexit.register(ended)  # called last
import clarion
from clarion.residency import moving

moving._yield_to_others = lambda: time.sleep(0.3)  # a model so large that it moves for long
model = clarion.load(weights="moving")
if sys.argv[1] == "interrupt":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    try:
        model.settle()
    except KeyboardInterrupt:
        print("interrupted")
else:
    print(len(model.generate("Once", max_tokens=1).tokens))
"""


@pytest.mark.parametrize(("how", "said"), [("interrupt", "interrupted"), ("end", "1")])
def test_threads_have_ended_when_the_interpreter_exits_without_close(how: str, said: str) -> None:
    """A thread that still copies weights then aborts the process."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [said, "[]"]
