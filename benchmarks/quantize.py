"""How fast each weight format is written, and with what error: Clarion and llama.cpp on the same tensors.

    python benchmarks/quantize.py --ggml LIBGGML [--model FLOAT.gguf] [--formats Q4_K,IQ2_XS] [--json OUT]

LIBGGML is llama-cpp-python's `llama_cpp/lib/libggml-base.so`, of which `ggml_quantize_chunk` is called
through ctypes. Both run on one thread, in turns, with importance; a format's speed is the best of its rounds,
in MB of float32 input in a second of the processor. Errors are relative: the root of
sum(importance * (quantized - wanted)^2) over that of sum(importance * wanted^2), over all tensors, with
importance and without. Tensors are random (normal, Laplace and Student's t with 4 degrees of freedom),
importance is random (log-normal), and with --model the model's own matrices come first.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from clarion.gguf import File, Format
from clarion.host import choose, processor_name
from clarion.quantize import quantize_tensor, tensor_error, writable
from clarion.quantize.model import read_rows
from clarion.quantize.recipes import is_quantizable

Array = np.ndarray[Any, Any]
Write = Callable[[Array, "Array | None"], Array]
COLS = 2048
SKIPPED = ("F32", "Q8_1", "Q8_K")  # nothing to choose, or what llama.cpp does not write


class Ggml:
    """llama.cpp's quantizers."""

    def __init__(self, path: str) -> None:
        self.library = ctypes.CDLL(path)
        self.library.ggml_quantize_chunk.restype = ctypes.c_size_t
        self.library.ggml_quantize_requires_imatrix.restype = ctypes.c_bool

    def needs_importance(self, format: Format) -> bool:
        return bool(self.library.ggml_quantize_requires_imatrix(format.type_id))

    def quantize(self, rows: Array, format: Format, importance: Array | None) -> Array:
        out = np.empty((len(rows), format.n_bytes((1, rows.shape[1]))), np.uint8)
        self.library.ggml_quantize_init(format.type_id)
        if importance is None and self.needs_importance(format):
            importance = np.ones(rows.shape[1], np.float32)
        weights = None if importance is None else importance.ctypes.data_as(ctypes.c_void_p)
        self.library.ggml_quantize_chunk(
            ctypes.c_int(format.type_id),
            rows.ctypes.data_as(ctypes.c_void_p),
            out.ctypes.data_as(ctypes.c_void_p),
            ctypes.c_int64(0),
            ctypes.c_int64(len(rows)),
            ctypes.c_int64(rows.shape[1]),
            weights,
        )
        return out


def random_tensors(rows: int) -> list[Array]:
    rng = np.random.default_rng(1)
    shape = (rows, COLS)
    drawn = (rng.standard_normal(shape), rng.laplace(size=shape), rng.standard_t(4, shape))
    return [(values * 0.02).astype(np.float32) for values in drawn]


def model_tensors(path: str, rows: int) -> list[Array]:
    """The first rows of some of the model's matrices."""
    with File.open(path) as file:
        matrices = [t for t in file.tensors.values() if is_quantizable(t) and t.shape[-1] % 256 == 0]
        picked = matrices[:: max(len(matrices) // 6, 1)]
        return [np.array(read_rows(t, 0, min(rows, math.prod(t.shape[:-1]))), np.float32) for t in picked]


def relative_error(
    tensors: list[Array], importances: list[Array | None], format: Format, write: Any
) -> float:
    squared = norm = 0.0
    for rows, importance in zip(tensors, importances, strict=True):
        found = tensor_error(rows, write(rows, importance), format.name, importance)
        squared, norm = squared + found.squared, norm + found.norm
    return math.sqrt(squared / norm)


def speed(write: Write, rows: Array, importance: Array | None, seconds: float) -> float:
    """MB in a second of the processor, of as many calls as fit."""
    calls, begin = 0, time.process_time()
    while (spent := time.process_time() - begin) < seconds or not calls:
        write(rows, importance)
        calls += 1
    return rows.nbytes * calls / spent / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ggml", required=True)
    parser.add_argument("--model")
    parser.add_argument("--formats", help="separated by commas; default: all")
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.15, help="of each measurement")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    ggml = Ggml(arguments.ggml)
    tensors = random_tensors(arguments.rows)
    if arguments.model:
        tensors = model_tensors(arguments.model, arguments.rows) + tensors
    rng = np.random.default_rng(2)
    weighted: list[Array | None] = [rng.lognormal(0, 1, t.shape[1]).astype(np.float32) for t in tensors]
    alike: list[Array | None] = [None] * len(tensors)
    names = arguments.formats.split(",") if arguments.formats else [f.name for f in writable()]
    print(f"{processor_name()}, {choose().name}, one thread, {len(tensors)} tensors", file=sys.stderr)
    print("| format | MB/s | llama.cpp | ratio | error | llama.cpp | ratio | weighted | llama.cpp | ratio |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    results = []
    for format in writable():
        if format.name not in names or format.name in SKIPPED:
            continue

        def ours(rows: Array, importance: Array | None, name: str = format.name) -> Array:
            return quantize_tensor(rows, name, importance, threads=1)

        def theirs(rows: Array, importance: Array | None, format: Format = format) -> Array:
            return ggml.quantize(rows, format, importance)

        figures = [
            relative_error(tensors, importances, format, write)
            for importances in (alike, weighted)
            for write in (ours, theirs)
        ]
        rows, importance = np.tile(tensors[-3], (4, 1)), weighted[-3]  # larger than the L2 cache
        rates: tuple[list[float], list[float]] = ([], [])
        for turn in range(arguments.rounds):
            for write, rate in list(zip((ours, theirs), rates, strict=True))[:: 1 if turn % 2 == 0 else -1]:
                rate.append(speed(write, rows, importance, arguments.seconds))
        mine, other = max(rates[0]), max(rates[1])
        print(
            f"| {format.name} | {mine:.0f} | {other:.0f} | {mine / other:.1f} "
            f"| {figures[0]:.5f} | {figures[1]:.5f} | {figures[0] / figures[1]:.3f} "
            f"| {figures[2]:.5f} | {figures[3]:.5f} | {figures[2] / figures[3]:.3f} |",
            flush=True,
        )
        results.append(
            {
                "format": format.name,
                "mb_per_s": {"clarion": mine, "llama.cpp": other},
                "error": {"clarion": figures[0], "llama.cpp": figures[1]},
                "weighted_error": {"clarion": figures[2], "llama.cpp": figures[3]},
            }
        )
    if arguments.json:
        machine = {"processor": processor_name(), "module": choose().name}
        arguments.json.write_text(json.dumps({**machine, "formats": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
