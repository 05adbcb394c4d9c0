"""A machine that computes nothing but remembers everything: its logits tell which tokens the pages hold."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clarion._native import sampling
from clarion.runtime.engine import Engine
from clarion.runtime.keeping import Keeper
from clarion.runtime.states.folder import PrefixFolder
from clarion.runtime.states.paged import Paged
from clarion.runtime.states.pages import PAGE_SIZE
from clarion.runtime.states.states import States

Floats = npt.NDArray[np.float32]

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


class FakeExecutor:
    """Writes tokens where a real one writes keys and values, then reads each wanted history back through the
    page table. It draws with a real sampler."""

    def __init__(self, n_pages: int, n_slots: int, max_outputs: int) -> None:
        self.n_slots = n_slots
        self.held = np.full((n_pages, PAGE_SIZE), EMPTY, np.int32)  # page, position in it → token
        self.page_bytes = 4 * PAGE_SIZE
        self.copies = 0
        self.logits = np.zeros((max_outputs, V), np.float32)
        self.batches: list[tuple[int, int]] = []  # (tokens, sequences) of each run
        self.computed = 0
        self.gate: threading.Semaphore | None = None  # one run for each release, where there is one
        self.started = threading.Semaphore(0)  # released by each run
        self.fail: Exception | None = None
        self._cancelled = threading.Event()
        self._sampler = sampling.Sampler(V)

    def copy_page(self, source: int, destination: int) -> None:
        self.held[destination] = self.held[source]
        self.copies += 1

    def page(self, i: int) -> memoryview:
        return memoryview(self.held[i].view(np.uint8))

    def rows(self, name: str) -> memoryview:
        assert name == "logits"
        return memoryview(self.logits)

    def cancel(self) -> None:
        self._cancelled.set()
        if self.gate is not None:
            self.gate.release()

    def _draw(self, states: Sequence[Any], rows: Sequence[int]) -> list[int | ValueError]:
        drawn: list[int | ValueError] = []
        for state, row in zip(states, rows, strict=True):
            try:
                drawn.append(self._sampler.sample(state, self.logits[row]))
            except ValueError as error:
                drawn.append(error)
        return drawn

    def log_probabilities(self, row: int, token: int, n: int) -> list[tuple[int, float]]:
        return self._sampler.log_probabilities(self.logits[row], token, n)

    def run(self, *arguments: Any) -> list[int | ValueError] | None:
        tokens, positions, slots, (table,), outputs, draws = arguments
        batch = (tokens, positions, slots, table, outputs)
        assert {memoryview(part).format for part in batch} == {"i"}
        tokens, positions, slots, pages, outputs = (np.asarray(part) for part in batch)
        assert 0 < len(tokens) == len(positions) == len(slots)
        self._cancelled.clear()
        self.started.release()
        if self.gate is not None:
            self.gate.acquire()
        if self.fail is not None:
            raise self.fail
        if self._cancelled.is_set():
            return None
        self.batches.append((len(tokens), len(set(slots.tolist()))))
        self.computed += len(tokens)
        for token, position, slot in zip(tokens, positions, slots, strict=True):
            self.held[pages[slot, position // PAGE_SIZE], position % PAGE_SIZE] = token
        for i, output in enumerate(outputs):
            row, length = slots[output], positions[output] + 1
            history = [int(self.held[pages[row, p // PAGE_SIZE], p % PAGE_SIZE]) for p in range(length)]
            assert EMPTY not in history
            self.logits[i] = next_logits(history)
        return self._draw(*draws)


class FakeMachine:
    """An engine on fakes, with real states and a real sampler."""

    def __init__(
        self,
        *,
        context: int = 256,
        n_pages: int | None = None,
        max_tokens: int = 16,
        max_outputs: int = 8,
        folder: Path | None = None,
        folder_bytes: int = 1 << 20,
    ) -> None:
        """`folder`: for prefixes."""
        n_pages = n_pages or -(-context // PAGE_SIZE)
        self.executor = FakeExecutor(n_pages, max_outputs, max_outputs)
        paged = Paged(self.executor, n_pages=n_pages, n_slots=max_outputs, context=context)
        self.states = States([paged], n_slots=max_outputs, context=context)
        keeper = None
        if folder is not None:
            kept = PrefixFolder(folder, folder_bytes, self.states.layout, context=context, anywhere=True)
            keeper = Keeper(kept, self.states)
        self.checks = 0
        self.damage: Exception | None = None
        self.engine = Engine(
            self.executor,
            self.states,
            max_tokens=max_tokens,
            max_outputs=max_outputs,
            check=self._check,
            keeper=keeper,
        )

    def _check(self) -> None:
        self.checks += 1
        if self.damage is not None:
            raise self.damage
