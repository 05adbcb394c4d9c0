"""Measure how long a model takes to its first token.

    python benchmarks/start.py MODEL [--weights moving,mapped,copied] [--cold] [--rounds 3] [--json FILE]

The file lies in the system's page cache, or with `--cold` does not. Each measurement is a process of its own:
`clarion run` with a prompt of 16 tokens, from its start until it prints. What stands beside it are the parts,
from another process: opening the file, loading the model, making the tokenizer, the first prompt, another one
after that (its arithmetic alone), the time until all weights are where they stay, and the most memory that
the process had, mapped pages included. `over` is what the first token cost beyond the arithmetic.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

PROMPT_TOKENS = 16


def parts(path: str, weights: str) -> dict[str, float]:
    """Measured in this process, which has just begun."""
    begin = time.perf_counter()
    import numpy as np

    import clarion
    from clarion.gguf import File

    imported = time.perf_counter()
    with File.open(path):
        opened = time.perf_counter()
    with clarion.load(path, weights=weights) as model:
        loaded = time.perf_counter()
        n_text_tokens = len(model.tokenize("The King's son went out into the wide world."))
        tokenized = time.perf_counter()
        first, *others = np.random.default_rng(0).integers(0, model.n_vocab, (4, PROMPT_TOKENS)).tolist()
        one: clarion.Options = {"greedy": True, "max_tokens": 1, "ignore_eos": True, "detokenize": False}
        seconds = model.generate(first, **one).timings.first_token
        model.settle()
        settled = time.perf_counter()
        again = min(model.generate(other, **one).timings.first_token for other in others)
        assert n_text_tokens > 0
    return {
        "import": imported - begin,
        "open": opened - imported,
        "load": loaded - opened,
        "tokenizer": tokenized - loaded,
        "prompt": seconds,
        "arithmetic": again,
        "settled": settled - begin,
        "own_memory": _own_memory(),
    }


def _own_memory() -> float:
    """Bytes of memory that was this process's at most, pages of the mapped file included."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024.0
    return 0.0


def run(path: str, weights: str) -> float:
    """Seconds until `clarion run` prints."""
    text = "There was once a poor mill"
    command = [
        sys.executable,
        "-m",
        "clarion",
        "run",
        "-m",
        path,
        "-p",
        text,
        "-n",
        "1",
        "--weights",
        weights,
    ]
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        seconds = time.perf_counter() - begin
        process.stdout.read()  # a pipe closed under it would be its failure
    if process.returncode != 0:
        raise SystemExit(f"failed: {' '.join(command)}")
    return seconds


def place(path: str, cold: bool) -> None:
    """The file into the page cache, or out of it."""
    if cold:
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    else:
        buffer = bytearray(1 << 24)
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--weights", default="moving,mapped,copied")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--parts", help=argparse.SUPPRESS)  # measures in this process, and prints JSON
    parser.add_argument("--json")
    arguments = parser.parse_args()
    if arguments.parts:
        print(json.dumps(parts(arguments.model, arguments.parts)))
        return
    choices = arguments.weights.split(",")
    measured: dict[str, list[dict[str, float]]] = {weights: [] for weights in choices}
    for _ in range(arguments.rounds):
        for weights in choices:
            place(arguments.model, arguments.cold)
            seconds = run(arguments.model, weights)
            place(arguments.model, arguments.cold)
            command = [sys.executable, __file__, arguments.model, "--parts", weights]
            found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
            measured[weights].append({"run": seconds, "over": seconds - found["arithmetic"], **found})
    names = list(next(iter(measured.values()))[0])
    print("| weights | " + " | ".join(names) + " |")
    print("|---|" + "---:|" * len(names))
    for weights, rows in measured.items():
        cells = [median(row[name] for row in rows) for name in names]
        texts = [
            f"{cell / 1e9:.1f} GB" if name == "own_memory" else f"{cell:.2f} s"
            for name, cell in zip(names, cells, strict=True)
        ]
        print(f"| {weights} | " + " | ".join(texts) + " |")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
