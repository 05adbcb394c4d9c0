"""The budget of one step of generation: how long it takes, and where that goes.

    python benchmarks/step.py MODEL... [-t 1,2] [--isa avx2,avx512bf16] [--texts 1,16] [--depth 0,4096]

The engine generates for a while. Its executor is watched, so the time between two runs, which is Python's, is
known of each step. Then the same batch is computed again by programs that hold only the operations of one
kind, over the same weights and the same cache, and by one that holds none and only draws the tokens; they
take turns. What a step takes beyond these parts is `together`: an operation finds less of its code and
operands in the caches of its core than one that runs beside its like, and waits for what another core wrote.

Beside them stands how long the bytes of a step, weights and states, take at the bandwidth that the same
threads reach in the same round in a loop that only reads; and what handing out the operations costs, which is
a part of the others: products count as shared by the threads there, all else as kept by one.

Small models are where this matters: of a large one nearly all is products. Prints tables in Markdown, of
microseconds, medians of the rounds; `--json` keeps every single measurement.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from statistics import median
from typing import Any

import numpy as np
from compare_table import markdown
from engines import DEFAULT_CACHE
from machine import handing_out
from measured_work import depths, numbers, texts
from this_machine import disturbance, processor, watched

import clarion
from clarion.gguf import File
from clarion.host import native
from clarion.host.numa import thread_nodes
from clarion.plan import Program
from clarion.plan.operation import Reads
from clarion.plan.operations import OPERATIONS
from clarion.plan.plan import Op
from clarion.plan.sources import Sources
from clarion.programs import DEFAULT_OUTPUTS, make_program, open_file, writes
from clarion.residency import Origin, make_store
from clarion.runtime.cost import bytes_per_token
from clarion.runtime.engine import Engine
from clarion.runtime.executor import Executor
from clarion.runtime.interfaces import Draws
from clarion.runtime.machine import first_node, shared_machine
from clarion.runtime.measure import bandwidth
from clarion.runtime.request import Generate, Request
from clarion.runtime.sampling import Parameters
from clarion.runtime.states.pages import PAGE_SIZE

PRODUCTS, VOCABULARY, ATTENTION, OTHER = "products", "vocabulary", "attention", "norms and other"
KINDS = (PRODUCTS, ATTENTION, OTHER, VOCABULARY)
WHOLE, DRAWING = "the whole", "drawing"
BATCH = 256  # `clarion.load`'s default
SETTLING = 4  # steps that are not counted: the first ones fill the caches
GREEDY = Parameters(greedy=True, ignore_eos=True, detokenize=False)
Round = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured."""

    model: str
    isa: str
    activations: str
    cache: str
    threads: int
    texts: int
    depth: int

    @property
    def words(self) -> list[str]:
        """Cells of a table."""
        name = os.path.basename(self.model).removesuffix(".gguf")
        formats = [self.isa, self.activations] + [self.cache] * (self.cache != DEFAULT_CACHE)
        return [name, " ".join(formats), *map(str, (self.threads, self.texts, self.depth))]


HEAD = ["model", "Clarion", "threads", "texts", "depth"]


def kind(program: Program, op: Op) -> str:
    """What an operation counts as.

    Raises:
        SystemExit: it is a product with chosen experts, of which it would choose others where it runs alone.
    """
    entry = OPERATIONS[op.op]
    if any(tensor.read == "chosen" for tensor in entry.weights):
        raise SystemExit(f"step.py knows dense models; this one has {op.op}")
    if entry.multiplies:
        wide = any(program.buffers[i].width == program.n_vocab for i in op.outputs)
        return VOCABULARY if wide else PRODUCTS
    return ATTENTION if isinstance(entry.state, Reads) else OTHER


class Watched:
    """An executor that notes its runs.

    Attributes:
        runs: when each began and ended, and its tokens.
        batch: the arguments of the first run of `wanted` tokens, its tables copied; None until then.
    """

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.n_slots = executor.n_slots
        self.cancel = executor.cancel
        self.log_probabilities = executor.log_probabilities
        self.rows = executor.rows
        self.watch(0)

    def watch(self, wanted: int) -> None:
        self.wanted = wanted
        self.runs: list[tuple[float, float, int]] = []
        self.batch: tuple[list[Any], Draws] | None = None

    def run(
        self, tokens: Any, positions: Any, slots: Any, tables: list[memoryview], outputs: Any, draws: Draws
    ) -> Sequence[int | ValueError] | None:
        began = time.perf_counter()
        drawn = self.executor.run(tokens, positions, slots, tables, outputs, draws)
        self.runs.append((began, time.perf_counter(), len(tokens)))
        if self.batch is None and len(tokens) == self.wanted:
            copied = [np.array(table) for table in tables]  # the engine goes on writing to them
            self.batch = [tokens, positions, slots, copied, outputs], draws
        return drawn


