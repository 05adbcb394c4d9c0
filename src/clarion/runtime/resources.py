"""What a loaded model holds, and its end: by `close`, by the collector, or when the interpreter exits."""

from __future__ import annotations

import atexit
import os
import threading
from contextlib import ExitStack
from typing import Protocol

from clarion.exiting import after_fork, loading
from clarion.residency import Store
from clarion.runtime.engine import Engine


class Closes(Protocol):
    """What ends when the model is closed."""

    def close(self) -> None: ...

    def exit(self) -> None:
        """Before `close`, when the interpreter exits."""
        ...

    def is_here(self) -> bool:
        """Whether one of its threads asks."""
        ...


class Resources:
    """The threads and the memory of a model. They are known until they are closed, also when nobody knows
    the model any more: at the interpreter's exit, finalizers are not called.

    A forked process has none of the threads, and perhaps locks that nobody will ever open: there is nothing
    that it could close.
    """

    def __init__(self, engine: Engine | None, vectors: Closes, store: Store, others: ExitStack) -> None:
        self._engine = engine
        self._vectors = vectors
        self._store = store
        self._others = others
        self._process = os.getpid()
        self._lock = threading.RLock()
        _open.add(self)

    def close(self) -> None:
        """Once; whoever comes second waits. The model's threads, which the first waits for, do not.

        Where it is interrupted, threads may still run: it can be called again, and waits for them.
        """
        if os.getpid() != self._process:
            return
        if not self._lock.acquire(blocking=not self._is_here()):
            return
        try:
            if self._engine is not None:
                self._engine.close()
            self._vectors.close()
            self._store.close()
            self._others.close()
            if not self._is_here():  # else its threads have not ended: the exit waits for them
                _open.discard(self)
        finally:
            self._lock.release()

    def exit(self) -> None:
        if self._engine is not None:
            self._engine.exit()
        self._vectors.exit()
        self.close()

    def _is_here(self) -> bool:
        """Whether this is one of the model's threads."""
        return self._vectors.is_here() or (self._engine is not None and self._engine.is_here())


_open: set[Resources] = set()


@atexit.register
def _exit() -> None:
    """Daemon threads may still use models, or load them, while the interpreter exits.

    Ctrl-C does not end it: threads of ours that come back to an interpreter that is gone abort the process.
    """
    while True:
        try:
            loading.end()
            for resources in list(_open):
                resources.exit()
            return
        except KeyboardInterrupt:
            continue


after_fork(_open.clear)
