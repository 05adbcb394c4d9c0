"""What can be compared: how each engine is asked for one measurement, and how its answer is read."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Measured = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Work:
    """What every engine does."""

    prompts: tuple[int, ...]
    generated: int
    batches: tuple[int, ...]

    def arguments(self) -> list[str]:
        lists = [",".join(map(str, numbers)) for numbers in (self.prompts, self.batches)]
        return ["-p", lists[0], "-n", str(self.generated), "-b", lists[1]]


@dataclass(slots=True)
class Engine:
    """Something that reads a model file with a number of threads, and one measurement of each round."""

    name: str
    model: str
    threads: int
    command: list[str]
    rounds: list[Measured] = field(default_factory=list)

    @property
    def is_clarion(self) -> bool:
        return self.name.startswith("Clarion")

    def measure(self) -> None:
        """Measure once more.

        Raises:
            SystemExit: the engine failed; its own message stands above.
        """
        done = subprocess.run(self.command, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{self.name} failed: {shlex.join(self.command)}")
        answer = json.loads(done.stdout)
        self.rounds.append(from_llama_bench(answer) if isinstance(answer, list) else answer)


def from_llama_bench(tests: list[dict[str, Any]]) -> Measured:
    """Read what `llama-bench -o json` prints: a prompt of a few tokens is one step of so many."""
    prompts = {int(test["n_prompt"]): test for test in tests if test["n_gen"] == 0}
    alone = next(test for test in tests if test["n_prompt"] == 0)
    return {
        "prompt": {str(n): float(test["avg_ts"]) for n, test in prompts.items()},
        "generation": float(alone["avg_ts"]),
        "step": {
            "1": 1 / float(alone["avg_ts"]),
            **{str(n): n / float(test["avg_ts"]) for n, test in prompts.items()},
        },
        "version": tests[0]["build_commit"],
    }


def clarion(model: str, threads: int, work: Work, isa: str, activations: str) -> Engine:
    command = [sys.executable, str(HERE / "measure_clarion.py"), model, "-t", str(threads)]
    command += [*work.arguments(), "--isa", isa, "--activations", activations]
    return Engine(f"Clarion {isa} {activations}", model, threads, command)


def llama_cpp_python(model: str, threads: int, work: Work, python: str) -> Engine:
    command = [python, str(HERE / "measure_llama_cpp.py"), model, "-t", str(threads), *work.arguments()]
    return Engine("llama-cpp-python", model, threads, command)


def llama_bench(model: str, threads: int, work: Work, program: str) -> Engine:
    """`program` is a command with its own arguments, behind a name for the tables if it has one."""
    name, equals, words = program.rpartition("=")
    command = shlex.split(words)
    prompts = ",".join(map(str, (*work.prompts, *work.batches)))
    shared = ["-m", model, "-t", str(threads), "-p", prompts, "-n", str(work.generated), "-r", "1"]
    default = " ".join([os.path.basename(command[0]), *command[1:]])
    return Engine(name if equals else default, model, threads, [*command, *shared, "-o", "json"])


def add_rounds(engines: list[Engine], report: dict[str, Any]) -> None:
    """Give the engines the rounds that an earlier report has of the same commands."""
    earlier = {tuple(entry["command"]): entry["rounds"] for entry in report["engines"]}
    for engine in engines:
        engine.rounds.extend(earlier.get(tuple(engine.command), ()))


def entries(engines: list[Engine]) -> Iterator[dict[str, Any]]:
    for engine in engines:
        yield {
            "name": engine.name,
            "model": engine.model,
            "threads": engine.threads,
            "command": engine.command,
            "rounds": engine.rounds,
        }
