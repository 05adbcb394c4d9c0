"""Measure what the machine itself costs: handing out operations, and attention over a full cache.

    python benchmarks/machine.py [--threads 2] [--rounds 9]

Times are the best of the rounds. An operation of one item stays on its thread; one of several items is shared
out, which wakes and joins threads.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from clarion.host import native
from clarion.host.hierarchy import hierarchy

Buffers = dict[str, int]  # name → width
Op = tuple[str, list[int], list[int], dict[str, int], dict[str, float], dict[str, list[float]]]


def program(
    machine: Any,
    max_tokens: int,
    buffers: Buffers,
    ops: list[Op],
    threads: int = 0,
    isa: str | None = None,
) -> Any:
    """One of these operations, for a machine of `isa`, on so many of its threads."""
    module = native(isa)
    spec: dict[str, Any] = {
        "max_tokens": max_tokens,
        "max_outputs": 0,
        "weights": [],
        "buffers": [],
        "ops": [],
        "states": [(0, 0)],
    }
    offset = 0
    for name, width in buffers.items():
        spec["buffers"].append(
            {
                "name": name,
                "kind": "f32",
                "rows": "tokens",
                "width": width,
                "offset": offset,
                "slots_per_token": 1,
            }
        )
        offset += max_tokens * module.encoded_row_bytes("f32", width)
    for op, inputs, outputs, ints, floats, arrays in ops:
        entry = {"op": op, "inputs": inputs, "outputs": outputs, "weights": [], "arrays": arrays}
        spec["ops"].append(entry | {"ints": ints, "floats": floats})
    return module.Program(machine, spec | {"arena_bytes": offset}, threads)


def attention(n_head: int, n_head_kv: int, head_dim: int) -> Op:
    """Of the buffer 0 to the buffer 1, over all positions up to a token's."""
    ints = {"state": 0, "n_head": n_head, "n_head_kv": n_head_kv, "head_dim": head_dim, "dim_v": head_dim}
    ints |= {"window": 0, "chunked": 0, "causal": 1}
    return "attention", [0], [1], ints, {"scale": head_dim**-0.5, "cap": 0.0}, {"slopes": []}


def batch(n: int, start: int = 0) -> list[Any]:
    """n tokens of one sequence from a position: tokens, positions, sequences, tables, outputs."""
    positions = np.arange(start, start + n, dtype=np.int32)
    pages = np.arange(positions[-1] // 64 + 1, dtype=np.int32)[None]
    return [np.zeros(n, np.int32), positions, np.zeros(n, np.int32), [pages], np.zeros(0, np.int32)]


def best(run: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


ONE_ITEM, TWO_ITEMS = (1, 16), (2, 8192)  # tokens and width


def operation_seconds(
    machine: Any, threads: int, n: int, width: int, rounds: int, isa: str | None = None
) -> float:
    """Seconds of an operation that does little with n rows, one of many in a row."""
    n_ops = 5000
    silu = program(
        machine,
        n,
        {"x": width, "y": width},
        [("silu", [0], [1], {}, {}, {})] * n_ops,
        threads=threads,
        isa=isa,
    )
    arguments = batch(n)
    return best(partial(silu.run, [], *arguments[:3], [], arguments[4]), rounds) / n_ops


def handing_out(machine: Any, threads: int, rounds: int, isa: str | None = None) -> tuple[float, float]:
    """Seconds that handing out an operation takes, if one thread keeps it, and if several share it: what it
    then takes longer than its share of one thread's time."""
    alone = operation_seconds(machine, 1, *ONE_ITEM, rounds, isa)
    if threads == 1:
        return alone, alone
    n = min(threads, TWO_ITEMS[0])
    one, several = (operation_seconds(machine, used, *TWO_ITEMS, rounds, isa) for used in (1, n))
    return alone, several - one / n


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    machine = native().Machine(args.threads, **hierarchy().machine_options)
    print(f"{native().ISA}, {args.threads} threads")

    for what, shape in (("one item", ONE_ITEM), ("two items", TWO_ITEMS)):
        seconds = operation_seconds(machine, args.threads, *shape, args.rounds)
        print(f"silu {list(shape)}, {what}: {1e6 * seconds:.2f} µs")
    alone, shared = (1e6 * seconds for seconds in handing_out(machine, args.threads, args.rounds))
    print(f"handing out an operation that one thread keeps: {alone:.3f} µs, that is shared: {shared:.2f} µs")

    n_head, n_head_kv, head_dim = 32, 8, 64
    for kind in ("f16", "f32"):
        cache = native().KvCache([(n_head_kv, head_dim, head_dim)], 128, 64, kind)
        widths = {"k": n_head_kv * head_dim, "v": n_head_kv * head_dim}
        fill = program(machine, 512, widths, [("kv_write", [0, 1], [], {"state": 0}, {}, {})])
        for name in widths:
            fill.buffer(name)[:] = np.random.default_rng(0).standard_normal(fill.buffer(name).shape)
        for start in range(0, 8192, 512):
            fill.run([cache], *batch(512, start))
        for n, start in ((1, 8191), (256, 1792)):
            q = {"q": n_head * head_dim, "o": n_head * head_dim}
            attend = program(machine, n, q, [attention(n_head, n_head_kv, head_dim)])
            arguments = batch(n, start)
            seconds = best(lambda p=attend, c=cache, a=arguments: p.run([c], *a), args.rounds)
            products = 2 * n_head * head_dim * int((arguments[1] + 1).sum())
            print(
                f"attention of {n} from position {start}, {n_head}/{n_head_kv} heads of {head_dim}, {kind}: "
                f"{1e3 * seconds:.2f} ms, {products / seconds / 1e9:.0f} G products/s"
            )


if __name__ == "__main__":
    main()
