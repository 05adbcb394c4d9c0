"""All programs of a process compute with one pool of threads."""

import gc
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import clarion
from clarion.host import choose, native
from clarion.host.threads import MOST_THREADS
from clarion.runtime.machine import shared_machine


def pool_threads():
    """Threads of this process that compute and are no caller, those that end meanwhile left out."""
    count = 0
    for path in Path("/proc/self/task").glob("*/comm"):
        try:
            count += path.read_text() == "clarion-pool\n"
        except (FileNotFoundError, ProcessLookupError):  # the thread ended between the list and the read
            continue
    return count


def remaining_pool_threads():
    """Those that are left when all have had time to end: a joined thread stays in the list for a moment."""
    deadline = time.monotonic() + 10
    while (count := pool_threads()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return count


def test_models_share_threads():
    """Two models of two threads have one worker between them, and either caller is the other thread."""
    program = """
import sys; sys.path.insert(0, "")
import clarion
from tests.runtime.test_machine import pool_threads, remaining_pool_threads
counts = [pool_threads()]
models = []
for threads in (2, 2, 1, 3):
    models.append(clarion.load(threads=threads, weights="mapped"))
    counts.append(pool_threads())
for model in models:
    model.generate("Once", max_tokens=2)
    model.close()
del models, model
import gc; gc.collect()
counts.append(remaining_pool_threads())
print(counts)
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "[0, 1, 1, 1, 2, 0]\n"


def test_models_compute_the_same_together():
    """Models of one, two and three threads generate at once, on the same pool."""
    tokens = [5, 6, 7, 8, 9]
    models = [clarion.load(threads=threads, context=64) for threads in (1, 2, 3)]
    wanted = models[0].logits(tokens)
    results = []

    def compute(model):
        results.extend(model.logits(tokens) for _ in range(30))

    callers = [threading.Thread(target=compute, args=(model,)) for model in models]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for model in models:
        model.close()
    assert len(results) == 90
    assert all(np.array_equal(found, wanted) for found in results)


def test_a_machine_grows_and_ends():
    isa = choose().name
    gc.collect()
    machine = shared_machine(isa, 2)
    before = machine.threads
    assert before >= 2
    assert shared_machine(isa, before + 1) is machine
    assert machine.threads == before + 1
    assert shared_machine(isa, 1) is machine


def test_the_limit_of_threads_is_that_of_the_pool():
    with pytest.raises(ValueError, match=f"expected 1 to {MOST_THREADS}"):
        native().Machine(MOST_THREADS + 1)
