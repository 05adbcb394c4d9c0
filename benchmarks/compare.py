"""Compare Clarion with llama.cpp and its relatives on this machine, in turns.

    python benchmarks/compare.py MODEL... --llama-python PYTHON --llama-bench PROGRAM --json FILE --plot FILE

PYTHON is an interpreter that has llama-cpp-python, which compiles itself for the machine it is installed on;
PROGRAM is any `llama-bench`, with arguments of its own and a name before it if wanted, once for each:

    --llama-bench "ik_llama.cpp=/path/to/llama-bench" --llama-bench "ik -rtr=/path/to/llama-bench -rtr 1"

This script's own interpreter has Clarion. Every measurement is a process of its own, so never two engines
compute at once; a round takes all of them in turn, every second round backwards, so that whatever else the
machine does meets all of them. Nothing else should run meanwhile: look at the spread before the medians.

Prints tables in Markdown. `--json` keeps every single measurement, and `--add` puts more rounds to those of
an earlier run; `--rounds 0 --add` measures nothing and prints them again.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from compare_plot import plot
from compare_table import costs, grouped, ratios, speeds
from engines import Engine, Work, add_rounds, clarion, entries, llama_bench, llama_cpp_python
from measured_work import numbers


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", help="GGUF files, such as random_model.py writes")
    parser.add_argument("--llama-python", help="an interpreter that has llama-cpp-python")
    parser.add_argument("--llama-bench", action="append", default=[], metavar="[NAME=]PROGRAM")
    parser.add_argument("--isa", default="avx512vnni", help="Clarion's, as a,b (default: %(default)s)")
    parser.add_argument("--activations", default="high,fast", help="Clarion's (default: %(default)s)")
    parser.add_argument("-p", "--prompts", type=numbers, default=[256, 512], help="(default: 256,512)")
    parser.add_argument("-n", "--generate", type=int, default=64, help="tokens (default: %(default)s)")
    parser.add_argument(
        "-b",
        "--batches",
        type=numbers,
        default=[2, 4, 8, 16],
        help="texts of which a step takes a token each (default: 2,4,8,16)",
    )
    parser.add_argument("-t", "--threads", type=numbers, default=[1, 2], help="(default: 1,2)")
    parser.add_argument("-r", "--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, help="where every measurement goes")
    parser.add_argument("--add", action="store_true", help="keep the rounds that --json already holds")
    parser.add_argument("--plot", type=Path, help="where an SVG of the shares goes")
    arguments = parser.parse_args()
    if arguments.add and not arguments.json:
        parser.error("--add needs --json")
    return arguments


def engines(arguments: argparse.Namespace, work: Work) -> list[Engine]:
    """What is compared, peers first."""
    found = []
    for model in arguments.models:
        for threads in arguments.threads:
            if arguments.llama_python:
                found.append(llama_cpp_python(model, threads, work, arguments.llama_python))
            found += [llama_bench(model, threads, work, program) for program in arguments.llama_bench]
            for isa in arguments.isa.split(","):
                found += [
                    clarion(model, threads, work, isa, activations)
                    for activations in arguments.activations.split(",")
                ]
    return found


def measure(turns: list[Engine], rounds: int) -> None:
    """Give every engine so many more rounds."""
    for number in range(rounds):
        for engine in turns if number % 2 == 0 else reversed(turns):
            engine.measure()
            latest = engine.rounds[-1]
            prompts = ", ".join(f"{rate:.1f}" for rate in latest["prompt"].values())
            generation = latest["generation"]
            written = "" if generation is None else f", generation {generation:.1f}"
            print(
                f"round {number + 1}: {engine.model}, {engine.threads} threads, {engine.name}: "
                f"prompt {prompts}{written} tokens/s",
                file=sys.stderr,
            )


def processor() -> str:
    """The name that the system gives the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def report(turns: list[Engine]) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": processor(),
        "engines": list(entries(turns)),
    }


def main() -> None:
    arguments = parse()
    work = Work(tuple(arguments.prompts), arguments.generate, tuple(arguments.batches))
    turns = engines(arguments, work)
    if arguments.add and arguments.json.exists():
        add_rounds(turns, json.loads(arguments.json.read_text(encoding="utf-8")))
    measure(turns, arguments.rounds)
    if arguments.json:
        arguments.json.write_text(json.dumps(report(turns), indent=1) + "\n", encoding="utf-8")
    groups = grouped(turns)
    print(speeds(groups, work), costs(groups), ratios(groups, work), sep="\n\n")
    if arguments.plot:
        arguments.plot.write_text(plot(groups, max(work.prompts)), encoding="utf-8")


if __name__ == "__main__":
    main()
