"""Measure the product of each weight format with one token and with many, beside what the machine can do.

    python benchmarks/kernels.py [--isa NAME] [--formats Q4_K,IQ2_S] [--ggml FOLDER] [--json FILE]

For each format and kind of activations: bytes of weights a second with 1 and with 8 tokens, from matrices
that together are larger than any cache, and products of a weight with an activation a second with 256
tokens. `--ggml` names the folder with libggml-base.so and libggml-cpu.so (llama-cpp-python: site-
packages/llama_cpp/lib), and adds llama.cpp's product of the same shapes, measured in turns with ours.
Weights are random bytes; figures are the best of the rounds, since what else runs can only make them worse.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measure_ggml import Ggml
from measured_work import numbers

from clarion._native import files
from clarion.host import native
from clarion.host.hierarchy import hierarchy
from clarion.runtime.measure import bandwidth, multiply_peak

COLS = 2048
MATRICES, MATRIX_BYTES = 8, 16 << 20  # 128 MB together
MANY_ROWS = 1024
TOKENS = (1, 8, 256)
MANY = 64  # from so many tokens on, products are what bounds
KINDS = ("fast", "high", "f32")
MXFP4 = 39  # its GGUF type
LINE = 64  # bytes of a cache line


def random_bytes(n: int, type_id: int) -> np.ndarray:
    """Bytes that are finite weights in every format: no exponent is above one half of its range.

    Those of MXFP4 are scales themselves, and none is so small that its products are subnormal numbers, which
    no model has and which take a processor many times as long.
    """
    least = 32 if type_id == MXFP4 else 0
    return np.random.default_rng(n).integers(least, 64, n, dtype=np.uint8)


def interleaved(module: Any, type_id: int, rows: np.ndarray) -> np.ndarray:
    """The same as panels, as copies of weights are: from a cache line's begin on."""
    room = np.empty(rows.size + LINE, np.uint8)
    panels = room[-room.ctypes.data % LINE :][: rows.size]
    module.interleave(type_id, COLS, rows, panels)
    return panels


def program(
    module: Any, threads: int, type_id: int, row_bytes: int, rows: int, matrices: int, kind: str, n: int
) -> Any:
    """A program that multiplies n tokens with some matrices [rows, COLS], one after the other."""
    buffers, offset = [], 0
    for name, width, of in (("x", COLS, "f32"), ("a", COLS, kind), ("y", rows, "f32")):
        place = {"rows": "tokens", "width": width, "offset": offset, "slots_per_token": 1}
        buffers.append({"name": name, "kind": of} | place)
        offset += n * module.encoded_row_bytes(of, width)
    # In huge pages, by numpy.
    weights = [random_bytes(rows * row_bytes + i, type_id)[i:] for i in range(matrices)]
    panels = module.can_be_panels(type_id, rows)
    if panels:
        weights = [interleaved(module, type_id, data) for data in weights]
    ops = [("encode", [0], [1], [])] + [("linear", [1], [2], [i, -1]) for i in range(matrices)]
    spec = {
        "arena_bytes": offset,
        "max_tokens": n,
        "max_outputs": 0,
        "buffers": buffers,
        "weights": [
            {"name": f"w{i}", "format": type_id, "rows": rows, "cols": COLS, "experts": 1, "data": data}
            | {"panels": panels}
            for i, data in enumerate(weights)
        ],
        "ops": [
            {"op": op, "inputs": i, "outputs": o, "weights": w, "ints": {}, "floats": {}, "arrays": {}}
            for op, i, o, w in ops
        ],
        "states": [],
    }
    made = module.Program(module.Machine(threads, **hierarchy().machine_options), spec)
    made.buffer("x")[:] = np.random.default_rng(n).standard_normal((n, COLS))
    return made


def ours(
    module: Any, threads: int, type_id: int, row_bytes: int, rows: int, matrices: int, kind: str, n: int
) -> Callable[[], object]:
    made = program(module, threads, type_id, row_bytes, rows, matrices, kind, n)
    zeros = np.zeros(n, np.int32)
    batch = [zeros, np.arange(n, dtype=np.int32), zeros, [], np.zeros(0, np.int32)]
    return lambda: made.run([], *batch)


def best(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The least seconds of each, measured in turns, after one round that does not count."""
    seconds = dict.fromkeys(runs, float("inf"))
    for nth in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if nth > 0:
                seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def measure(
    isa: str | None, threads: int, formats: list[str], tokens: list[int], rounds: int, ggml: Ggml | None
) -> list[dict[str, Any]]:
    module = native(isa)
    results = []
    for type_id, name, block, size in files.formats():
        if formats and name not in formats:
            continue
        row_bytes = COLS // block * size
        for n in tokens:
            matrices = 1 if n >= MANY else MATRICES
            rows = MANY_ROWS if n >= MANY else max(16, MATRIX_BYTES // row_bytes // 16 * 16)
            kinds = {kind: kind for kind in KINDS if block > 1 or kind == "f32"}
            if name == "BF16" and module.MULTIPLIES_BF16:
                kinds["fast"] = "bf16"
            runs = {
                kind: ours(module, threads, type_id, row_bytes, rows, matrices, encoding, n)
                for kind, encoding in kinds.items()
            }
            if ggml is not None and ggml.knows(type_id):
                runs["ggml"] = ggml.product(type_id, rows, COLS, matrices, n, threads)
            for kind, seconds in best(runs, rounds).items():
                entry = {"format": name, "activations": kind, "tokens": n}
                entry["bytes_per_second"] = matrices * rows * row_bytes / seconds
                entry["products_per_second"] = matrices * rows * COLS * n / seconds
                results.append(entry)
    return results


def table(results: list[dict[str, Any]]) -> str:
    """The results as a Markdown table: GB/s with few tokens, G products/s with many."""
    columns = [
        (n, kind)
        for n in dict.fromkeys(r["tokens"] for r in results)
        for kind in (*KINDS, "ggml")
        if any(r["activations"] == kind for r in results)
    ]
    found = {(r["format"], r["tokens"], r["activations"]): r for r in results}
    lines = [
        "| format | " + " | ".join(f"{n} {'exact' if kind == 'f32' else kind}" for n, kind in columns) + " |"
    ]
    lines.append("|---|" + "---:|" * len(columns))
    for name in dict.fromkeys(r["format"] for r in results):
        cells = []
        for n, kind in columns:
            entry = found.get((name, n, kind))
            unit = "products_per_second" if n >= MANY else "bytes_per_second"
            cells.append(f"{entry[unit] / 1e9:.{0 if n >= MANY else 1}f}" if entry else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--isa")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=numbers, default=list(TOKENS), help="(default: 1,8,256)")
    parser.add_argument("--formats", default="", help="names, with commas; default: all")
    parser.add_argument("--ggml", type=Path, help="folder of llama.cpp's shared libraries")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    peaks = {
        "bandwidth": bandwidth(args.threads, args.isa),
        "multiply": multiply_peak(args.threads, args.isa),
    }
    ggml = Ggml(args.ggml) if args.ggml else None
    formats = list(filter(None, args.formats.split(",")))
    results = measure(args.isa, args.threads, formats, args.tokens, args.rounds, ggml)
    print(
        f"{native(args.isa).ISA}, {args.threads} threads: memory {peaks['bandwidth'] / 1e9:.1f} GB/s, "
        f"{peaks['multiply'] / 1e9:.0f} G products of bytes/s"
    )
    print(table(results))
    if args.json:
        args.json.write_text(
            json.dumps({"isa": native(args.isa).ISA, "threads": args.threads, **peaks, "results": results})
        )


if __name__ == "__main__":
    main()