def generate(engine: Engine, prompts: list[list[int]], n: int) -> None:
    """So many tokens behind each prompt.

    Raises what the engine does.
    """
    results: SimpleQueue[object] = SimpleQueue()
    wanted = Generate(GREEDY, n)
    engine.submit_all((Request(tuple(prompt), wanted), results.put) for prompt in prompts)
    for _ in prompts:
        if isinstance(found := results.get(), BaseException):
            raise found


def in_turns(
    runs: dict[str, Callable[[], object]], nothing: Callable[[], object], steps: int
) -> dict[str, float]:
    """The median of the seconds of so many calls of each, after a few that are not counted; without those of
    `nothing`, which is what any call takes.

    They take turns, so each finds the caches as the others left them: weights that fit there when nothing
    else is read come from memory in a step. Only what calls them was just there.
    """
    runs = {"": nothing} | runs
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(SETTLING + steps):
        for name, run in runs.items():
            nothing()
            began = time.perf_counter()
            run()
            found[name].append(time.perf_counter() - began)
    middles = {name: median(seconds[SETTLING:]) for name, seconds in found.items()}
    call = middles.pop("")
    return {name: max(seconds - call, 0.0) for name, seconds in middles.items()}


class Steps:
    """A model whose steps are taken apart.

    `longest`: tokens of a text; `held`: of all texts that are measured at once.
    """

    def __init__(self, stack: ExitStack, file: File, case: Case, longest: int, held: int) -> None:
        module = native(case.isa)
        outputs = max(DEFAULT_OUTPUTS, case.texts)
        self.program = make_program(
            file,
            context=longest,
            activations=case.activations,
            kv=case.cache,
            isa=case.isa,
            batch=max(BATCH, case.texts),
            outputs=outputs,
        )
        if not writes(self.program):
            raise SystemExit(f"{case.model} writes no text")
        kinds = [kind(self.program, op) for op in self.program.ops]
        origin = Origin(
            module,
            Sources(self.program.weights, file.tensors),
            self.program.read_together,
            thread_nodes(case.threads),
        )
        store = make_store(self.program.weights, "copied", origin)
        stack.callback(store.close)
        executor = partial(
            Executor, store=store, n_slots=outputs, cache_tokens=held, threads=case.threads, isa=case.isa
        )
        self.case = case
        self.watched = Watched(executor(self.program))
        self.idle = executor(self._only([]))
        self.engine = Engine(
            self.watched,
            self.watched.executor.memory.states(),
            max_tokens=self.program.max_tokens,
            max_outputs=self.program.max_outputs,
            check=lambda: None,
            node=first_node(case.threads),
        )
        stack.callback(self.engine.close)
        self.machine = shared_machine(case.isa, case.threads)

        def bound(ops: list[Op]) -> Any:
            return module.Program(self.machine, self._only(ops).native_spec(store), case.threads)

        self.nothing = bound([])
        ops = self.program.ops
        parts = {name: bound([op for op, k in zip(ops, kinds, strict=True) if k == name]) for name in KINDS}
        others = [op for op, k in zip(ops, kinds, strict=True) if k == OTHER]
        self.counts = {name: sum(op.op == name for op in others) for name in {op.op: None for op in others}}
        self.programs = {WHOLE: bound(list(ops))} | parts
        self.programs |= {name: bound([op for op in others if op.op == name]) for name in self.counts}
        self.n_shared = sum(k in (PRODUCTS, VOCABULARY) for k in kinds)
        draw = np.random.default_rng(0)
        self.prompts = [
            draw.integers(0, self.program.n_vocab, case.depth + 1).tolist() for _ in range(case.texts)
        ]

    def _only(self, ops: list[Op]) -> Program:
        return replace(self.program, ops=tuple(ops))

    def measure(self, steps: int) -> Round:
        """One round, in seconds."""
        self.watched.watch(self.case.texts)
        generate(self.engine, self.prompts, SETTLING + steps + 2)
        runs = [(began, ended) for began, ended, n in self.watched.runs if n == self.case.texts][SETTLING:]
        pairs = list(pairwise(runs))
        assert self.watched.batch is not None, "the engine generated"
        batch, draws = self.watched.batch
        states = self.watched.executor.memory.native
        runs: dict[str, Callable[[], object]] = {
            name: partial(program.run, states, *batch) for name, program in self.programs.items()
        }
        runs[DRAWING] = partial(self.idle.run, *batch, draws)
        seconds = in_turns(runs, partial(self.nothing.run, states, *batch), steps)
        kept, shared = handing_out(self.machine, self.case.threads, 3, self.case.isa)
        return {
            "step": median(later[0] - first[0] for first, later in pairs),
            "python": median(later[0] - first[1] for first, later in pairs),
            "drawing": seconds[DRAWING],
            "whole": seconds[WHOLE],
            "parts": {name: seconds[name] for name in KINDS},
            "operations": {name: seconds[name] for name in self.counts},
            "handing_out": {"kept": kept, "shared": shared},
            "bandwidth": bandwidth(self.case.threads, self.case.isa),
        }

    @property
    def n_bytes(self) -> int:
        """Weights and states that a step reads."""
        return bytes_per_token(self.program) + self.case.texts * self.program.state_bytes(self.case.depth)


