"""The interpreter's exit, as its daemon threads see it.

They go on until the process ends, while what they use is closed around them. An error would be the last thing
that they print, and nobody's fault: they wait for the end instead.
"""

from __future__ import annotations

import threading


def wait_for_the_end() -> None:
    """Never returns in a daemon thread. Other threads may hear of what is closed."""
    if threading.current_thread().daemon:
        threading.Event().wait()


def main_thread_has_ended() -> bool:
    """Whether the interpreter waits for its last threads, or will in a moment."""
    threading.main_thread().join(0.1)
    return not threading.main_thread().is_alive()
