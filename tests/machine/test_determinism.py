"""Whole models give the same bits on any number of threads, in batches and with caches of any size."""

from __future__ import annotations

import numpy as np
import pytest

from clarion import models, plan
from clarion.plan import Target
from clarion.plan.state import groups
from tests.models.files import expected, golden, mapped


@pytest.mark.parametrize(
    "name", ["llama-k-quants", "llama-f16", "mistral-window", "mixtral-q8_0", "qwen3moe-raw"]
)
@pytest.mark.parametrize("activations", ["fast", "high", "exact"])
def test_same_logits(native, name, activations):
    ids = expected(name)[0].astype(np.int32)
    n, kv = len(ids), "f32" if activations == "exact" else "f16"
    compiled = plan.compile(
        models.build(*golden(name)).plan(),
        Target(row_bytes=native.encoded_row_bytes),
        activations=activations,
        kv=kv,
        max_tokens=n,
        max_outputs=n,
        context=256,
    )
    pages, results = np.array([[2, 0, 3, 1]], np.int32), []
    small, large = {"l1": 1 << 10, "l2": 1 << 10}, {"l1": 1 << 30, "l2": 1 << 30}
    for threads, batch, caches in (
        (1, n, {}),
        (2, n, small),
        (3, n, large),
        (2, 1, small),
        (2, 1, large),
        (3, 7, {}),
    ):
        program = native.Program(
            native.Machine(threads, **caches), compiled.native_spec(mapped(name, compiled))
        )
        caches = [native.KvCache(group.layers, 4, 64, kv) for group in groups(compiled.states)]
        logits = []
        for start in range(0, n, batch):
            positions = np.arange(start, min(n, start + batch), dtype=np.int32)
            rows = np.arange(len(positions), dtype=np.int32)
            tables = [pages] * len(caches)
            assert program.run(caches, ids[positions], positions, np.zeros_like(rows), tables, rows)
            logits.append(program.buffer("logits")[: len(rows)].copy())
        results.append(np.concatenate(logits))
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)