def measured(case: Case, steps: int, rounds: int) -> dict[str, Any]:
    """All rounds of a case."""
    longest = case.depth + SETTLING + steps + 4
    held = 2 * case.texts * -(-longest // PAGE_SIZE) * PAGE_SIZE  # twice: with what an earlier round retained
    with open_file(case.model) as file, ExitStack() as stack:
        model = Steps(stack, file, case, longest, held)
        return {
            "case": {name: getattr(case, name) for name in case.__slots__},
            "bytes": model.n_bytes,
            "operations": model.counts,
            "n_operations": model.program.n_ops,
            "n_shared": model.n_shared,
            "rounds": [
                found | {"others": others}
                for found, others in (watched(partial(model.measure, steps)) for _ in range(rounds))
            ],
        }


def middle(rounds: list[Round], value: Callable[[Round], float]) -> float:
    return 1e6 * median(map(value, rounds))


def together(measured: Round) -> float:
    """What a step takes longer than its parts."""
    return float(
        measured["step"] - measured["python"] - measured["drawing"] - sum(measured["parts"].values())
    )


def budgets(found: list[tuple[Case, dict[str, Any]]]) -> str:
    """Each step's parts, in microseconds."""
    head = [*HEAD, "step", "MB", "of bytes", *KINDS, "together", "drawing", "Python", "handing out"]
    rows = []
    for case, entry in found:
        rounds = entry["rounds"]
        n_shared, n_kept = entry["n_shared"], entry["n_operations"] - entry["n_shared"]

        def of_bytes(measured: Round, n: int = entry["bytes"]) -> float:
            return float(n / measured["bandwidth"])

        def handed_out(measured: Round, n_shared: int = n_shared, n_kept: int = n_kept) -> float:
            each = measured["handing_out"]
            return float(n_shared * each["shared"] + n_kept * each["kept"])

        values: list[Callable[[Round], float]] = [lambda measured: float(measured["step"]), of_bytes]
        values += [lambda measured, name=name: float(measured["parts"][name]) for name in KINDS]
        values += [
            together,
            lambda measured: float(measured["drawing"]),
            lambda measured: float(measured["python"]),
            handed_out,
        ]
        cells = [f"{middle(rounds, value):.0f}" for value in values]
        cells.insert(1, f"{entry['bytes'] / 1e6:.1f}")
        rows.append([*case.words, *cells])
    return markdown(head, rows, left=2)


def operations(found: list[tuple[Case, dict[str, Any]]]) -> str:
    """What each of the other operations takes alone: how many there are, and microseconds of all of them."""
    names = list(dict.fromkeys(name for _, entry in found for name in entry["operations"]))
    rows = []
    for case, entry in found:
        cells = []
        for name in names:
            n = entry["operations"].get(name, 0)
            total = (
                middle(entry["rounds"], lambda measured, name=name: measured["operations"][name]) if n else 0
            )
            cells.append(f"{n}: {total:.1f}" if n else "")
        rows.append([*case.words, *cells])
    return markdown([*HEAD, *names], rows, left=2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", help="GGUF files")
    parser.add_argument("--isa", default="avx512vnni", help="as a,b (default: %(default)s)")
    parser.add_argument("--activations", default="high", help="as high,fast (default: %(default)s)")
    parser.add_argument("--cache", default=DEFAULT_CACHE, help="as f16,q8_0 (default: %(default)s)")
    parser.add_argument("-t", "--threads", type=numbers, default=[1, 2], help="(default: 1,2)")
    parser.add_argument("--texts", type=texts, default=[1], help="that generate at once (default: 1)")
    parser.add_argument("--depth", type=depths, default=[0], help="tokens before (default: 0)")
    parser.add_argument("--steps", type=int, default=48, help="of a measurement (default: %(default)s)")
    parser.add_argument("-r", "--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, help="where every measurement goes, in seconds")
    arguments = parser.parse_args()
    cases = [
        Case(model, isa, activations, cache, threads, n, depth)
        for model in arguments.models
        for isa in arguments.isa.split(",")
        for activations in arguments.activations.split(",")
        for cache in arguments.cache.split(",")
        for threads in arguments.threads
        for n in arguments.texts
        for depth in arguments.depth
    ]
    found = []
    for case in cases:
        found.append((case, measured(case, arguments.steps, arguments.rounds)))
        print(", ".join(case.words), file=sys.stderr)
    today = datetime.now(UTC).date().isoformat()
    report = {
        "date": today,
        "processor": processor(),
        "version": clarion.__version__,
        "cases": [entry for _, entry in found],
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    others = disturbance(measured["others"] for _, entry in found for measured in entry["rounds"])
    print(f"{processor()}, {today}, Clarion {clarion.__version__}; {others}; µs a step:")
    print("", budgets(found), "Operations of no product and no attention, n: µs together", sep="\n\n")
    print("", operations(found), sep="\n")


if __name__ == "__main__":
    main()
