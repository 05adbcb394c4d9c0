"""A machine that computes nothing but remembers everything: its logits tell which tokens the pages hold."""

from __future__ import annotations

import threading
import zlib

import numpy as np

from clarion._native import sampling
from clarion.runtime.core import PAGE_SIZE, Floats, Ints
from clarion.runtime.engine import Engine

V = 32
EMPTY = -1


def next_logits(history: list[int]) -> Floats:
    """The logits after these tokens: any change to any of them changes all."""
    seed = zlib.crc32(np.array(history, np.int32).tobytes())
    return np.random.default_rng(seed).standard_normal(V).astype(np.float32) * 3


def greedy(prompt: list[int], n: int) -> list[int]:
    """What greedy generation of n tokens must give."""
    tokens = list(prompt)
    for _ in range(n):
        tokens.append(int(np.argmax(next_logits(tokens))))
    return tokens[len(prompt) :]


class FakeCache:
    """Stores token ids where a real one stores keys and values."""

    def __init__(self, n_pages: int) -> None:
        self.slots = np.full((n_pages, PAGE_SIZE), EMPTY, np.int32)
        self.copies = 0

    def copy_page(self, source: int, destination: int) -> None:
        self.slots[destination] = self.slots[source]
        self.copies += 1


class FakeProgram:
    """Writes tokens into their slots, then reads each wanted history back through the page table."""

    def __init__(self, max_outputs: int) -> None:
        self._logits = np.zeros((max_outputs, V), np.float32)
        self.batches: list[tuple[int, int]] = []  # (tokens, sequences) of each run
        self.computed = 0
        self.gate: threading.Semaphore | None = None  # one run for each release, where there is one
        self.started = threading.Semaphore(0)  # released by each run
        self.fail: Exception | None = None
        self._cancelled = threading.Event()

    def buffer(self, name: str) -> Floats:
        assert name == "logits"
        return self._logits

    def cancel(self) -> None:
        self._cancelled.set()
        if self.gate is not None:
            self.gate.release()

    def run(
        self,
        cache: FakeCache,
        tokens: Ints,
        positions: Ints,
        sequences: Ints,
        pages: Ints,
        outputs: Ints,
    ) -> bool:
        assert tokens.dtype == positions.dtype == sequences.dtype == pages.dtype == outputs.dtype == np.int32
        assert 0 < len(tokens) == len(positions) == len(sequences)
        self._cancelled.clear()
        self.started.release()
        if self.gate is not None:
            self.gate.acquire()
        if self.fail is not None:
            raise self.fail
        if self._cancelled.is_set():
            return False
        self.batches.append((len(tokens), len(pages)))
        self.computed += len(tokens)
        for token, position, row in zip(tokens, positions, sequences, strict=True):
            cache.slots[pages[row, position // PAGE_SIZE], position % PAGE_SIZE] = token
        for i, output in enumerate(outputs):
            row, length = sequences[output], positions[output] + 1
            history = [int(cache.slots[pages[row, p // PAGE_SIZE], p % PAGE_SIZE]) for p in range(length)]
            assert EMPTY not in history
            self._logits[i] = next_logits(history)
        return True


class FakeMachine:
    """An engine on fakes, with a real sampler."""

    def __init__(
        self, *, context: int = 256, n_pages: int | None = None, max_tokens: int = 16, max_outputs: int = 8
    ) -> None:
        n_pages = n_pages or -(-context // PAGE_SIZE)
        self.program = FakeProgram(max_outputs)
        self.cache = FakeCache(n_pages)
        self.checks = 0
        self.damage: Exception | None = None
        self.engine = Engine(
            self.program,
            self.cache,
            sampling.Sampler(V),
            n_pages=n_pages,
            context=context,
            max_tokens=max_tokens,
            max_outputs=max_outputs,
            check=self._check,
        )

    def _check(self) -> None:
        self.checks += 1
        if self.damage is not None:
            raise self.damage
