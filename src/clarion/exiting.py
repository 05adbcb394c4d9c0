"""The interpreter's exit, as its daemon threads see it.

They go on until the process ends, while what they use is closed around them. An error would be the last thing
that they print, and nobody's fault: they wait for the end instead.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from clarion.errors import ClosedError


def wait_for_the_end() -> None:
    """Never returns in a daemon thread. Other threads may hear of what is closed."""
    if threading.current_thread().daemon:
        threading.Event().wait()


class Loading:
    """Entered by whoever starts threads of our own, and left when they are known to whoever ends them.

    Threads that nobody ends abort the process when they come back to an interpreter that is gone.
    """

    def __init__(self) -> None:
        self._ended = False
        self.forget()

    def forget(self) -> None:
        """Nobody is inside; in a process after a fork, where they stayed behind."""
        self._changed = threading.Condition()
        self._inside: list[threading.Thread] = []

    def __enter__(self) -> None:
        with self._changed:
            if not self._ended:
                self._inside.append(threading.current_thread())
                return
        wait_for_the_end()
        raise ClosedError("the interpreter exits")

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        me = threading.current_thread()
        with self._changed:
            self._inside.remove(me)
            self._changed.notify_all()
        # An interpreter that exits refuses new threads, some of them before `end` is called.
        if isinstance(error, RuntimeError) and me.daemon and main_thread_has_ended():
            wait_for_the_end()

    def end(self) -> None:
        """Lets nobody in any more, and waits for the other threads that are inside."""
        me = threading.current_thread()
        with self._changed:
            self._ended = True
            self._changed.wait_for(lambda: all(thread is me for thread in self._inside))


def after_fork(forget: Callable[[], None]) -> None:
    """Lets a forked process forget what has stayed behind: threads, and locks that nobody will ever open.
    Systems that cannot fork have nothing to forget."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=forget)


loading = Loading()
after_fork(loading.forget)


def main_thread_has_ended() -> bool:
    """Whether the interpreter waits for its last threads, or will in a moment."""
    threading.main_thread().join(0.1)
    return not threading.main_thread().is_alive()


_GLANCE = 0.1  # seconds after which who waits for a thread looks whether it has ended


class Background(threading.Thread):
    """A daemon thread that is waited for until it has ended, whatever interrupts those who wait.

    An exception of a signal, as Ctrl-C, that comes in the middle of `Thread.join` makes Python 3.11 take
    the thread for ended: whoever joins it next does not wait, and the interpreter exits while it
    computes, which aborts the process. In the middle of `Event.wait` it may leave the event's lock
    closed, and the thread waits for ever to say that it has ended: so its end is a word in memory, and a
    lock is the bell. One that comes in the middle of `start` leaves open whether there will be a thread:
    if it has not begun to work by then, it never does.
    """

    def __init__(self, target: Callable[..., None], *arguments: object, name: str) -> None:
        super().__init__(target=target, args=arguments, name=name, daemon=True)
        self._process = os.getpid()
        self._begin = threading.Lock()  # taken once: by the work, or by the start that was interrupted before
        self._never_begins = False
        self._has_ended = False
        self._bell = threading.Lock()  # open from the end on; who waits looks at times whether it was missed
        self._bell.acquire()

    def start(self) -> None:
        try:
            super().start()
        except BaseException:
            self._never_begins = self._begin.acquire(blocking=False)
            raise

    def run(self) -> None:
        if not self._begin.acquire(blocking=False):
            return
        try:
            super().run()
        finally:
            self._has_ended = True
            self._bell.release()

    @property
    def never_begins(self) -> bool:
        """Whether its start was interrupted so early that there is no thread."""
        return self._never_begins

    @property
    def is_over(self) -> bool:
        """Whether its work has ended, or never begins."""
        return self._never_begins or self._has_ended

    def join(self, timeout: float | None = None) -> None:
        """Waits for its end. After a fork there is no such thread in the new process, and so no end."""
        if self._never_begins or os.getpid() != self._process:
            return
        end = None if timeout is None else time.monotonic() + timeout
        while self.ident is not None and not self._has_ended:
            left = _GLANCE if end is None else min(_GLANCE, end - time.monotonic())
            if left <= 0:
                return
            if self._bell.acquire(timeout=left):
                self._bell.release()
        super().join(timeout)
