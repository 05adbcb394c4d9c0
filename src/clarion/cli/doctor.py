"""`clarion doctor`: what Clarion found on this machine, and what it measured."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from clarion.cli import options

if TYPE_CHECKING:
    from clarion.host.caches import Cache
    from clarion.host.hierarchy import Hierarchy
    from clarion.host.record import Record
    from clarion.runtime.measure import Measurement


@click.command()
@click.option("--measure", "measures", is_flag=True, help="Measure bandwidth, products and the best threads.")
@click.option("--even-if-busy", is_flag=True, help="With --measure: record beside other work as well.")
@options.isa
@options.as_json
@options.debug
def doctor(measures: bool, even_if_busy: bool, isa: str | None, as_json: bool) -> None:
    """Says what Clarion found on this machine: the native module it uses and why, cores, caches, memory.

    With --measure it also measures how fast memory is read and products are computed, and with how many
    threads, in some ten seconds. Later runs use these figures. Other work on the machine should rest
    meanwhile: where it takes processors, nothing is recorded, and standard error says so.
    """
    import os
    import platform

    from clarion import __version__
    from clarion.host import choose, processor_name
    from clarion.host.hierarchy import hierarchy
    from clarion.host.record import stored

    if even_if_busy and not measures:
        raise click.UsageError("--even-if-busy goes with --measure")
    used = choose(isa).name
    done = _measure(used, even_if_busy) if measures else None
    if as_json:
        from clarion.host.describe import describe

        report = describe(isa)
        print(json.dumps(report if done is None else report | {"measurement": done.report()}))
        return
    found = hierarchy()
    wanted = os.environ.get("CLARION_ISA")
    reason = f"CLARION_ISA={wanted}" if wanted else "the best that this processor can run"
    record, note = stored(used)
    rows = [
        ("clarion", f"{__version__}, Python {platform.python_version()}, {platform.platform()}"),
        ("processor", processor_name()),
        ("module", f"{used}: {f'--isa {isa}' if isa else reason}"),
        ("", f"    {_sizes(used)}"),
        *(("", line) for line in _others(used)),
        ("cores", _cores(found)),
        ("caches", _caches(found)),
        ("memory", _memory(found)),
        ("threads", _threads(record)),
        *zip(("measured", *[""] * 100), _measured(record, note), strict=False),
    ]
    if done is not None and not done.recorded:
        lines = _measured(done.measurement.record, "")
        lines[0] = f"{lines[0]}, not recorded: {done.measurement.disturbed}"
        rows += zip(("just now", *[""] * 100), lines, strict=False)
    for name, text in rows:
        print(f"{name:<11}{text}")


@dataclass(frozen=True, slots=True)
class _Done:
    """What was measured, and whether it was recorded."""

    measurement: Measurement
    recorded: bool

    def report(self) -> dict[str, Any]:
        """Both as plain values."""
        return {
            "recorded": self.recorded,
            "disturbed": self.measurement.disturbed,
            "others": self.measurement.others,
            "spread": self.measurement.spread,
            "record": asdict(self.measurement.record),
        }


def _measure(module: str, even_if_busy: bool) -> _Done:
    from clarion.gguf.writable import check_writable
    from clarion.host import record
    from clarion.runtime.measure import measure

    place = record.path(record.this_machine(module))
    place.parent.mkdir(parents=True, exist_ok=True)
    check_writable(place)

    shows = sys.stderr.isatty()

    def progress(text: str) -> None:
        if shows:
            print(f"\r\x1b[Kmeasuring: {text}", end="", file=sys.stderr, flush=True)

    try:
        result = measure(module, progress)
    finally:
        if shows:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    recorded = even_if_busy or not result.disturbed
    if recorded:
        record.store(result.record)
    if result.disturbed:
        advice = "recorded all the same" if recorded else "not recorded; try again when it rests"
        print(f"clarion: this machine is busy, {result.disturbed}: {advice}", file=sys.stderr)
    return _Done(result, recorded)


def _others(used: str) -> list[str]:
    """The other modules for processors like this one."""
    from clarion.host import choices, processor_family

    lines = []
    for choice in choices():
        if choice.name == used or choice.family not in (processor_family(), "any"):
            continue
        if choice.missing_features:
            state = "the processor lacks " + ", ".join(choice.missing_features)
        else:
            state = f"usable, {_sizes(choice.name)}" if choice.installed else "not part of this installation"
        lines.append(f"{choice.name}: {state}")
    return lines


def _sizes(isa: str) -> str:
    from clarion.host import module_sizes

    return ", ".join(f"{name} {size / 1000:.1f} KB" for name, size in module_sizes(isa).items())


def _cores(found: Hierarchy) -> str:
    import os

    from clarion.host.numa import free_because
    from clarion.host.threads import cpu_quota, default_threads

    quota = cpu_quota()
    granted = "none" if quota is None else f"{quota:.2f} processors"
    nodes = "1 NUMA node"
    if len(found.nodes) > 1:
        free = free_because(default_threads())
        nodes = f"{len(found.nodes)} NUMA nodes, "
        nodes += f"threads not kept on them: {free}" if free else "threads kept on them"
    processors = f"{len(found.processors)} of {os.cpu_count()} processors"
    return f"{len(found.cores)}, with {processors}; {nodes}; quota: {granted}"


def _caches(found: Hierarchy) -> str:
    lines = ", ".join(str(n) for n in sorted({cache.line for cache in found.caches}))
    texts = ", ".join(_cache(cache) for cache in found.caches)
    source = (
        "assumed, the system does not tell" if found.caches_from == "assumed" else f"from {found.caches_from}"
    )
    return f"{texts}; lines of {lines} bytes ({source})"


def _cache(cache: Cache) -> str:
    size = f"{cache.size >> 20} MiB" if cache.size % (1 << 20) == 0 else f"{cache.size / 1024:.0f} KiB"
    return f"L{cache.level} {size}" + (f" for {cache.cores} cores" if cache.cores > 1 else "")


def _memory(found: Hierarchy) -> str:
    from clarion.host.memory import memory

    uses = {"always": "always", "madvise": "where asked for", "never": "never"}
    pages = found.huge_pages
    huge = f"{pages.size >> 20} MiB, {uses[pages.use]}" if pages else "none"
    size = memory()
    return f"{size.total / 1e9:.1f} GB, {size.available / 1e9:.1f} GB available; huge pages: {huge}"


def _threads(record: Record | None) -> str:
    from clarion.host.threads import default_threads

    if record is None:
        return f"{default_threads()}: one for each core that may be used"
    return f"{record.best_threads}: the fewest that measured about as fast as any"


def _measured(record: Record | None, note: str) -> list[str]:
    if record is None:
        return [f"{note}: ignored" if note else "nothing yet: clarion doctor --measure"]
    header = ("threads", "read GB/s", "products G/s", "generation GB/s", "prompt products G/s")
    rows = [
        (
            str(rates.threads),
            *(
                f"{value / 1e9:.1f}"
                for value in (rates.bandwidth, rates.multiply, rates.generation, rates.prompt)
            ),
        )
        for rates in record.rates
    ]
    return [
        record.date,
        *(
            "  ".join(f"{cell:>{len(name)}}" for cell, name in zip(row, header, strict=True))
            for row in (header, *rows)
        ),
    ]
