"""Compare Clarion with llama.cpp on this machine, in turns.

    python benchmarks/compare.py MODEL --llama-python PYTHON [--llama-bench PATH] [--isa avx2,avx512vnni]

PYTHON is an interpreter that has llama-cpp-python, which compiles itself for the machine it is installed on;
this script's own interpreter has Clarion. Every measurement is a process of its own, so never two engines
compute at once; a round takes all of them in turn, every second round backwards, so that whatever else the
machine does meets all of them. Nothing else should run meanwhile: look at the spread before the medians.

Prints a table in Markdown; `--json FILE` keeps every single measurement.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent


@dataclass(slots=True)
class Engine:
    """Something that reads a model file, and what was measured of it with one number of threads."""

    name: str
    command: list[str]
    threads: int
    measured: list[dict[str, Any]] = field(default_factory=list)

    def measure(self) -> None:
        done = subprocess.run(self.command, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{self.name} failed: {' '.join(self.command)}")
        result = json.loads(done.stdout)
        self.measured.append(llama_bench_rates(result) if isinstance(result, list) else result)

    def values(self, key: str) -> list[float]:
        return [measurement[key] for measurement in self.measured if key in measurement]


def llama_bench_rates(tests: list[dict[str, Any]]) -> dict[str, Any]:
    """Read the two tests that `llama-bench -o json` prints."""
    rates = {"prompt" if test["n_gen"] == 0 else "generation": float(test["avg_ts"]) for test in tests}
    return {**rates, "version": tests[0]["build_commit"]}


def engines(arguments: argparse.Namespace, threads: int) -> list[Engine]:
    """Return what is compared; the first llama.cpp in the list is what speeds are held against."""
    sizes = [str(threads), str(arguments.prompt), str(arguments.generate)]
    found = []
    if arguments.llama_python:
        script = HERE / "measure_llama_cpp.py"
        command = [arguments.llama_python, str(script), arguments.model, *sizes]
        found.append(Engine("llama-cpp-python", command, threads))
    if arguments.llama_bench:
        command = [
            arguments.llama_bench,
            "-m",
            arguments.model,
            "-t",
            sizes[0],
            "-p",
            sizes[1],
            "-n",
            sizes[2],
        ]
        found.append(Engine("llama-bench", [*command, "-r", "1", "-o", "json"], threads))
    for isa in arguments.isa.split(","):
        for activations in arguments.activations.split(","):
            script = HERE / "measure_clarion.py"
            command = [sys.executable, str(script), arguments.model, *sizes, isa, activations]
            found.append(Engine(f"Clarion {isa} {activations}", command, threads))
    return found


def table(all_engines: list[Engine]) -> str:
    """Medians with the least and the greatest, ratios of medians, and shares of what the machine can do."""
    rows = [
        (
            "engine",
            "threads",
            "prompt tokens/s",
            "ratio",
            "of products",
            "generation tokens/s",
            "ratio",
            "of bandwidth",
        )
    ]
    rows.append(("---",) + ("---:",) * 7)
    for engine in all_engines:
        beside = [other for other in all_engines if other.threads == engine.threads]
        cells = [engine.name, str(engine.threads)]
        for key, peak, cost in (
            ("prompt", "multiply", "byte_products_per_token"),
            ("generation", "bandwidth", "bytes_per_token"),
        ):
            values = engine.values(key)
            cells.append(f"{median(values):.1f} ({min(values):.1f} to {max(values):.1f})")
            llama = next((other for other in beside if other.name.startswith("llama")), None)
            cells.append(
                f"{median(values) / median(llama.values(key)):.2f}" if llama and llama is not engine else ""
            )
            costs = engine.values(cost)
            cells.append(f"{median(values) * costs[0] / median(engine.values(peak)):.0%}" if costs else "")
        rows.append(tuple(cells))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare Clarion with llama.cpp on this machine, in turns.")
    parser.add_argument("model", help="a GGUF file, such as random_model.py writes")
    parser.add_argument("--llama-python", help="an interpreter that has llama-cpp-python")
    parser.add_argument("--llama-bench", help="a llama-bench program")
    parser.add_argument(
        "--isa", default="avx512vnni", help="Clarion's instruction sets (default: %(default)s)"
    )
    parser.add_argument("--activations", default="high,fast", help="Clarion's (default: %(default)s)")
    parser.add_argument("-p", "--prompt", type=int, default=256, help="prompt tokens (default: %(default)s)")
    parser.add_argument(
        "-n", "--generate", type=int, default=64, help="tokens to generate (default: %(default)s)"
    )
    parser.add_argument("-t", "--threads", default="1,2", help="numbers of threads (default: %(default)s)")
    parser.add_argument("-r", "--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, help="where every measurement goes")
    arguments = parser.parse_args()

    turns = [
        engine for threads in arguments.threads.split(",") for engine in engines(arguments, int(threads))
    ]
    for number in range(arguments.rounds):
        for engine in turns if number % 2 == 0 else reversed(turns):
            engine.measure()
            latest = engine.measured[-1]
            print(
                f"round {number + 1}: {engine.name}, {engine.threads} threads: "
                f"prompt {latest['prompt']:.1f}, generation {latest['generation']:.1f} tokens/s",
                file=sys.stderr,
            )
    if arguments.json:
        report = {
            "model": arguments.model,
            "prompt_tokens": arguments.prompt,
            "generated_tokens": arguments.generate,
            "machine": platform.processor() or platform.machine(),
            "engines": [
                {"name": e.name, "threads": e.threads, "command": e.command, "rounds": e.measured}
                for e in turns
            ],
        }
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    print(table(turns))


if __name__ == "__main__":
    main()
