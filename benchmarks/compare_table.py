"""What the rounds of a comparison say: medians, shares of what the machine can do, ratios; and as Markdown.

The two peaks of a round are the medians of those that Clarion measured beside its speeds in this round, with
as many threads. What one token costs comes from the same model file: bytes of weights that it reads, and
products of its weights with one byte each. So an engine's shares are of the same work, whatever it does.
A model that gives vectors generates nothing: its figures of that are nan, and nothing stands in their cells.
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

    def peak(self, key: str, turn: int) -> float:
        return median(float(engine.rounds[turn][key]) for engine in self.engines if engine.is_clarion)

    def share(self, engine: Engine, speed: Value, cost: str, peak: str) -> float:
        """Part of a peak that a speed in tokens/s is, as the median of the rounds'."""
        each = self.cost(cost)
        rounds = enumerate(engine.rounds)
        return median(speed(measured) * each / self.peak(peak, turn) for turn, measured in rounds)

    def of_products(self, engine: Engine, length: int) -> float:
        return self.share(engine, prompt(length), "products_per_token", "multiply")

    def of_bandwidth(self, engine: Engine) -> float:
        return self.share(engine, generation, "bytes_per_token", "bandwidth")

    def ratio(self, engine: Engine, peer: Engine, speed: Value) -> float:
        """How many times as fast as a peer, as the median of the rounds'."""
        return median(
            speed(ours) / speed(theirs) for ours, theirs in zip(engine.rounds, peer.rounds, strict=True)
        )


def prompt(length: int) -> Value:
    return lambda measured: float(measured["prompt"][str(length)])


def generation(measured: Measured) -> float:
    found = measured["generation"]
    return math.nan if found is None else float(found)


def step(texts: int) -> Value:
    """How many times the seconds of a step of one token are those of a step of several."""

    def seconds(measured: Measured) -> float:
        steps = measured["step"]
        return float(steps[str(texts)] / steps["1"]) if steps else math.nan

    return seconds


def spread(engine: Engine, value: Value) -> Spread:
    return Spread(tuple(map(value, engine.rounds)))


def grouped(engines: Iterable[Engine]) -> list[Beside]:
    """Engines side by side: those of one model and one number of threads."""
    groups: dict[tuple[str, int], list[Engine]] = {}
    for engine in engines:
        groups.setdefault((engine.model, engine.threads), []).append(engine)
    return [Beside(group) for group in groups.values()]


def speeds(groups: Iterable[Beside], work: Work) -> str:
    """Every engine's speeds, and its shares of the peaks."""
    head = ["model", "threads", "engine"]
    for length in work.prompts:
        head += [f"prompt {length}", "of products"]
    head += ["generation", "of bandwidth", *(f"step of {texts}" for texts in work.batches)]
    rows = []
    for group in groups:
        for engine in group.engines:
            row = [group.model, str(group.threads), engine.name]
            for length in work.prompts:
                row += [
                    str(spread(engine, prompt(length))),
                    cell(group.of_products(engine, length), ".0%"),
                ]
            row += [str(spread(engine, generation)), cell(group.of_bandwidth(engine), ".0%")]
            row += [cell(spread(engine, step(texts)).median, ".2f") for texts in work.batches]
            rows.append(row)
    return markdown(head, rows, left=3)


def ratios(groups: Iterable[Beside], work: Work) -> str:
    """Clarion's speeds as multiples of each peer's."""
    head = ["model", "threads", "engine", "peer", *(f"prompt {length}" for length in work.prompts)]
    head.append("generation")
    rows = []
    for group in groups:
        for engine in group.engines:
            for peer in group.peers if engine.is_clarion else ():
                values = [*map(prompt, work.prompts), generation]
                cells = [cell(group.ratio(engine, peer, value), ".2f") for value in values]
                rows.append([group.model, str(group.threads), engine.name, peer.name, *cells])
    return markdown(head, rows, left=4)


def costs(groups: Iterable[Beside]) -> str:
    """What a token of each model takes, and what the machine can do at most: medians of the rounds."""
    head = ["model", "threads", "weights a token", "products a token", "bandwidth", "products a second"]
    rows = []
    for group in groups:
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


def cell(value: float, format: str) -> str:
    return "" if math.isnan(value) else f"{value:{format}}"


def markdown(head: list[str], rows: list[list[str]], left: int) -> str:
    """A table whose first columns are set left, and the rest right."""
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))
