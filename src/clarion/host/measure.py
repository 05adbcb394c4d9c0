"""What this machine can do at most, measured: the figures that speeds are held against."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from statistics import median
from types import ModuleType

import numpy as np

from clarion._native import files
from clarion.host.hierarchy import hierarchy
from clarion.host.isa import choose, native
from clarion.host.load import BUSY_SHARE, Snapshot, others
from clarion.host.memory import memory
from clarion.host.record import Rates, Record, stored, this_machine
from clarion.host.threads import default_threads, most_threads

_MIB = 1 << 20
_ROUNDS = 3
_SECONDS = 0.2
_MOST_SPREAD = 0.3  # of rounds; 2 to 10% on machines that rest
_Q4_K, _BLOCK, _BLOCK_BYTES = 12, 256, 144
_WIDTH = 4096  # of the matrices, rows and columns: those of a model of 8 billion parameters
_PROMPT = 64  # tokens


def bandwidth(threads: int, isa: str | None = None, seconds: float = 0.25) -> float:
    """Bytes that `threads` threads read from memory, far beyond the caches, in a second."""
    # Four times the last level of all cores, so that little of it stays there; not much of the memory.
    last = hierarchy().caches[-1]
    cached = last.size * -(-len(hierarchy().cores) // last.cores)
    total = min(max(256 * _MIB, 4 * cached), memory().available // 4)
    each = min(max(total // threads, 16 * _MIB), 512 * _MIB) // _MIB * _MIB
    return float(native(isa).measure_bandwidth(threads, seconds, each))


def multiply_peak(threads: int, isa: str | None = None, seconds: float = 0.25) -> float:
    """Products of bytes that `threads` threads compute and add up within registers in a second."""
    return float(native(isa).measure_multiply(threads, seconds))


def peaks(threads: int, isa: str, seconds: float = 0.25) -> tuple[float, float]:
    """Bandwidth and products of `threads` threads: as recorded for this machine, else measured now."""
    record, _ = stored(isa)
    rates = record.of(threads) if record is not None else None
    if rates is not None:
        return rates.bandwidth, rates.multiply
    return bandwidth(threads, isa, seconds), multiply_peak(threads, isa, seconds)


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was measured, and under which circumstances.

    Attributes:
        others: processors that other programs had meanwhile, on average; None where the system does not say.
        processors: that this process may use.
        spread: how far the rounds were apart, as a part of the best one: the median over all rates.
    """

    record: Record
    others: float | None
    processors: int
    spread: float

    @property
    def disturbed(self) -> str:
        """Why the figures are not those of this machine; empty where nothing says so."""
        if self.others is not None and self.others > BUSY_SHARE * self.processors:
            return f"other programs took {self.others:.1f} of {self.processors} processors meanwhile"
        if self.spread > _MOST_SPREAD:
            return f"the rounds are {self.spread:.0%} apart, as where other programs take processors"
        return ""


def measure(isa: str | None = None, progress: Callable[[str], None] = lambda _: None) -> Measurement:
    """Measures all rates, in turns, for one thread up to all that this process may have: some ten seconds.

    Of three rounds the best counts: whatever else runs on the machine only takes away.
    """
    module = choose(isa).name
    counts = _counts()
    rounds: dict[int, list[tuple[float, ...]]] = {threads: [] for threads in counts}
    with_weights = _Products(native(module))
    processors = hierarchy().processors
    began = Snapshot.now(processors)
    for turn in range(_ROUNDS):
        for threads in counts:
            progress(f"round {turn + 1} of {_ROUNDS}, {threads} thread{'s' if threads > 1 else ''}")
            found = (
                bandwidth(threads, module, _SECONDS),
                multiply_peak(threads, module, _SECONDS),
                *with_weights.rates(threads),
            )
            rounds[threads].append(found)
    busy = others(began, Snapshot.now(processors))
    columns = {threads: list(zip(*found, strict=True)) for threads, found in rounds.items()}
    rates = tuple(Rates(threads, *map(max, values)) for threads, values in columns.items())
    spreads = [1 - min(values) / max(values) for found in columns.values() for values in found]
    record = Record(this_machine(module), date.today().isoformat(), rates)
    return Measurement(record, busy, len(processors), median(spreads))


