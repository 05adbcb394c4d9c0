"""What the rounds of a comparison say: medians, shares of what the machine can do, ratios; and as Markdown.

The two peaks of a round are the medians of those that Clarion measured beside its speeds in this round, with
as many threads and the same instructions; for other engines with the instructions that reach most. What one
token costs comes from the same model file: bytes of weights that it reads, and products of its weights with
one byte each. So an engine's shares are of the same work, whatever it does. What an engine did not measure (a
model that gives vectors generates nothing) is nan, and nothing stands in its cell.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from engines import Engine, Measured, Work

Value = Callable[[Measured], float]


@dataclass(frozen=True, slots=True)
class Spread:
    """Values of one figure in all rounds."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.values)

    def __str__(self) -> str:
        if math.isnan(self.median):
            return ""
        if len(self.values) == 1:
            return f"{self.median:.1f}"
        return f"{self.median:.1f} ({min(self.values):.1f} to {max(self.values):.1f})"


@dataclass(frozen=True, slots=True)
class Beside:
    """Engines that read one model with one number of threads, in turns."""

    engines: Sequence[Engine]

    @property
    def model(self) -> str:
        return os.path.basename(self.engines[0].model).removesuffix(".gguf")

    @property
    def threads(self) -> int:
        return self.engines[0].threads

    @property
    def peers(self) -> list[Engine]:
        return [engine for engine in self.engines if not engine.is_clarion]

    def cost(self, key: str) -> float:
        """What one token costs; 0 where nothing counts it, as the products of weights that are floats."""
        return max(float(engine.rounds[0][key]) for engine in self.engines if engine.is_clarion)

    def peak(self, key: str, turn: int, isa: str = "") -> float:
        """With Clarion's module of this name; "": with the one that reaches most."""
        found: dict[str, list[float]] = {}
        for engine in self.engines:
            if engine.is_clarion:
                found.setdefault(engine.isa, []).append(float(engine.rounds[turn][key]))
        return median(found[isa]) if isa else max(map(median, found.values()))

    def share(self, engine: Engine, speed: Value, cost: str, peak: str) -> float:
        """Part of a peak that a speed in tokens/s is, as the median of the rounds'."""
        each = self.cost(cost)
        rounds = enumerate(engine.rounds)
        return median(speed(measured) * each / self.peak(peak, turn, engine.isa) for turn, measured in rounds)

    def of_products(self, engine: Engine, length: int) -> float:
        return self.share(engine, prompt(length), "products_per_token", "multiply")

    def of_bandwidth(self, engine: Engine) -> float:
        return self.share(engine, generation(), "bytes_per_token", "bandwidth")

    def ratio(self, engine: Engine, peer: Engine, speed: Value) -> float:
        """How many times as fast as a peer, as the median of the rounds'."""
        return median(
            speed(ours) / speed(theirs) for ours, theirs in zip(engine.rounds, peer.rounds, strict=True)
        )


def prompt(length: int, depth: int = 0) -> Value:
    """Tokens/s of a prompt behind so many tokens."""
    return lambda measured: float(measured["prompt"].get(str(depth), {}).get(str(length), math.nan))


def generation(depth: int = 0) -> Value:
    """Tokens/s of one text behind so many tokens."""
    return lambda measured: float(measured["generation"].get(str(depth), math.nan))


def together(texts: int) -> Value:
    """Tokens/s of all texts that generate at once."""
    if texts == 1:
        return generation()
    return lambda measured: float(measured["texts"].get(str(texts), math.nan))


def of(value: Value, base: Value) -> Value:
    """One figure as a multiple of another one of the same round."""
    return lambda measured: value(measured) / base(measured)


def figures(work: Work) -> dict[str, Value]:
    """Every speed, under its name in the tables."""
    found = {f"prompt {length}": prompt(length) for length in work.prompts}
    found["generation"] = generation()
    found |= {f"{n} texts": together(n) for n in work.several}
    for depth in work.depths[1:]:
        found |= {f"prompt {length} at {depth}": prompt(length, depth) for length in work.prompts}
        found[f"generation at {depth}"] = generation(depth)
    return found


def spread(engine: Engine, value: Value) -> Spread:
    return Spread(tuple(map(value, engine.rounds)))


