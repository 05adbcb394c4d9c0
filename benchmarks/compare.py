"""Compare Clarion with llama.cpp and its relatives on this machine, in turns.

    python benchmarks/compare.py MODEL... --llama-python PYTHON --llama-bench PROGRAM --json FILE --plot FILE

PYTHON is an interpreter that has llama-cpp-python, which compiles itself for the machine it is installed on;
PROGRAM is any `llama-bench`, with arguments of its own and a name before it if wanted, once for each:

    --llama-bench "ik_llama.cpp=/path/to/llama-bench" --llama-bench "ik -rtr=/path/to/llama-bench -rtr 1"

Of one text `llama-bench` measures everything, of several nothing: that takes the `llama-batched-bench` of the
same build under the same name. Without it the cells of several texts stay empty.

    --llama-batched-bench "ik_llama.cpp=/path/to/llama-batched-bench"

`--texts 1,4,16,64` are texts that generate at once, each with a context of its own: one step takes a token of
each and wants logits for all. `--depth 0,4096` measures prompts and generation behind so many tokens, too;
`--cache f16,q8_0` does all of it with each format of keys and values.

This script's own interpreter has Clarion. Every measurement is a process of its own, so never two engines
compute at once; a round takes all of them in turn, every second round backwards, so that whatever else the
machine does meets all of them. Nothing else should run meanwhile: look at the spread before the medians.

Prints tables in Markdown under a head that says of which processor, day and versions they are. `--json` keeps
every single measurement, and `--add` puts more rounds to those of an earlier run on the same processor;
`--rounds 0 --add` measures nothing and prints them again.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from compare_plot import plot
from compare_table import costs, grouped, heading, ratios, speeds
from engines import (
    DEFAULT_CACHE,
    Engine,
    Work,
    add_rounds,
    clarion,
    entries,
    llama_bench,
    llama_cpp_python,
    named_program,
    versions,
)
from measured_work import depths, numbers, texts
from this_machine import disturbance, processor, watched


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", help="GGUF files, such as random_model.py writes")
    parser.add_argument("--llama-python", help="an interpreter that has llama-cpp-python")
    parser.add_argument("--llama-bench", action="append", default=[], metavar="[NAME=]PROGRAM")
    parser.add_argument("--llama-batched-bench", action="append", default=[], metavar="[NAME=]PROGRAM")
    parser.add_argument("--isa", default="avx512vnni", help="Clarion's, as a,b (default: %(default)s)")
    parser.add_argument("--activations", default="high,fast", help="Clarion's (default: %(default)s)")
    parser.add_argument("-p", "--prompts", type=numbers, default=[256], help="(default: 256)")
    parser.add_argument("-n", "--generate", type=int, default=64, help="tokens (default: %(default)s)")
    parser.add_argument(
        "--texts", type=texts, default=[1, 4, 16, 64], help="that generate at once (default: 1,4,16,64)"
    )
    parser.add_argument("--depth", type=depths, default=[0], help="tokens before (default: 0)")
    parser.add_argument(
        "--cache",
        default=DEFAULT_CACHE,
        help="formats of keys and values, as f16,q8_0,q4_0 (default: %(default)s)",
    )
    parser.add_argument("-t", "--threads", type=numbers, default=[1, 2], help="(default: 1,2)")
    parser.add_argument("-r", "--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, help="where every measurement goes")
    parser.add_argument("--add", action="store_true", help="keep the rounds that --json already holds")
    parser.add_argument("--plot", type=Path, help="where an SVG of the shares goes")
    arguments = parser.parse_args()
    if arguments.add and not arguments.json:
        parser.error("--add needs --json")
    batched = dict(map(named_program, arguments.llama_batched_bench))
    if unknown := batched.keys() - {named_program(program)[0] for program in arguments.llama_bench}:
        parser.error(f"--llama-batched-bench: no --llama-bench is called {', '.join(sorted(unknown))}")
    arguments.batched = batched
    return arguments


def engines(arguments: argparse.Namespace, work: Work) -> list[Engine]:
    """What is compared, peers first."""
    found = []
    for model in arguments.models:
        for threads in arguments.threads:
            for cache in arguments.cache.split(","):
                if arguments.llama_python:
                    found.append(llama_cpp_python(model, threads, cache, work, arguments.llama_python))
                found += [
                    llama_bench(model, threads, cache, work, program, arguments.batched)
                    for program in arguments.llama_bench
                ]
                for isa in arguments.isa.split(","):
                    found += [
                        clarion(model, threads, cache, work, isa, activations)
                        for activations in arguments.activations.split(",")
                    ]
    return found


def measure(turns: list[Engine], rounds: int) -> None:
    """Give every engine so many more rounds."""
    for number in range(rounds):
        for engine in turns if number % 2 == 0 else reversed(turns):
            _, others = watched(engine.measure)
            latest = engine.rounds[-1]
            latest["others"] = others
            found = [
                f"prompt {', '.join(f'{rate:.1f}' for rate in prompts.values())} at {depth}"
                for depth, prompts in latest["prompt"].items()
            ]
            found += [f"generation {rate:.1f} at {depth}" for depth, rate in latest["generation"].items()]
            found += [f"{n} texts {rate:.1f}" for n, rate in latest["texts"].items()]
            print(
                f"round {number + 1}: {engine.model}, {engine.threads} threads, {engine.name}: "
                f"{', '.join(found)} tokens/s",
                file=sys.stderr,
            )


def add_earlier(turns: list[Engine], report: dict[str, Any]) -> None:
    """Raises SystemExit: the report is of another processor."""
    if report["processor"] != processor():
        raise SystemExit(f"the earlier rounds are of {report['processor']}, this is {processor()}")
    add_rounds(turns, report)


def report(turns: list[Engine]) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": processor(),
        "versions": versions(turns),
        "engines": list(entries(turns)),
    }


def main() -> None:
    arguments = parse()
    work = Work(tuple(arguments.prompts), arguments.generate, tuple(arguments.texts), tuple(arguments.depth))
    turns = engines(arguments, work)
    if arguments.add and arguments.json.exists():
        add_earlier(turns, json.loads(arguments.json.read_text(encoding="utf-8")))
    measure(turns, arguments.rounds)
    if unmeasured := [engine.name for engine in turns if not engine.rounds]:
        raise SystemExit(f"there is no round of {', '.join(dict.fromkeys(unmeasured))}")
    if arguments.json:
        arguments.json.write_text(json.dumps(report(turns), indent=1) + "\n", encoding="utf-8")
    groups = grouped(turns)
    others = disturbance(measured["others"] for engine in turns for measured in engine.rounds)
    head = heading(processor(), turns, versions(turns))
    print(f"{head}\n- {others}", speeds(groups, work), costs(turns), ratios(groups, work), sep="\n\n")
    if arguments.plot:
        arguments.plot.write_text(plot(groups, max(work.prompts)), encoding="utf-8")


if __name__ == "__main__":
    main()