def _counts() -> list[int]:
    """1, 2, 4, ... threads, one for each core, and all that may run."""
    most = most_threads()
    powers = {1 << i for i in range(most.bit_length())}
    return sorted({n for n in powers | {default_threads(), most} if n <= most})


class _Products:
    """Products with random Q4_K matrices, more of them than caches hold, as a model's plan would do them."""

    def __init__(self, core: ModuleType) -> None:
        self._core = core
        n_bytes = _WIDTH * _WIDTH // _BLOCK * _BLOCK_BYTES
        weight = np.random.default_rng(0).integers(0, 256, n_bytes, np.uint8)
        n = max(2, min(256 * _MIB, memory().available // 4) // n_bytes)
        space = np.asarray(files.HugePages(n * n_bytes).bytes)
        self._weights = [space[i * n_bytes : (i + 1) * n_bytes] for i in range(n)]
        for copy in self._weights:
            copy[:] = weight

    def rates(self, threads: int) -> tuple[float, float]:
        """Bytes of weights a second with one token; products of bytes a second with many."""
        machine = self._core.Machine(threads, **hierarchy().cache_bytes)
        read = sum(weight.nbytes for weight in self._weights)
        generation = read / self._seconds(machine, self._weights, 1)
        some = self._weights[:2]
        products = 2 * _PROMPT * _WIDTH * _WIDTH * len(some)  # 16-bit activations count twice
        return generation, products / self._seconds(machine, some, _PROMPT)

    def _seconds(
        self, machine: object, weights: list[np.ndarray[tuple[int], np.dtype[np.uint8]]], n: int
    ) -> float:
        """The shortest time in which n tokens meet all of the weights."""
        program = self._core.Program(machine, self._spec(weights, n))
        nothing = np.zeros(n, np.int32)
        arguments = (nothing, nothing, nothing, np.zeros((1, 1), np.int32), nothing[:0])
        shortest, end = float("inf"), time.perf_counter() + _SECONDS
        while (start := time.perf_counter()) < end or shortest == float("inf"):
            program.run(None, *arguments)
            shortest = min(shortest, time.perf_counter() - start)
        return shortest

    def _spec(self, weights: list[np.ndarray[tuple[int], np.dtype[np.uint8]]], n: int) -> dict[str, object]:
        widths = [(kind, self._core.encoded_row_bytes(kind, _WIDTH)) for kind in ("f32", "high", "f32")]
        offsets = [0, *np.cumsum([-(-size * n // 64) * 64 for _, size in widths]).tolist()]
        ops: list[tuple[str, int, int, list[int]]] = [("encode", 0, 1, [])]
        ops += [("linear", 1, 2, [i, -1]) for i in range(len(weights))]
        return {
            "arena_bytes": offsets[-1],
            "max_tokens": n,
            "max_outputs": 0,
            "buffers": [
                {
                    "name": str(i),
                    "kind": kind,
                    "rows": "tokens",
                    "slots_per_token": 1,
                    "width": _WIDTH,
                    "offset": offsets[i],
                }
                for i, (kind, _) in enumerate(widths)
            ],
            "weights": [
                {"name": str(i), "format": _Q4_K, "rows": _WIDTH, "cols": _WIDTH, "experts": 1, "data": data}
                for i, data in enumerate(weights)
            ],
            "ops": [
                {
                    "op": op,
                    "inputs": [source],
                    "outputs": [target],
                    "weights": used,
                    "ints": {},
                    "floats": {},
                    "arrays": {},
                }
                for op, source, target, used in ops
            ],
        }
