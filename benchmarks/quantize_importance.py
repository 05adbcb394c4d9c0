"""Weighted errors of every weight format under importances of every kind: Clarion's beside llama.cpp's.

    python benchmarks/quantize_importance.py --ggml LIBGGML [--formats Q4_K,IQ2_XS] [--json OUT]

LIBGGML is that of benchmarks/quantize.py. Each figure is sum(importance * (quantized - wanted)^2) over a
tensor, divided by llama.cpp's. Tensors are random (SEEDS), of 64 rows; the table shows the largest of a
tensor's ratios for each format and importance, and the command fails where one is larger than 1.001.
llama.cpp runs in a process of its own, since some importances end it: such places show "ends", and "0" means
that both errors are nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from quantize import SKIPPED, Ggml

from clarion.gguf import Format
from clarion.host import choose, processor_name
from clarion.quantize import quantize_tensor, writable
from clarion.quantize.tensor import dequantize_tensor

Array = np.ndarray[Any, Any]
ROWS, COLS = 64, 512
SEEDS = (1, 2, 3)
MOST = 1.001

TENSORS: dict[str, Callable[[np.random.Generator], Array]] = {
    "normal": lambda rng: rng.standard_normal((ROWS, COLS)),
    "laplace": lambda rng: rng.laplace(size=(ROWS, COLS)),
    "student": lambda rng: rng.standard_t(4, (ROWS, COLS)),
}


def one_of(rng: np.random.Generator, each: int) -> Array:
    """One column of each so many."""
    found = np.zeros(COLS)
    found[np.arange(0, COLS, each) + rng.integers(0, each, COLS // each)] = 1
    return found


IMPORTANCES: dict[str, Callable[[np.random.Generator], Array]] = {
    "alike": lambda rng: np.ones(COLS),
    "sigma 1": lambda rng: rng.lognormal(0, 1, COLS),
    "sigma 3": lambda rng: rng.lognormal(0, 3, COLS),
    "1e-6, 1, 1e6": lambda rng: rng.choice([1e-6, 1.0, 1e6], COLS),
    "one column": lambda rng: one_of(rng, COLS),
    "one of 32": lambda rng: one_of(rng, 32),
    "two of 32": lambda rng: one_of(rng, 16),
    "one of 256": lambda rng: one_of(rng, 256),
    "half dead": lambda rng: rng.lognormal(0, 1, COLS) * (rng.random(COLS) < 0.5),
    "blocks dead": lambda rng: rng.lognormal(0, 1, COLS) * np.repeat(rng.random(COLS // 64) < 0.5, 64),
    "outlier": lambda rng: 1 + 1e6 * one_of(rng, COLS),
    "sigma 3 e-30": lambda rng: rng.lognormal(0, 3, COLS) * 1e-30,
    "zeros": lambda rng: np.zeros(COLS),
}


def weighted_error(rows: Array, data: Array, format: Format, importance: Array) -> float:
    error = np.square(dequantize_tensor(data, format.name, COLS).astype(np.float64) - rows)
    return float(error.sum(0) @ importance.astype(np.float64))


def cases(seed: int) -> list[tuple[str, str, Array, Array]]:
    """Names of tensor and importance, rows and importance."""
    found = []
    for tensor, draw in TENSORS.items():
        for name, importance in IMPORTANCES.items():
            rng = np.random.default_rng([seed, len(found)])
            rows = (draw(rng) * 0.02).astype(np.float32)
            found.append((tensor, name, rows, importance(rng).astype(np.float32)))
    return found


def _theirs(ggml: Ggml, format: Format, rows: Array, importance: Array, pipe: Any) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # a process that ends itself prints where
    pipe.send(ggml.quantize(rows, format, importance))


def theirs(ggml: Ggml, format: Format, rows: Array, importance: Array) -> Array | None:
    """What llama.cpp writes, or None where it ends its process."""
    reader, writer = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(
        target=_theirs, args=(ggml, format, rows, importance, writer)
    )
    child.start()
    writer.close()
    try:
        data: Array | None = reader.recv()
    except EOFError:
        data = None
    child.join()
    return data


def shown(ratio: float | None) -> str:
    if ratio is None:
        return "ends"
    return "0" if math.isnan(ratio) else f"{ratio:.3f}"


def worst(ratios: list[float | None]) -> float | None:
    known = [ratio for ratio in ratios if ratio is not None]
    return max((r for r in known if not math.isnan(r)), default=math.nan) if known else None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ggml", required=True)
    parser.add_argument("--formats", help="separated by commas; default: all")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    ggml = Ggml(arguments.ggml)
    names = arguments.formats.split(",") if arguments.formats else [f.name for f in writable()]
    print(f"{processor_name()}, {choose().name}, seeds {arguments.seeds}", file=sys.stderr)
    print("| format |" + "".join(f" {name} |" for name in IMPORTANCES))
    print("|---|" + "---:|" * len(IMPORTANCES))
    results: list[dict[str, Any]] = []
    too_large = 0
    for format in writable():
        if format.name not in names or format.name in SKIPPED:
            continue
        ggml.library.ggml_quantize_init(format.type_id)  # once, not in each child
        found: dict[str, list[float | None]] = {name: [] for name in IMPORTANCES}
        for seed in map(int, arguments.seeds.split(",")):
            for tensor, name, rows, importance in cases(seed):
                data = theirs(ggml, format, rows, importance)
                mine = weighted_error(
                    rows, quantize_tensor(rows, format.name, importance), format, importance
                )
                other = None if data is None else weighted_error(rows, data, format, importance)
                ratio = None if other is None else mine / other if other else math.inf if mine else math.nan
                found[name].append(ratio)
                results.append(
                    {
                        "format": format.name,
                        "tensor": tensor,
                        "importance": name,
                        "seed": seed,
                        "weighted_error": {"clarion": mine, "llama.cpp": other},
                    }
                )
                too_large += ratio is not None and ratio > MOST
        print(f"| {format.name} |" + "".join(f" {shown(worst(r))} |" for r in found.values()), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    if too_large:
        sys.exit(f"{too_large} of {len(results)} tensors have more than {MOST} times llama.cpp's error")


if __name__ == "__main__":
    main()
