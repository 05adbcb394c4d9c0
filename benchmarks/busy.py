"""Measure Clarion while other processes keep some of the cores busy.

    python benchmarks/busy.py [MODEL] [--busy 1] [--threads N] [--rounds 5] [--json FILE]

Alone and beside `--busy` processes that do nothing but count, in turns. With c cores, n threads and b busy
processes the system can give Clarion c * n / (n + b) cores where n + b > c: its fair share. What is reported
is the speed beside them as a part of that share of the speed alone; and the same for each second of processor
time that Clarion got, since the system may give less than the share: two threads of one process may well stay
on one core while the other process keeps the other.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
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


Speed = tuple[float, float]  # tokens a second, and the cores that they took: processor time over time


def speeds(
    model: clarion.Model, prompts: Iterator[list[int]], n_generate: int, seconds: float
) -> list[Speed]:
    """Of prompts, and of what follows one token, each over so many seconds: many slices of time."""
    fixed: clarion.Options = {"greedy": True, "ignore_eos": True, "detokenize": False}
    found = []
    for n_prompt, n in ((None, 1), (1, n_generate + 1)):
        begin, computed = time.perf_counter(), time.process_time()
        tokens, spent = 0, 0.0
        while spent < seconds:
            timings = model.generate(next(prompts)[:n_prompt], max_tokens=n, **fixed).timings
            some, rate = (
                (timings.prompt_tokens, timings.prompt_rate)
                if n_prompt is None
                else (n_generate, timings.generation_rate)
            )
            tokens += some
            spent += some / rate
        cores = (time.process_time() - computed) / (time.perf_counter() - begin)
        found.append((tokens / spent, cores))
    return found


def random_prompts(n_vocab: int, length: int) -> Iterator[list[int]]:
    """No two begin alike: nothing of one is reused for another."""
    generator = np.random.default_rng(0)
    while True:
        yield generator.integers(0, n_vocab, length).tolist()


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
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement, at least")
    parser.add_argument("--json")
    arguments = parser.parse_args()

    cores = len(os.sched_getaffinity(0))
    with clarion.load(arguments.model, threads=arguments.threads, context=1024) as model:
        model.settle()
        n = model.threads
        share = min(1.0, cores / (n + arguments.busy) if n + arguments.busy > cores else 1.0)
        prompts = random_prompts(model.n_vocab, arguments.prompt)

        def measure() -> list[Speed]:
            return speeds(model, prompts, arguments.generate, arguments.seconds)

        measure()  # warm up
        rows = []
        for _ in range(arguments.rounds):
            alone = measure()
            with busy(arguments.busy):
                beside = measure()
            rows.append({"alone": alone, "beside": beside})
    print(f"{n} threads on {cores} cores, {arguments.busy} busy: fair share {share:.2f}")
    for i, name in enumerate(("prompt", "generation")):
        pairs = [(row["alone"][i], row["beside"][i]) for row in rows]
        parts = [beside[0] / alone[0] / share for alone, beside in pairs]
        each = [beside[0] / beside[1] / (alone[0] / alone[1]) for alone, beside in pairs]
        got = [median(pair[j][1] for pair in pairs) for j in (0, 1)]
        print(
            f"{name:11} {median(parts):4.0%} of the fair share ({min(parts):.0%} to {max(parts):.0%}); "
            f"cores {got[0]:.2f} alone, {got[1]:.2f} beside; {median(each):.0%} per core"
        )
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(
                {"threads": n, "cores": cores, "busy": arguments.busy, "share": share, "rounds": rows}, file
            )


if __name__ == "__main__":
    main()
