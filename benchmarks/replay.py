"""Measure what the engine adds to the program: texts generated together, and their batches run again alone.

    python benchmarks/replay.py [MODEL] [--texts 32] [--tokens 128] [--rounds 15] [--threads N] [--json FILE]

In each round the model generates all texts, from the call to the last completion, while every batch is
recorded. Then the executor runs the same batches once more, with nothing between them: no scheduler, no
sampling, no text. The ratio is the engine's speed as a part of the replay's; the two take turns, and the
median of all rounds counts.
"""

from __future__ import annotations

import argparse
import json
import time
from array import array
from pathlib import Path
from statistics import median
from typing import Any

import clarion


class Recorder:
    """Stands between an engine and its executor, and keeps each batch."""

    def __init__(self, executor: Any) -> None:
        self.batches: list[tuple[Any, ...]] = []
        self._run = executor.run
        executor.run = self.run

    def run(self, tokens: Any, positions: Any, slots: Any, tables: Any, outputs: Any, draws: Any) -> Any:
        # The engine makes the other parts anew for each batch; the tables are those that it changes.
        copies = [memoryview(array("i", t.tobytes())).cast("B").cast("i", t.shape) for t in tables]
        self.batches.append((tokens, positions, slots, copies, outputs))
        return self._run(tokens, positions, slots, tables, outputs, draws)

    def replay(self) -> float:
        """Seconds that the recorded batches take alone."""
        started = time.perf_counter()
        for batch in self.batches:
            self._run(*batch)
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?")
    parser.add_argument("--texts", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    prompts = [f"Once upon a time there were {i} kings" for i in range(args.texts)]
    engine_s, replay_s = [], []
    context = args.tokens + 64
    with clarion.load(
        args.model,
        threads=args.threads,
        context=context,
        cache_tokens=2 * args.texts * context,
        outputs=args.texts,
    ) as model:
        model.generate(prompts, max_tokens=8, ignore_eos=True, seed=0)
        model.settle()
        recorder = Recorder(model._engine._executor)
        for seed in range(args.rounds):
            recorder.batches.clear()
            started = time.perf_counter()
            model.generate(prompts, max_tokens=args.tokens, ignore_eos=True, seed=seed)
            engine_s.append(time.perf_counter() - started)
            replay_s.append(recorder.replay())
        path, n_batches, isa, threads = model.path.name, len(recorder.batches), model.isa, model.threads

    ratios = [alone / whole for alone, whole in zip(replay_s, engine_s, strict=True)]
    report = {
        "model": path,
        "isa": isa,
        "threads": threads,
        "texts": args.texts,
        "tokens": args.tokens,
        "batches": n_batches,
        "engine_s": median(engine_s),
        "replay_s": median(replay_s),
        "ratio": median(ratios),
        "ratios": [round(ratio, 3) for ratio in sorted(ratios)],
    }
    print(json.dumps(report, indent=2))
    if args.json is not None:
        args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
