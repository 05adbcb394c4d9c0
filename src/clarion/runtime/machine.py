"""The threads that compute: one pool for all programs of this process, whatever models they belong to."""

from __future__ import annotations

import threading
import weakref
from typing import Any

from clarion.exiting import after_fork
from clarion.host import native
from clarion.host.hierarchy import Node, hierarchy
from clarion.host.numa import free_because, masks, thread_nodes

_machines: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def shared_machine(isa: str, threads: int) -> Any:
    """The native machine of an instruction set, with so many threads or more. It ends with its last
    program."""
    processors = b"" if free_because(threads) else masks(thread_nodes(threads))
    with _lock:
        found = _machines.get(isa)
        if found is None:
            found = native(isa).Machine(threads, **hierarchy().machine_options, processors=processors)
            _machines[isa] = found
        elif found.threads < threads:
            found.grow(threads, processors)
        return found


def first_node(threads: int) -> Node | None:
    """The memory node that the first of so many threads, the caller of a run, has to stay near to."""
    return None if free_because(threads) else thread_nodes(threads)[0]


def _forget() -> None:
    """A forked process has none of the threads, and perhaps a lock that nobody will ever open."""
    global _lock
    _lock = threading.Lock()
    _machines.clear()


after_fork(_forget)
