"""Measure the operations with a recurrent state beside what the machine can do at most.

    python benchmarks/recurrent.py [--isa NAME] [--threads 1] [--rounds 7] [--ggml FOLDER] [--json FILE]

Shapes of models: the delta rule of a hybrid with 32 value heads of 128 x 128 and 16 key heads, and with 16 of
both; the scans of Mamba (1536 columns, 16 numbers each) and Mamba-2 (24 heads of 64 x 128); the short
convolutions before them. A prompt is 256 tokens of one layer; generation is one token of 1 and of 8 texts,
through as many layers as together exceed the caches, as a model's do.

The limits are measured first, in loops that do nothing else: products of floats in registers, and numbers
that are loaded, multiplied and stored, in L1 and in memory. The least time of an operation is the largest of
what its products, its loads and stores in L1, and, in generation, its state in memory need. `--ggml` names
the folder with libggml-base.so and libggml-cpu.so, and adds llama.cpp's operations of the same shapes.
Figures are the best of the rounds, since what else runs can only make them worse; with one thread, time is
that of the thread itself.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from measure_ggml_recurrent import GgmlRecurrent

from clarion._native import files
from clarion.host import measures, native
from clarion.host.hierarchy import hierarchy

PROMPT = 256
BEYOND_CACHES = 128 << 20  # bytes of state
L1_BYTES = 16 << 10  # a tile


@dataclass(frozen=True)
class Shape:
    """An operation of a model.

    Attributes:
        widths: of its inputs.
        weights: their shapes.
        parameters: all but the number of its state.
        state, log: numbers of a text's state, and of what is kept of a token.
        products: for each number of the state and each token, those of its own and of e^x.
        changes: how often the state is loaded and stored for a token of a prompt.
    """

    name: str
    op: str
    widths: tuple[int, ...]
    weights: tuple[tuple[int, ...], ...]
    parameters: dict[str, float]
    state: int
    log: int
    products: float
    changes: float


def delta(name: str, n_head_k: int, n_head: int, dim: int) -> Shape:
    widths = (n_head_k * dim, n_head_k * dim, n_head * dim, n_head, n_head)
    sizes = {"n_head": n_head, "n_head_k": n_head_k, "dim_k": dim, "dim_v": dim, "tiled": 0, "scale": 0.1}
    return Shape(name, "delta_rule", widths, (), sizes, n_head * dim * dim, sum(widths[1:]), 4, 1)


def mamba(n: int, d_state: int) -> Shape:
    widths = (n, n, d_state, d_state)
    weights = ((n, d_state), (n,))
    return Shape("Mamba", "selective_scan", widths, weights, {}, n * d_state, 2 * n + d_state, 14, 1)


def mamba_2(n_head: int, dim: int, d_state: int) -> Shape:
    sizes = {"n_head": n_head, "head_dim": dim, "n_group": 1, "d_state": d_state}
    widths = (n_head * dim, n_head, d_state, d_state)
    weights = ((n_head,), (n_head,))
    return Shape(
        "Mamba-2", "state_space_scan", widths, weights, sizes, widths[0] * d_state, sum(widths[:3]), 3, 1
    )


def convolution(n: int, taps: int) -> Shape:
    sizes = {"taps": taps, "silu": 1}
    state = n * (taps - 1)
    # For each column, which has three numbers: four taps, silu's 13 products, and a division as long as 8.
    return Shape(f"convolution of {n}", "causal_conv", (n,), ((n, taps),), sizes, state, n, 25 / 3, 4 / 3)


SHAPES = (
    delta("delta rule 16/32 x 128", 16, 32, 128),
    delta("delta rule 16/16 x 128", 16, 16, 128),
    mamba(1536, 16),
    mamba_2(24, 64, 128),
    convolution(8192, 4),
)


def program(module: Any, threads: int, shape: Shape, layers: int, n: int) -> Any:
    """As many layers of an operation, on the same inputs."""
    rng = np.random.default_rng(0)
    buffers, offset = [], 0
    outputs = (shape.widths[2] if shape.op == "delta_rule" else shape.widths[0],)
    for i, width in enumerate((*shape.widths, *outputs)):
        place = {"rows": "tokens", "width": width, "offset": offset, "slots_per_token": 1}
        buffers.append({"name": f"b{i}", "kind": "f32"} | place)
        offset += n * module.encoded_row_bytes("f32", width)
    weights = [
        {"name": f"w{i}", "format": 0, "rows": rows, "cols": cols, "experts": 1}
        | {"data": -rng.random((rows, cols), np.float32).view(np.uint8).reshape(-1)}
        for i, (rows, cols) in enumerate((1, *size)[-2:] for size in shape.weights)
    ]
    for weight in weights:
        weight["data"] = (-rng.random(weight["rows"] * weight["cols"], np.float32)).view(np.uint8)
    ints = {key: value for key, value in shape.parameters.items() if isinstance(value, int)}
    floats = {key: value for key, value in shape.parameters.items() if isinstance(value, float)}
    spec = {
        "arena_bytes": offset,
        "max_tokens": n,
        "max_outputs": 0,
        "buffers": buffers,
        "weights": weights,
        "states": [(0, layer) for layer in range(layers)],
        "ops": [
            {
                "op": shape.op,
                "inputs": list(range(len(shape.widths))),
                "outputs": [len(shape.widths)],
                "weights": list(range(len(weights))) + [-1] * (shape.op == "causal_conv"),
                "ints": ints | {"state": layer},
                "floats": floats,
                "arrays": {},
            }
            for layer in range(layers)
        ],
    }
    made = module.Program(module.Machine(threads, **hierarchy().machine_options), spec)
    for i, width in enumerate(shape.widths):
        rows = rng.random((n, width), np.float32)
        if shape.op == "delta_rule":
            rows = [rows - 0.5, (rows - 0.5) * (6 / shape.parameters["dim_k"]) ** 0.5, rows, -rows, rows][i]
        made.buffer(f"b{i}")[:] = rows
    return made


class Ours:
    """Runs of texts that go on: a prompt anew each time, generation step by step."""

    def __init__(self, module: Any, threads: int, shape: Shape, layers: int, texts: int, n: int) -> None:
        self._program = program(module, threads, shape, layers, texts * n)
        self._slots = files.SlotStates([(shape.state, shape.log)] * layers, texts, 0)
        self._n, self._texts, self._at = n, texts, 0
        self._zeros, self._nothing = np.zeros(texts * n, np.int32), np.zeros(0, np.int32)
        self._sequences = np.repeat(np.arange(texts, dtype=np.int32), n)
        self._table = np.zeros((texts, 0), np.int32)

    def __call__(self) -> None:
        if self._n > 1:
            self._at = 0
        positions = np.tile(np.arange(self._at, self._at + self._n, dtype=np.int32), self._texts)
        self._program.run(
            [self._slots.native], self._zeros, positions, self._sequences, [self._table], self._nothing
        )
        self._at += self._n


def best(runs: dict[str, Callable[[], object]], rounds: int, threads: int) -> dict[str, float]:
    """The least seconds of each, measured in turns, after one round that does not count."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    seconds = dict.fromkeys(runs, float("inf"))
    for nth in range(rounds + 1):
        for name, run in runs.items():
            start = clock()
            run()
            if nth > 0:
                seconds[name] = min(seconds[name], clock() - start)
    return seconds


