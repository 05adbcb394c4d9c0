"""Threads near to the memory that they read, on machines with several memory nodes.

Rows are always shared out alike between threads, so the part of a weight that a thread reads can lie on its
node. It is near only while the thread stays, and the system moves threads to wherever a processor is idle.
"""

from __future__ import annotations

import contextlib
import os
from array import array
from collections.abc import Sequence

from clarion.host.hierarchy import Hierarchy, Node, hierarchy
from clarion.host.threads import cpu_quota


def thread_nodes(threads: int, found: Hierarchy | None = None) -> tuple[Node, ...]:
    """The node of each thread: neighbours share one; nodes have threads in proportion to their processors."""
    places = [node for node in (found or hierarchy()).nodes for _ in node.processors]
    return tuple(places[(2 * t + 1) * len(places) // (2 * threads)] for t in range(threads))


def free_because(threads: int, found: Hierarchy | None = None) -> str:
    """Why so many threads are not kept on their nodes; "" where they are.

    Where others share the processors a thread has to go where one is idle: to wait costs more than to read
    from afar. A process that may not use all of a node's processors, or not all the time, shares them.
    """
    found = found or hierarchy()
    if len(found.nodes) == 1:
        return "there is one"
    if threads < len(found.nodes):
        return "there are fewer than nodes"
    if not all(node.whole for node in found.nodes):
        return "the affinity mask has a part of a node"
    quota = cpu_quota()
    if quota is not None and quota < len(found.processors):
        return "the control group has a quota"
    return ""


def masks(nodes: Sequence[Node]) -> bytes:
    """Each thread's node as Linux masks processors: arrays of unsigned long, one after the other."""
    bits = array("L").itemsize * 8
    words = max(max(node.processors) for node in nodes) // bits + 1
    result = array("L", bytes(words * len(nodes) * bits // 8))
    for t, node in enumerate(nodes):
        for processor in node.processors:
            result[t * words + processor // bits] |= 1 << processor % bits
    return result.tobytes()


def stay_near(node: Node) -> None:
    """Keeps this thread on a node's processors: memory that it touches first then lies there.

    Where the system refuses, memory lies elsewhere, which is slower and no error.
    """
    if len(hierarchy().nodes) > 1 and hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, node.processors)