def grouped(engines: Iterable[Engine], any_cache: bool = False) -> list[Beside]:
    """Engines side by side: those of one model, one number of threads and one format of the cache, or any."""
    groups: dict[tuple[str, int, str], list[Engine]] = {}
    for engine in engines:
        cache = "" if any_cache else engine.cache
        groups.setdefault((engine.model, engine.threads, cache), []).append(engine)
    return [Beside(group) for group in groups.values()]


def speeds(groups: Iterable[Beside], work: Work) -> str:
    """Every engine's speeds: with shares of the peaks, as multiples of one text, as parts of those without a
    past."""
    values = figures(work)
    head = ["model", "threads", "engine"]
    for name in values:
        head.append(name)
        if name in {f"prompt {length}" for length in work.prompts}:
            head.append("of products")
        elif name == "generation":
            head.append("of bandwidth")
    rows = []
    for group in groups:
        for engine in group.engines:
            row = [group.model, str(group.threads), engine.name]
            for length in work.prompts:
                row += [
                    str(spread(engine, prompt(length))),
                    cell(group.of_products(engine, length), ".0%"),
                ]
            row += [str(spread(engine, generation())), cell(group.of_bandwidth(engine), ".0%")]
            row += [beside(engine, together(n), generation(), "×{:.2f}") for n in work.several]
            for depth in work.depths[1:]:
                for length in work.prompts:
                    row.append(beside(engine, prompt(length, depth), prompt(length), "{:.0%}"))
                row.append(beside(engine, generation(depth), generation(), "{:.0%}"))
            rows.append(row)
    return markdown(head, rows, left=3)


def beside(engine: Engine, value: Value, base: Value, format: str) -> str:
    """A speed, and behind it what it is of another one."""
    speed, ratio = str(spread(engine, value)), spread(engine, of(value, base)).median
    return f"{speed}, {format.format(ratio)}" if speed else ""


def ratios(groups: Iterable[Beside], work: Work) -> str:
    """Clarion's speeds as multiples of each peer's."""
    values = figures(work)
    head = ["model", "threads", "engine", "peer", *values]
    rows = []
    for group in groups:
        for engine in group.engines:
            for peer in group.peers if engine.is_clarion else ():
                cells = [cell(group.ratio(engine, peer, value), ".2f") for value in values.values()]
                rows.append([group.model, str(group.threads), engine.name, peer.name, *cells])
    return markdown(head, rows, left=4)


def costs(engines: Iterable[Engine]) -> str:
    """What a token of each model takes, and what the machine can do at most: medians of the rounds."""
    head = ["model", "threads", "weights a token", "products a token", "bandwidth", "products a second"]
    rows = []
    for group in grouped(engines, any_cache=True):
        peaks = (
            median(group.peak(key, turn) for turn in range(len(group.engines[0].rounds)))
            for key in ("bandwidth", "multiply")
        )
        each = (group.cost(key) for key in ("bytes_per_token", "products_per_token"))
        units = ("MB", "M", "GB/s", "G/s")
        cells = (
            f"{value / scale:.1f} {unit}"
            for value, scale, unit in zip((*each, *peaks), (1e6, 1e6, 1e9, 1e9), units, strict=True)
        )
        rows.append([group.model, str(group.threads), *cells])
    return markdown(head, rows, left=2)


def heading(processor: str, engines: Sequence[Engine], versions: dict[str, str]) -> str:
    """What a table is of: the processor, the days, the rounds, and of each engine its version."""
    dates = sorted({measured["date"] for engine in engines for measured in engine.rounds})
    days = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    n = len(engines[0].rounds)
    lines = [f"{processor}, {days}, {n} round" + "s" * (n > 1) + "; tokens/s:", ""]
    same: dict[str, list[str]] = {}
    for name, version in versions.items():
        same.setdefault(version, []).append(name)
    lines += [f"- {', '.join(names)}: {version}" for version, names in same.items()]
    return "\n".join(lines)


def cell(value: float, format: str) -> str:
    return "" if math.isnan(value) else f"{value:{format}}"


def markdown(head: list[str], rows: list[list[str]], left: int) -> str:
    """A table whose first columns are set left, and the rest right."""
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))
