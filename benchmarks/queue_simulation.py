"""Simulate how the queue of items behaves on machines that are not here.

    python benchmarks/queue_simulation.py [--shapes 1B 7B] [--machines MACHINE ...] [--rules [RULE ...]]
    python benchmarks/queue_simulation.py --check

The rule is that of native/machine/pool.cpp (`queue_rules.py`), the items are those into which the program of
a real shape is cut (`queue_items.py`), the machines are described in `queue_machines.py`, and what an item
and handing it out cost was measured by `queue_costs.py`, whose other results `--costs` reads. Efficiency is
the time of an ideal division of the work, in which no core ever waits, over the simulated time. The rest is
lost

- alone: in operations of one item, which one thread does while the others wait;
- division: because items are few, or end at different times;
- handing out: taking items, counting them, publishing operations and waking threads.

`--rules` simulates other rules, each alone and then some together; `--check` compares with this machine's
pool, whose costs it measures first, on one and on two threads.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from queue_items import SHAPES, WORK, Batch, Shape, Tiling, Work, program_of, work_of
from queue_machines import MACHINES, Core, Costs, Machine
from queue_rules import Queue, Rules

from clarion.host.hierarchy import hierarchy
from clarion.plan import Program

TILING = Tiling(l2=1 << 20)
AS_IT_IS = Rules()


@dataclass(frozen=True, slots=True)
class Variant:
    """A rule of the queue, of cutting items, and how long operations on rows take beside what they do."""

    name: str
    rules: Rules = AS_IT_IS
    tiling: Tiling = TILING
    rows: float = 1.0


_PIECES = replace(TILING, in_pieces=True)
_ATTENTION = replace(TILING, few_heads=1 << 16, each=4)
ALL = replace(_PIECES, few_heads=1 << 16, each=4, items_each=8, item_tokens=4)
VARIANTS = (
    Variant("as it is"),
    Variant("woken wake", Rules(tree=True)),
    Variant("fewer threads", Rules(least=5e-6)),
    Variant("near lanes first", Rules(near=True)),
    Variant("lanes spread", Rules(spread=True)),
    Variant("small at the end", tiling=replace(TILING, tapered=True)),
    Variant("items by tokens", tiling=replace(TILING, item_tokens=4)),
    Variant("shorter blocks", tiling=replace(TILING, items_each=8)),
    Variant("attention", tiling=_ATTENTION),
    Variant("pieces of rows", tiling=_PIECES),
    Variant("faster rows", rows=1 / 3),
    Variant("chosen", tiling=ALL),
    Variant("chosen, faster rows", tiling=ALL, rows=1 / 3),
)


@dataclass(frozen=True, slots=True)
class Result:
    """Of one batch on one machine. Losses are parts of the simulated time."""

    shape: str
    work: str
    machine: str
    variant: str
    milliseconds: float
    efficiency: float
    alone: float
    division: float
    handing_out: float


def simulate(
    works: Sequence[Work], machine: Machine, costs: Costs, rules: Rules | None = None
) -> tuple[float, float, float, float]:
    """Seconds, and parts of them: the efficiency, what operations alone lose, and what the division loses."""
    real = Queue(machine, costs, rules).run(works)
    free = Queue(machine, costs.free(), rules).run(works)
    ideals = [
        machine.ideal(costs.seconds(work.op, work.total), work.total.bytes) for work in works if work.items
    ]
    some = [work for work in works if work.items]
    alone = sum(
        seconds - ideal
        for seconds, ideal, work in zip(free.of, ideals, some, strict=True)
        if len(work.items) == 1
    )
    ideal = sum(ideals)
    division = free.seconds - ideal - alone
    return real.seconds, ideal / real.seconds, alone / real.seconds, division / real.seconds


def results(
    shapes: Iterable[str], machines: Iterable[Machine], costs: Costs, variants: Iterable[Variant]
) -> list[Result]:
    programs = {shape: program_of(SHAPES[shape]) for shape in shapes}
    found = []
    for machine in machines:
        for shape, program in programs.items():
            for name, batch in WORK.items():
                for variant in variants:
                    works = work_of(program, batch, machine.threads, variant.tiling)
                    here = costs.with_rows(variant.rows)
                    seconds, part, alone, division = simulate(works, machine, here, variant.rules)
                    parts = part, alone, division, 1 - part - alone - division
                    found.append(Result(shape, name, machine.name, variant.name, 1e3 * seconds, *parts))
    return found


def table(found: Sequence[Result]) -> str:
    """A row for each machine and shape: the efficiency of each kind of work, and where the rest went."""
    lines = [
        "| machine | shape | " + " | ".join(f"{work} | lost" for work in WORK) + " |",
        "|---|---|" + "---:|---|" * len(WORK),
    ]
    for machine, shape in dict.fromkeys((r.machine, r.shape) for r in found):
        cells = []
        for r in (r for r in found if (r.machine, r.shape) == (machine, shape)):
            losses = {"alone": r.alone, "division": r.division, "handing out": r.handing_out}
            cells.append(f"{r.efficiency:.0%}")
            cells.append(", ".join(f"{name} {loss:.0%}" for name, loss in losses.items() if loss >= 0.02))
        lines.append(f"| {machine} | {shape} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def rules_table(found: Sequence[Result]) -> str:
    """A row for each rule: the efficiency as it is, and by how much each kind of work is faster otherwise."""
    lines = ["| machine | shape | rule | " + " | ".join(WORK) + " |", "|---|---|---|" + "---:|" * len(WORK)]
    first = {(r.machine, r.shape, r.work): r for r in reversed(found)}
    for machine, shape, variant in dict.fromkeys((r.machine, r.shape, r.variant) for r in found):
        row = [r for r in found if (r.machine, r.shape, r.variant) == (machine, shape, variant)]
        bases = [first[r.machine, r.shape, r.work] for r in row]
        cells = [
            f"{r.efficiency:.0%}" if r is base else f"{base.milliseconds / r.milliseconds - 1:+.0%}"
            for r, base in zip(row, bases, strict=True)
        ]
        lines.append(f"| {machine} | {shape} | {variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


# ---- beside the real pool


def measured(program: Program, shape: Shape, batch: Batch, threads: int, rounds: int = 5) -> float:
    """Seconds of one batch on this machine, with weights of noise."""
    import numpy as np
    from queue_costs import Noise

    from clarion.host import native

    module = native()
    machine = module.Machine(threads, **hierarchy().machine_options)
    spec: Any = program.native_spec(Noise(program))
    for weight in spec["weights"]:
        weight["panels"] = module.can_be_panels(weight["format"], weight["rows"])
    bound = module.Program(machine, spec, threads)
    n, pages = len(batch.sequences), 16
    cache = module.KvCache([(shape.kv_heads, shape.head, shape.head)] * shape.layers, n * pages, 64, "f16")
    positions = [range(begin, begin + of) for begin, of in batch.sequences]
    arguments = (
        [cache],
        np.zeros(batch.n_tokens, np.int32),
        np.array([p for some in positions for p in some], np.int32),
        np.repeat(np.arange(n, dtype=np.int32), [len(some) for some in positions]),
        [np.arange(n * pages, dtype=np.int32).reshape(n, pages)],
        np.arange(batch.n_tokens - batch.n_outputs, batch.n_tokens, dtype=np.int32),
    )
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        bound.run(*arguments)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def check(rounds: int) -> list[dict[str, Any]]:
    """The simulation beside this machine's pool."""
    from queue_costs import measure

    found = measure(rounds)
    costs, rates = Costs.parse(found), found["bandwidth"]
    shape = replace(SHAPES["1B"], layers=8)
    program = program_of(shape)
    rows = []
    for threads in (1, 2):
        cores = (Core(1.0, rates[0]),) * threads
        machine = Machine(f"{threads} cores", cores, (rates[threads - 1],))
        for name, batch in WORK.items():
            works = work_of(program, batch, threads, Tiling(l2=hierarchy().cache_bytes["l2"]))
            simulated = Queue(machine, costs).run(works, asleep=False).seconds
            real = measured(program, shape, batch, threads, rounds)
            rows.append({"work": name, "threads": threads, "measured": real, "simulated": simulated})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [machine.name for machine in MACHINES]
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES), metavar="SHAPE")
    parser.add_argument("--machines", nargs="+", choices=names, default=names, metavar="MACHINE")
    parser.add_argument(
        "--rules",
        nargs="*",
        choices=[variant.name for variant in VARIANTS[1:]],
        metavar="RULE",
        help="also with other rules (default: with all)",
    )
    parser.add_argument("--costs", help="what queue_costs.py wrote (default: of the machine that it names)")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    if arguments.check:
        rows = check(arguments.rounds)
        print("| work | threads | measured | simulated | ratio |\n|---|---:|---:|---:|---:|")
        for row in rows:
            times = [1e3 * row[name] for name in ("measured", "simulated")]
            print(
                f"| {row['work']} | {row['threads']} | {times[0]:.2f} ms | {times[1]:.2f} ms | "
                f"{times[0] / times[1]:.2f} |"
            )
        found: list[Any] = rows
    else:
        costs = Costs()
        if arguments.costs:
            with open(arguments.costs, encoding="utf-8") as file:
                costs = Costs.parse(json.load(file))
        machines = [machine for machine in MACHINES if machine.name in arguments.machines]
        rules = arguments.rules
        others = VARIANTS[1:] if rules == [] else [v for v in VARIANTS if v.name in (rules or ())]
        of = results(arguments.shapes, machines, costs, [VARIANTS[0], *others])
        print(table(of) if rules is None else rules_table(of))
        found = [asdict(result) for result in of]
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