def limits(isa: str, threads: int) -> dict[str, float]:
    """Numbers a second: products in registers, and changes in L1 and in memory."""
    measured = measures(isa)
    short, long = 0.001, 0.01  # seconds: less than a scheduler gives at a time
    return {
        "fma": max(measured.fma(threads, short) for _ in range(300)),
        "l1": max(measured.change(threads, short, L1_BYTES) for _ in range(300)) / 4,
        "memory": max(measured.change(threads, long, BEYOND_CACHES // threads) for _ in range(30)) / 4,
    }


def least_seconds(shape: Shape, n: int, peaks: dict[str, float]) -> tuple[float, str]:
    """The least time of a layer for n tokens of a text, and what it is bound by."""
    needs = {
        "products": n * shape.products / peaks["fma"],
        "L1": n * shape.changes / peaks["l1"],
        "memory": (1 / peaks["memory"]) if n == 1 else 0.0,
    }
    bound = max(needs, key=lambda name: needs[name])
    return shape.state * needs[bound], bound


def measure(
    module: Any, threads: int, rounds: int, ggml: GgmlRecurrent | None, peaks: dict[str, float]
) -> list[dict[str, Any]]:
    results = []
    for shape in SHAPES:
        for texts, n in ((1, 1), (8, 1), (1, PROMPT)):
            layers = 1 if n > 1 else -(-BEYOND_CACHES // (4 * shape.state * texts))
            repeats = rounds * (5 if n == 1 else 3)
            runs: dict[str, Callable[[], object]] = {
                "clarion": Ours(module, threads, shape, layers, texts, n)
            }
            if ggml is not None:
                runs["ggml"] = ggml.runs(shape, threads, layers, texts, n)
            limit, bound = least_seconds(shape, n, peaks)
            for engine, seconds in best(runs, repeats, threads).items():
                each = seconds / layers / texts
                results.append(
                    {"operation": shape.name, "texts": texts, "tokens": n, "engine": engine}
                    | {"seconds": each, "bound": bound, "share": limit / each}
                    | {"l1_bytes_per_second": 8 * shape.state * shape.changes * n / each}
                )
    return results


def table(results: list[dict[str, Any]]) -> str:
    """Microseconds of a layer for each text, with the share of the roofline, as a Markdown table."""
    engines = list(dict.fromkeys(r["engine"] for r in results))
    lines = [
        "| operation | tokens | bound by | roofline, µs | "
        + " | ".join(f"{engine}, µs" for engine in engines)
        + " | share | state, GB/s |"
    ]
    lines.append("|---|---|---|" + "---:|" * (3 + len(engines)))
    for first in (r for r in results if r["engine"] == "clarion"):
        where = ("operation", "texts", "tokens")
        row = {r["engine"]: r for r in results if all(r[key] == first[key] for key in where)}
        tokens = f"{first['tokens']}" if first["texts"] == 1 else f"{first['texts']} × {first['tokens']}"
        cells = [f"{1e6 * row[engine]['seconds']:.1f}" for engine in engines]
        lines.append(
            f"| {first['operation']} | {tokens} | {first['bound']} | "
            f"{1e6 * first['seconds'] * first['share']:.1f} | {' | '.join(cells)} | {first['share']:.0%} | "
            f"{first['l1_bytes_per_second'] / 1e9:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--isa")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--ggml", type=Path, help="folder of llama.cpp's shared libraries")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    module = native(args.isa)
    peaks = limits(args.isa, args.threads)
    ggml = GgmlRecurrent(args.ggml) if args.ggml else None
    results = measure(module, args.threads, args.rounds, ggml, peaks)
    print(
        f"{module.ISA}, {args.threads} threads: {peaks['fma'] / 1e9:.0f} G products/s; changed in L1 "
        f"{4 * peaks['l1'] / 1e9:.0f} GB/s, in memory {4 * peaks['memory'] / 1e9:.1f} GB/s"
    )
    print(table(results))
    if args.json:
        args.json.write_text(
            json.dumps({"isa": module.ISA, "threads": args.threads, **peaks, "results": results})
        )


if __name__ == "__main__":
    main()
