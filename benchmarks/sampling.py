"""Measure how long choosing one token takes.

    python benchmarks/sampling.py [--vocabulary 150000] [--rounds 41] [--filters NAME,...] [--json FILE]

Each combination of filters draws from each row of logits, in turns, and twice: the first draw brings the
logits into the caches, where a model leaves them, the second is timed. Medians in milliseconds, one core. The
rows: `flat` and `model` are normal with deviations 0.1 and 3, `certain` has one logit 40 above such a row,
`equal` is one value. The temperature is 0.8, and what a combination does not name is off. `penalties` are the
defaults with repetition penalty and DRY over 8000 tokens.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from clarion._native import sampling
from clarion.runtime.sampling import Parameters

OFF: dict[str, Any] = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 1}
FILTERS: dict[str, dict[str, Any]] = {
    "greedy": {"greedy": True},
    "temperature": {},
    "defaults": {"top_k": 40, "top_p": 0.95, "min_p": 0.05},
    "penalties": {
        "top_k": 40,
        "top_p": 0.95,
        "min_p": 0.05,
        "repeat_penalty": 1.1,
        "penalty_window": -1,
        "dry_multiplier": 0.8,
    },
    "top-p 0.95": {"top_p": 0.95},
    "top-p 0.5": {"top_p": 0.5},
    "min-p 0.05": {"min_p": 0.05},
    "top-p + min-p": {"top_p": 0.95, "min_p": 0.05},
    "typical-p 0.9": {"typical_p": 0.9},
    "typical-p 0.2": {"typical_p": 0.2},
    "typical-p + top-p + min-p": {"typical_p": 0.9, "top_p": 0.95, "min_p": 0.05},
    "top-k 100000": {"top_k": 100_000},
    "all four": {"top_k": 100_000, "typical_p": 0.95, "top_p": 0.95, "min_p": 0.05},
}


def rows(n: int) -> dict[str, np.ndarray]:
    normal = np.random.default_rng(0).standard_normal(n)
    certain = 3.0 * normal
    certain[n // 2] += 40.0
    logits = {"flat": 0.1 * normal, "model": 3.0 * normal, "certain": certain, "equal": np.zeros(n)}
    return {name: row.astype(np.float32) for name, row in logits.items()}


def measure(n: int, names: list[str], rounds: int) -> dict[str, dict[str, float]]:
    """Medians in milliseconds: filters -> row -> time of one token."""
    sampler, logits = sampling.Sampler(n), rows(n)
    history = np.random.default_rng(1).integers(0, n, 8000).astype(np.int32)
    states = {}
    for name in names:
        states[name] = sampling.SamplerState(n, Parameters(**{**OFF, **FILTERS[name]}).native())
        states[name].extend(history)
    seconds: dict[tuple[str, str], list[float]] = {(name, row): [] for name in names for row in logits}
    for _ in range(rounds):
        for (name, row), times in seconds.items():
            sampler.sample(states[name], logits[row])
            begin = time.perf_counter()
            sampler.sample(states[name], logits[row])
            times.append(time.perf_counter() - begin)
    return {name: {row: median(seconds[name, row]) * 1e3 for row in logits} for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocabulary", type=int, default=150_000)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--filters", default=",".join(FILTERS))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results = measure(args.vocabulary, args.filters.split(","), args.rounds)
    print(f"{'ms':26}" + "".join(f"{row:>10}" for row in next(iter(results.values()))))
    for name, times in results.items():
        print(f"{name:26}" + "".join(f"{ms:10.3f}" for ms in times.values()))
    if args.json:
        args.json.write_text(
            json.dumps({"vocabulary": args.vocabulary, "milliseconds": results}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
