"""Measure attention to latent rows beside attention to keys and values of the same number of products.

    python benchmarks/latent.py [--threads 2] [--depth 4096] [--rounds 5] [--formats f16 q8_0]

Rows have the size that large models have, 576, of which 512 are values. For each number of heads: the time
of one token that sees the depth, of 8 texts with a token each, and of a prompt of 64 tokens at its end; what
is read of the cache and multiplied in a second. Plain attention has heads of 128, in groups of 8.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from machine import attention, best, program

from clarion.host import native
from clarion.host.hierarchy import hierarchy

DIM, DIM_V, PAGE = 576, 512, 64
HEAD, GROUP = 128, 8


def measure(machine: Any, op: str, kind: str, heads: int, texts: int, tokens: int, depth: int, rounds: int):
    """Seconds of a batch of so many texts with so many tokens each, the bytes and the products of it."""
    n, n_kv = texts * tokens, max(1, heads // GROUP)
    if op == "latent_attention":
        layer, q, o, each = (1, DIM, 0), heads * DIM, heads * DIM_V, DIM + DIM_V
        ints = {"state": 0, "n_head": heads, "dim": DIM, "dim_v": DIM_V}
        operation = (op, [0], [1], ints, {"scale": 0.1}, {})
    else:
        layer, q, o, each = (n_kv, HEAD, HEAD), heads * HEAD, heads * HEAD, 2 * HEAD
        operation = attention(heads, n_kv, HEAD)
    pages = np.arange(texts * (depth // PAGE), dtype=np.int32).reshape(texts, -1)
    cache = native().KvCache([layer], pages.size, PAGE, kind)
    fill = np.random.default_rng(0).integers(0, 60, cache.page_bytes, dtype=np.uint8)
    for page in range(pages.size):
        cache.page(page)[:] = fill
    bound = program(machine, n, {"q": q, "o": o}, [operation])
    bound.buffer("q")[:] = np.random.default_rng(1).standard_normal((n, q))
    positions = np.tile(np.arange(depth - tokens, depth, dtype=np.int32), texts)
    sequences = np.repeat(np.arange(texts, dtype=np.int32), tokens)
    empty = np.zeros(0, np.int32)
    batch = ([cache], np.zeros(n, np.int32), positions, sequences, [pages], empty)
    bound.run(*batch)
    seconds = best(lambda: bound.run(*batch), rounds)
    return seconds, cache.bytes, int((positions + 1).sum()) * heads * each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--depth", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--formats", nargs="+", default=["f32", "f16", "q8_0"])
    parser.add_argument("--heads", nargs="+", type=int, default=[16, 128])
    options = parser.parse_args()
    machine = native().Machine(options.threads, **hierarchy().machine_options)
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
