"""What a long past costs: prompts and generation by length and by format of the KV cache, beside llama.cpp.

    python benchmarks/attention.py MODEL [--llama-python PYTHON] [--kv f16,q8_0] [--activations high,fast]

Every measurement is a process of its own; a round takes all of them in turn, every second round backwards.
Prints a table in Markdown; `--json FILE` keeps every single measurement.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent


def table(rows: list[dict[str, Any]], prompts: list[str], contexts: list[str]) -> str:
    """Medians: milliseconds a token, the last prompt against the first, and how fast the cache is read."""
    head = ["engine", "cache"]
    head += [f"prompt {n}" for n in prompts] + ["ratio"]
    head += [f"at {n}" for n in contexts] + [f"cache at {contexts[-1]}", "of bandwidth"]
    lines = [head, ["---", "---"] + ["---:"] * (len(head) - 2)]
    for row in rows:
        rounds = row["rounds"]

        def milliseconds(kind: str, n: str, rounds: list[dict[str, Any]] = rounds) -> float:
            return 1e3 * median(found[kind][n] for found in rounds)

        cells = [row["name"], row["kv"]]
        cells += [f"{milliseconds('prompt', n):.2f}" for n in prompts]
        cells.append(f"{milliseconds('prompt', prompts[-1]) / milliseconds('prompt', prompts[0]):.2f}")
        cells += [f"{milliseconds('generation', n):.1f}" for n in contexts]
        if "kv_rate" in rounds[0]:
            rate = median(found["kv_rate"][contexts[-1]] for found in rounds)
            share = median(found["kv_rate"][contexts[-1]] / found["bandwidth"] for found in rounds)
            cells += [f"{rate / 1e9:.1f} GB/s", f"{share:.0%}"]
        else:
            cells += ["", ""]
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="What a long past costs, by length and format of the cache.")
    parser.add_argument("model", help="a GGUF file, such as random_model.py writes")
    parser.add_argument("--llama-python", help="an interpreter that has llama-cpp-python")
    parser.add_argument("--llama-kv", default="f16,q8_0", help="llama.cpp's caches (default: %(default)s)")
    parser.add_argument("--kv", default="f16,bf16,q8_0,q4_0,f32", help="Clarion's (default: %(default)s)")
    parser.add_argument("--isa", default="avx512vnni", help="(default: %(default)s)")
    parser.add_argument("--activations", default="high,fast", help="(default: %(default)s)")
    parser.add_argument(
        "--prompts", default="512,1024,2048,4096", help="multiples of 512 (default: %(default)s)"
    )
    parser.add_argument("--contexts", default="512,2048,8192", help="multiples of 512 (default: %(default)s)")
    parser.add_argument("-t", "--threads", default="2", help="(default: %(default)s)")
    parser.add_argument("-r", "--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, help="where every measurement goes")
    arguments = parser.parse_args()

    lists = [arguments.prompts, arguments.contexts]
    rows: list[dict[str, Any]] = []
    if arguments.llama_python:
        for kv in arguments.llama_kv.split(","):
            script = str(HERE / "measure_attention_llama_cpp.py")
            command = [arguments.llama_python, script, arguments.model, arguments.threads, kv, *lists]
            rows.append({"name": "llama-cpp-python", "kv": kv, "command": command, "rounds": []})
    for activations in arguments.activations.split(","):
        for kv in arguments.kv.split(","):
            script = str(HERE / "measure_attention.py")
            options = [arguments.threads, arguments.isa, activations, kv]
            command = [sys.executable, script, arguments.model, *options, *lists]
            rows.append({"name": f"Clarion {activations}", "kv": kv, "command": command, "rounds": []})
    for number in range(arguments.rounds):
        for row in rows if number % 2 == 0 else reversed(rows):
            done = subprocess.run(row["command"], stdout=subprocess.PIPE, text=True)
            if done.returncode != 0:
                raise SystemExit(f"failed: {' '.join(row['command'])}")
            row["rounds"].append(json.loads(done.stdout))
            print(f"round {number + 1}: {row['name']} {row['kv']}", file=sys.stderr)
    if arguments.json:
        report = {
            "model": arguments.model,
            "machine": platform.processor() or platform.machine(),
            "threads": int(arguments.threads),
            "measurements": rows,
        }
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    print(table(rows, arguments.prompts.split(","), arguments.contexts.split(",")))


if __name__ == "__main__":
    main()
