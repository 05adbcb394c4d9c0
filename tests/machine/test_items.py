"""Into how many items operations split: the native code says what benchmarks/queue_items.py computes."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clarion.host.hierarchy import hierarchy

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from queue_items import SHAPES, WORK, Batch, Tiling, program_of, work_of

BATCHES = [*WORK.values(), Batch(((3000, 1), (10, 2)), 2), Batch(((5, 40),), 3)]
SHAPE = replace(SHAPES["1B"], width=512, layers=2, heads=12, kv_heads=3, ffn=1536, vocabulary=1000)


@pytest.mark.sample(8)
@pytest.mark.parametrize("batch", BATCHES, ids=str)
@pytest.mark.parametrize("threads", [1, 2, 3, 24])
@pytest.mark.parametrize("activations", ["fast", "high", "exact"])
def test_items(native, activations: str, threads: int, batch: Batch) -> None:
    program = program_of(SHAPE, activations=activations)
    zeros = np.zeros(max(weight.n_bytes for weight in program.weights), np.uint8)

    class Zeros:
        def data(self, name: str) -> object:
            return zeros

    caches = hierarchy().cache_bytes
    machine = native.Machine(threads, **caches)
    bound = native.Program(machine, program.native_spec(Zeros()), threads)
    n, kind = len(batch.sequences), "f32" if activations == "exact" else "f16"
    cache = native.KvCache([(SHAPE.kv_heads, SHAPE.head, SHAPE.head)] * SHAPE.layers, 64 * n, 64, kind)
    positions = np.concatenate([np.arange(p, p + k) for p, k in batch.sequences]).astype(np.int32)
    sequences = np.repeat(np.arange(n, dtype=np.int32), [k for _, k in batch.sequences])
    tables = np.arange(64 * n, dtype=np.int32).reshape(n, 64)
    outputs = np.arange(batch.n_outputs, dtype=np.int32)
    bound.run([cache], np.zeros(len(positions), np.int32), positions, sequences, [tables], outputs)
    works = work_of(program, batch, threads, Tiling(l2=caches["l2"]))
    assert bound.items == [len(work.items) for work in works]
