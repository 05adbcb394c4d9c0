"""What this machine can do at most, measured: the figures that speeds are held against."""

from __future__ import annotations

import random
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from statistics import median

from clarion._native import files
from clarion.gguf.formats import Format, format_named
from clarion.host.hierarchy import hierarchy
from clarion.host.isa import choose, measures, native
from clarion.host.load import BUSY_SHARE, Snapshot, others
from clarion.host.memory import memory
from clarion.host.record import Rates, Record, stored, this_machine
from clarion.host.threads import default_threads, most_threads
from clarion.plan import Program, Target, compile
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Graph
from clarion.plan.hyperparameters import Hyperparameters
from clarion.residency import Mapped, Store
from clarion.runtime.executor import Executor

_MIB = 1 << 20
_ROUNDS = 3
_SECONDS = 0.2
_MOST_SPREAD = 0.3  # of rounds; 2 to 10% on machines that rest
_WIDTH = 4096  # of the matrices, rows and columns: those of a model of 8 billion parameters
_PROMPT = 64  # tokens
# Those of the products' plan, which has no layer.
_FIGURES = Hyperparameters(
    architecture="products",
    context_length=_PROMPT,
    n_layer=0,
    n_embd=_WIDTH,
    n_vocab=_WIDTH,
    n_head=0,
    n_head_kv=0,
    head_dim=0,
    n_rot=0,
    n_ff=0,
    norm_eps=0.0,
    attention_scale=0.0,
)


def bandwidth(threads: int, isa: str | None = None, seconds: float = 0.25) -> float:
    """Bytes that `threads` threads read from memory, far beyond the caches, in a second."""
    # Four times the last level of all cores, so that little of it stays there; not much of the memory.
    last = hierarchy().caches[-1]
    cached = last.size * -(-len(hierarchy().cores) // last.cores)
    total = min(max(256 * _MIB, 4 * cached), memory().available // 4)
    each = min(max(total // threads, 16 * _MIB), 512 * _MIB) // _MIB * _MIB
    return float(measures(isa).bandwidth(threads, seconds, each))


def multiply_peak(threads: int, isa: str | None = None, seconds: float = 0.25) -> float:
    """Products of bytes that `threads` threads compute and add up within registers in a second."""
    return float(measures(isa).multiply(threads, seconds))


def peaks(threads: int, isa: str, seconds: float = 0.25) -> tuple[float, float]:
    """Bandwidth and products of `threads` threads: as recorded for this machine, else measured now."""
    record, _ = stored(isa)
    rates = record.of(threads) if record is not None else None
    if rates is not None:
        return rates.bandwidth, rates.multiply
    return bandwidth(threads, isa, seconds), multiply_peak(threads, isa, seconds)


@dataclass(frozen=True, slots=True)
class _Matrix:
    """A tensor of the measured products."""

    name: str
    view: memoryview
    shape: tuple[int, ...] = (_WIDTH, _WIDTH)

    @property
    def format(self) -> Format:
        return format_named("Q4_K")


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
    with_weights = _Products(module)
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
    """Products with random Q4_K matrices, more of them than caches hold, as a program does them."""

    def __init__(self, isa: str) -> None:
        self._isa = isa
        n_bytes = format_named("Q4_K").n_bytes((_WIDTH, _WIDTH))
        weight = random.Random(0).randbytes(n_bytes)
        n = max(2, min(256 * _MIB, memory().available // 4) // n_bytes)
        space = files.HugePages(n * n_bytes).bytes
        names = [f"{i}.weight" for i in range(n)]
        self._tensors = {
            name: _Matrix(name, space[i * n_bytes : (i + 1) * n_bytes]) for i, name in enumerate(names)
        }
        for matrix in self._tensors.values():
            matrix.view[:] = weight

    def rates(self, threads: int) -> tuple[float, float]:
        """Bytes of weights a second with one token; products of bytes a second with many."""
        names = list(self._tensors)
        read = sum(len(matrix.view) for matrix in self._tensors.values())
        generation = read / self._seconds(threads, names, 1)
        some = names[:2]
        products = 2 * _PROMPT * _WIDTH * _WIDTH * len(some)  # 16-bit activations count twice
        return generation, products / self._seconds(threads, some, _PROMPT)

    def _compiled(self, names: list[str], n: int) -> Program:
        """Rows of the first matrix, multiplied by each of these: one encoding, then one product after
        the other."""
        g, w = Graph(_FIGURES), Checkpoint(self._tensors)
        x = g.embed(w["0"], _WIDTH, _WIDTH)  # [T, _WIDTH]
        for name in names:
            g.linear(x, w[name.removesuffix(".weight")], _WIDTH)
        g.output(g.select(x))
        target = Target(row_bytes=native(self._isa).encoded_row_bytes)
        return compile(g.plan(), target, max_tokens=n, max_outputs=1, context=n, fuse=False)

    def _seconds(self, threads: int, names: list[str], n: int) -> float:
        """The shortest time in which n tokens meet all of these weights."""
        program = self._compiled(names, n)
        store = Store(program.weights, Mapped(self._tensors))
        executor = Executor(program, store, threads=threads, isa=self._isa)
        tokens = array("i", bytes(4 * n))
        positions = array("i", range(n))
        shortest, end = float("inf"), time.perf_counter() + _SECONDS
        while (start := time.perf_counter()) < end or shortest == float("inf"):
            executor.run(tokens, positions, tokens, [], array("i"))
            shortest = min(shortest, time.perf_counter() - start)
        return shortest
