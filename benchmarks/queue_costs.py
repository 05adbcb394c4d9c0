"""Measure what handing out items costs on this machine, and what the items themselves take on one core.

    python benchmarks/queue_costs.py [--rounds 7] [--json costs.json]

`queue_simulation.py` computes with these figures; it has those of one machine, and takes others by `--costs`.
Each is the best of the rounds. Two threads on two cores are needed: the machine has to be idle otherwise.

- take: of an item, from the next one's number to the count of those that are finished, on a single thread.
- transfer: what a second thread adds to that: the cache line of the count comes from the other core.
- handoff: from the last item of an operation to the other thread's first of the next one.
- wake_call, wake_latency: what it costs to wake a thread that sleeps, and how long it takes then.
- decode, multiply: seconds of a weight that is decoded, and of a product of bytes, with Q4_K.
- bandwidth: bytes a second that one core reads, and two together.
- elements, fused: seconds of an element of a row, by operation, and of a product of floats in attention.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from queue_items import PAST, Batch, Shape, Tiling, program_of, work_of

from clarion.gguf.formats import format_named
from clarion.host import native
from clarion.host.hierarchy import hierarchy
from clarion.plan import Program
from clarion.runtime.measure import bandwidth

_WEIGHTS = 512 << 20  # bytes of weights, far beyond caches


class Bench:
    """Programs of single operations on one or two threads."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        self._machine = native().Machine(2, **hierarchy().machine_options)

    def bound(self, spec: dict[str, Any], threads: int) -> Any:
        return native().Program(self._machine, spec, threads)

    def best(self, run: Callable[[], object], pause: float = 0.0) -> float:
        times = []
        for _ in range(self._rounds):
            time.sleep(pause)
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        return min(times)

    def rows(self, op: str, rows: int, width: int, n_ops: int, threads: int, pause: float = 0.0) -> float:
        """Seconds of one operation of rows, from a buffer to another one."""
        kind = "fast" if op == "encode" else "f32"
        of = [native().encoded_row_bytes(k, width) * rows for k in ("f32", kind)]
        spec = {
            "arena_bytes": sum(of) + 64,
            "max_tokens": rows,
            "max_outputs": 0,
            "weights": [],
            "states": [],
            "buffers": [_buffer("x", "f32", width, 0), _buffer("y", kind, width, -(-of[0] // 64) * 64)],
            "ops": [_op(op)] * n_ops,
        }
        bound = self.bound(spec, threads)
        bound.buffer("x")[:] = 1.0
        zeros = np.zeros(rows, np.int32)
        arguments = ([], zeros, np.arange(rows, dtype=np.int32), zeros, [], np.zeros(0, np.int32))
        bound.run(*arguments)
        return self.best(lambda: bound.run(*arguments), pause) / n_ops


def _buffer(name: str, kind: str, width: int, offset: int) -> dict[str, Any]:
    return {
        "name": name, "kind": kind, "rows": "tokens", "width": width, "offset": offset, "slots_per_token": 1
    }  # fmt: skip


def _op(op: str) -> dict[str, Any]:
    return {"op": op, "inputs": [0], "outputs": [1], "weights": [], "ints": {}, "floats": {}, "arrays": {}}


class Noise:
    """Bytes for a program's weights, of which no two share any: random blocks, and gains of one."""

    def __init__(self, program: Program) -> None:
        line = 64
        sizes = [-(-weight.n_bytes // line) * line for weight in program.weights]
        some = np.random.default_rng(0).integers(0, 60, 1 << 20, dtype=np.uint8)
        everything = np.resize(some, sum(sizes))
        self._of: dict[str, Any] = {}
        at = 0
        for weight, size in zip(program.weights, sizes, strict=True):
            mine = everything[at : at + weight.n_bytes]
            if weight.format == "F32":
                mine.view(np.float32)[:] = 1.0
            self._of[weight.name] = mine
            at += size

    def data(self, name: str) -> object:
        return self._of[name]


def handing_out(bench: Bench) -> dict[str, float]:
    """What the queue costs."""
    n = 16  # items, as many elements as one row of all of them
    many, one = bench.rows("silu", n, 8192, 200, 1), bench.rows("silu", 1, n * 8192, 200, 1)
    # Items of one panel that stays in the second-level cache: half a microsecond, longer than a line takes.
    small = [products(bench, 16 * 256, 256, 17, 1, 20, threads) / 256 for threads in (1, 2)]
    pairs = [bench.rows("silu", 2, 8192, 2000, threads) for threads in (1, 2)]
    # Of the two items the second is small, and done before who was woken comes.
    awake, asleep = (bench.rows("encode", 9, 256, 1, 2, pause) for pause in (0.0, 0.003))
    long = 1 << 21  # an item longer than a thread takes to wake, 0.4 ms
    both, both_asleep = (bench.rows("silu", 2, long, 1, 2, pause) for pause in (0.0, 0.003))
    call = max(asleep - awake, 0.0)
    return {
        "take": max((many - one) / n, 0.0),
        "transfer": max(2 * small[1] - small[0], 0.0),
        "handoff": max(pairs[1] - pairs[0] / 2, 0.0),
        "wake_call": call,
        "wake_latency": max(both_asleep - both - call, 0.0),
    }


def products(
    bench: Bench, rows: int, cols: int, tokens: int, n_weights: int, n_ops: int, threads: int
) -> float:
    """Seconds of a product of a Q4_K matrix and tokens of 16 bits, of so many weights in turn."""
    q4 = format_named("Q4_K")
    n_bytes = q4.n_bytes((rows, cols))
    some = np.random.default_rng(0).integers(0, 60, 1 << 20, dtype=np.uint8)
    weights = np.resize(some, n_weights * n_bytes)
    of = [native().encoded_row_bytes(k, width) * tokens for k, width in (("high", cols), ("f32", rows))]
    panels = native().can_be_panels(q4.type_id, rows)
    spec = {
        "arena_bytes": sum(of) + 64, "max_tokens": tokens, "max_outputs": 0, "states": [],
        "buffers": [_buffer("x", "high", cols, 0), _buffer("y", "f32", rows, -(-of[0] // 64) * 64)],
        "weights": [
            {"name": f"{i}", "format": q4.type_id, "rows": rows, "cols": cols, "experts": 1,
             "data": weights[i * n_bytes : (i + 1) * n_bytes], "panels": panels}
            for i in range(n_weights)
        ],
        "ops": [_op("linear") | {"weights": [i % n_weights, -1]} for i in range(n_ops)],
    }  # fmt: skip
    bound = bench.bound(spec, threads)
    zeros = np.zeros(tokens, np.int32)
    arguments = ([], zeros, np.arange(tokens, dtype=np.int32), zeros, [], np.zeros(0, np.int32))
    bound.run(*arguments)
    return bench.best(lambda: bound.run(*arguments)) / n_ops


def linear_seconds(bench: Bench, tokens: int) -> float:
    """Seconds of a weight of a [4096, 4096] matrix that meets so many tokens."""
    width = 4096
    n = _WEIGHTS // format_named("Q4_K").n_bytes((width, width)) if tokens <= 16 else 2
    return products(bench, width, width, tokens, n, n, 1) / (width * width)


def operations(bench: Bench) -> tuple[dict[str, float], float]:
    """Seconds of an element, by operation, and of a product of attention: of a prompt of 256 tokens."""
    shape = Shape(width=2048, layers=1, ffn=8192, vocabulary=1024)
    program = program_of(shape)
    batch = Batch(((PAST, 256),), 1)
    spec: Any = program.native_spec(Noise(program))
    ops = spec["ops"]
    cache = native().KvCache([(shape.kv_heads, shape.head, shape.head)], 8, 64, "f16")
    zeros, table = np.zeros(256, np.int32), np.arange(8, dtype=np.int32)[None]
    positions = np.arange(PAST, PAST + 256, dtype=np.int32)
    elements: dict[str, float] = {}
    fused, generator = 0.0, np.random.default_rng(0)
    for op, work in zip(ops, work_of(program, batch, 1, Tiling()), strict=True):
        name, n_ops = op["op"], 4
        if name == "linear" or name in elements or (name == "select" and work.total.elements == 0):
            continue
        bound = bench.bound(spec | {"ops": [op] * n_ops}, 1)
        for i in op["inputs"]:
            if program.buffers[i].kind == "f32":  # numbers near zero would take longer
                rows = bound.buffer(program.buffers[i].name)
                rows[:] = generator.standard_normal(rows.shape, np.float32)
        arguments = ([cache], zeros, positions, zeros, [table], np.zeros(1, np.int32))
        bound.run(*arguments)
        seconds = bench.best(lambda b=bound, a=arguments: b.run(*a)) / n_ops
        if name == "attention":
            fused = seconds / work.total.fused
        else:
            elements[name] = seconds / work.total.elements
    return elements, fused


def measure(rounds: int) -> dict[str, Any]:
    bench = Bench(rounds)
    costs: dict[str, Any] = handing_out(bench)
    at = {n: linear_seconds(bench, n) for n in (24, 96)}
    product = (at[96] - at[24]) / (2 * 72)  # 16-bit activations count twice
    elements, fused = operations(bench)
    return costs | {
        "decode": max(at[24] - 2 * 24 * product, 0.0),
        "multiply": 1 / product,
        "bandwidth": [bandwidth(threads) for threads in (1, 2)],
        "generation": format_named("Q4_K").n_bytes((256, 256)) / 65536 / linear_seconds(bench, 1),
        "elements": elements,
        "fused": fused,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    costs = measure(arguments.rounds)
    for name in ("take", "transfer", "handoff", "wake_call", "wake_latency"):
        print(f"{name:13} {1e9 * costs[name]:8.0f} ns")
    print(f"decode        {1e12 * costs['decode']:8.1f} ps a weight")
    print(f"multiply      {costs['multiply'] / 1e9:8.0f} G products/s")
    print("bandwidth     " + ", ".join(f"{rate / 1e9:.1f}" for rate in costs["bandwidth"]) + " GB/s")
    print(f"generation    {costs['generation'] / 1e9:8.1f} GB/s of weights, one thread")
    for name, seconds in costs["elements"].items():
        print(f"{name:13} {1e12 * seconds:8.0f} ps an element")
    print(f"attention     {1e-9 / costs['fused']:8.0f} G products/s")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(costs, file, indent=1)


if __name__ == "__main__":
    main()
