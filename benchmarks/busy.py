"""Measure Clarion while other processes keep some of the cores busy.

    python benchmarks/busy.py [MODEL] [--busy 1] [--threads N] [--rounds 5] [--json FILE]

Alone and beside `--busy` processes that do nothing but count, in turns. With c cores, n threads and b busy
processes the system can give Clarion c * n / (n + b) cores where n + b > c: its fair share. What is reported
is the speed beside them as a part of that share of the speed alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import numpy as np

import clarion


def count() -> None:
    while True:
        pass


@contextmanager
def busy(processes: int) -> Iterator[None]:
    others = [
        multiprocessing.get_context("spawn").Process(target=count, daemon=True) for _ in range(processes)
    ]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.join()


def speeds(model: clarion.Model, prompt: list[int], n_generate: int) -> tuple[float, float]:
    """Tokens a second of the prompt, and of what follows one token."""
    fixed: clarion.Options = {"greedy": True, "ignore_eos": True, "detokenize": False}
    first = model.generate(prompt, max_tokens=1, **fixed)
    rest = model.generate(prompt[:1], max_tokens=n_generate + 1, **fixed)
    return first.timings.prompt_rate, rest.timings.generation_rate


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?")
    parser.add_argument("--busy", type=int, default=1)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--generate", type=int, default=48)
    parser.add_argument("--json")
    arguments = parser.parse_args()

    cores = len(os.sched_getaffinity(0))
    with clarion.load(arguments.model, threads=arguments.threads, context=1024) as model:
        model.settle()
        n = model.threads
        share = min(1.0, cores / (n + arguments.busy) if n + arguments.busy > cores else 1.0)
        tokens = np.random.default_rng(0).integers(
            0, model.n_vocab, (2 * arguments.rounds + 1, arguments.prompt)
        )
        prompts = iter(tokens.tolist())
        speeds(model, next(prompts), arguments.generate)  # warm up
        rows = []
        for _ in range(arguments.rounds):
            alone = speeds(model, next(prompts), arguments.generate)
            with busy(arguments.busy):
                beside = speeds(model, next(prompts), arguments.generate)
            rows.append({"alone": alone, "beside": beside})
    parts = [[row["beside"][i] / row["alone"][i] / share for row in rows] for i in (0, 1)]
    print(f"{n} threads on {cores} cores, {arguments.busy} busy: fair share {share:.2f}")
    for name, values in zip(("prompt", "generation"), parts, strict=True):
        spread = f"{min(values):.0%} to {max(values):.0%}"
        print(f"{name:11} {median(values):4.0%} of the fair share ({spread})")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(
                {"threads": n, "cores": cores, "busy": arguments.busy, "share": share, "rounds": rows}, file
            )


if __name__ == "__main__":
    main()
