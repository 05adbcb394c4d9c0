"""Measure attention to latent rows beside attention to keys and values of the same number of products.

    python benchmarks/latent.py [--threads 2] [--depth 4096] [--rounds 5] [--formats f16 q8_0]

Rows have the size that large models have, 576, of which 512 are values. For each number of heads: the time of one
token that sees the depth, of 8 texts with a token each, and of a prompt of 64 tokens at its end; what of the cache
is read a second and how many products are computed. Plain attention has heads of 128, in groups of 8.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from clarion.host import native

DIM, DIM_V, PAGE = 576, 512, 64
HEAD, GROUP = 128, 8


def spec(op: str, n: int, q: int, o: int, ints: dict[str, int]) -> dict[str, Any]:
    """A program of one operation, for n tokens."""
    row_bytes = native().encoded_row_bytes
    offsets = (0, n * row_bytes("f32", q))
    buffer = {"kind": "f32", "rows": "tokens", "slots_per_token": 1}
    floats, arrays = {"scale": 0.1}, {}
    if op == "attention":
        ints |= {"window": 0, "chunked": 0, "causal": 1}
        floats, arrays = {"scale": 0.1, "cap": 0.0}, {"slopes": []}
    operation = {"op": op, "inputs": [0], "outputs": [1], "weights": []}
    return {
        "max_tokens": n,
        "max_outputs": 0,
        "arena_bytes": offsets[1] + n * row_bytes("f32", o),
        "weights": [],
        "buffers": [
            {"name": name, "width": width, "offset": offset, **buffer}
            for name, width, offset in (("q", q, offsets[0]), ("o", o, offsets[1]))
        ],
        "ops": [operation | {"ints": {"state": 0, **ints}, "floats": floats, "arrays": arrays}],
        "states": [(0, 0)],
    }


def best(run: Any, rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(machine: Any, op: str, kind: str, heads: int, texts: int, tokens: int, depth: int, rounds: int):
    """Seconds of a batch of so many texts with so many tokens each, the bytes that it reads and its products."""
    n, n_kv = texts * tokens, max(1, heads // GROUP)
    if op == "latent_attention":
        layer, q, o = (1, DIM, 0), heads * DIM, heads * DIM_V
        ints, each = {"n_head": heads, "dim": DIM, "dim_v": DIM_V}, DIM + DIM_V
    else:
        layer, q, o = (n_kv, HEAD, HEAD), heads * HEAD, heads * HEAD
        ints = {"n_head": heads, "n_head_kv": n_kv, "head_dim": HEAD, "dim_v": HEAD}
        each = 2 * HEAD
    pages = np.arange(texts * (depth // PAGE), dtype=np.int32).reshape(texts, -1)
    cache = native().KvCache([layer], pages.size, PAGE, kind)
    fill = np.random.default_rng(0).integers(0, 60, cache.page_bytes, dtype=np.uint8)
    for page in range(pages.size):
        cache.page(page)[:] = fill
    program = native().Program(machine, spec(op, n, q, o, ints))
    program.buffer("q")[:] = np.random.default_rng(1).standard_normal((n, q))
    positions = np.tile(np.arange(depth - tokens, depth, dtype=np.int32), texts)
    sequences = np.repeat(np.arange(texts, dtype=np.int32), tokens)
    empty = np.zeros(0, np.int32)
    batch = ([cache], np.zeros(n, np.int32), positions, sequences, [pages], empty)
    program.run(*batch)
    seconds = best(lambda: program.run(*batch), rounds)
    return seconds, cache.bytes, int((positions + 1).sum()) * heads * each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--depth", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--formats", nargs="+", default=["f32", "f16", "q8_0"])
    parser.add_argument("--heads", nargs="+", type=int, default=[16, 128])
    options = parser.parse_args()
    machine = native().Machine(options.threads)
    print(f"{'':18}{'cache':>6}{'heads':>6}{'texts':>6}{'tokens':>7}{'ms':>9}{'GB/s':>7}{'G products/s':>14}")
    for op in ("attention", "latent_attention"):
        for kind in options.formats:
            for heads in options.heads:
                for texts, tokens in ((1, 1), (8, 1), (1, 64)):
                    seconds, n_bytes, products = measure(
                        machine, op, kind, heads, texts, tokens, options.depth, options.rounds
                    )
                    print(
                        f"{op:18}{kind:>6}{heads:6}{texts:6}{tokens:7}{seconds * 1e3:9.2f}"
                        f"{n_bytes / seconds / 1e9:7.1f}{products / seconds / 1e9:14.1f}"
                    )


if __name__ == "__main__":
    main()
