"""Formats of keys and values: against float64 over what a format can hold, for every pair of formats."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarion.plan.cache import FORMATS, CacheFormats
from tests.machine.build import Batch
from tests.machine.test_attention import Layer

PAGE, BLOCK = 64, 32
PAIRS = [(keys, values) for keys in FORMATS for values in FORMATS]


def stored(name, x):
    """float32 [.., D] as the format holds them: the values in float64, and each block's scale [.., D/32]."""
    if name == "f32":
        return x.astype(np.float64), None
    if name == "f16":
        return x.astype(np.float16).astype(np.float64), None
    if name == "bf16":
        bits = x.view(np.uint32).astype(np.uint64)
        bits = bits + 0x7FFF + (bits >> 16 & 1)
        return (bits & 0xFFFF0000).astype(np.uint32).view(np.float32).astype(np.float64), None
    padded = np.zeros((*x.shape[:-1], -(-x.shape[-1] // BLOCK) * BLOCK), np.float32)
    padded[..., : x.shape[-1]] = x
    blocks = padded.reshape(*x.shape[:-1], -1, BLOCK)
    greatest = np.take_along_axis(blocks, np.abs(blocks).argmax(-1, keepdims=True), -1)
    ideal = np.abs(greatest) / np.float32(127) if name == "q8_0" else greatest / np.float32(-8)
    scale = ideal.astype(np.float16).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        q = np.where(scale == 0, np.float32(0), blocks * (np.float32(1) / scale))
    q = np.clip(np.rint(q), *((-127, 127) if name == "q8_0" else (-8, 7)))
    values = (q.astype(np.float64) * scale).reshape(padded.shape)[..., : x.shape[-1]]
    return values, np.abs(scale[..., 0]).astype(np.float64)


def reference(layer, n_head, window, keys, values):
    """Attention over what is stored, and how far the kernels may be from it: both [T, H·D].

    Integer formats multiply 16-bit integers: an element of q errs by half a unit, 2^-16 of the greatest of
    its block, and so does a weight times its scale, of the greatest in its page. An error e in all scores
    moves a mean of values by 2e of the greatest. Floats: 128 roundings of numbers of its size.
    """
    n_head_kv, dim, _ = layer.shape
    q, k, v = (rows.reshape(len(rows), -1, dim) for rows in layer.inputs)
    k, _ = stored(keys, k)
    v, v_scale = stored(values, v)
    out, bound = np.empty((len(q), n_head, dim)), np.empty((len(q), n_head, dim))
    q = q.astype(np.float64) * dim**-0.5
    for t in range(len(q)):
        seen = slice(max(0, t - window + 1) if window else 0, t + 1)
        for h in range(n_head):
            g = h // (n_head // n_head_kv)
            s = k[seen, g] @ q[t, h]
            p = np.exp(s - s.max())
            out[t, h] = p @ v[seen, g] / p.sum()
            greatest = np.abs(v[seen, g]).max()
            error = 128 * 2.0**-24 * greatest
            if keys[0] == "q":
                largest = [np.abs(q[t, h, b : b + BLOCK]).max() for b in range(0, dim, BLOCK)]
                largest = np.repeat(largest, BLOCK)[:dim]
                error += 2 * greatest * 2.0**-16 * (np.abs(k[seen, g]) @ largest).max()
            if v_scale is not None:
                error = error + value_error(np.arange(seen.start, t + 1), p, v[seen, g], v_scale[seen, g])
            bound[t, h] = error
    return out.reshape(len(q), -1), bound.reshape(len(q), -1)


def value_error(positions, p, v, scales):
    """What half a unit in each weight of `reference` may change: the largest of the blocks of dims."""
    total = 0.0
    for b in range(scales.shape[-1]):
        error = 0.0
        for page in np.unique(positions // PAGE):
            here = positions // PAGE == page
            scale = scales[here, b]
            most = np.abs(v[here, b * BLOCK : (b + 1) * BLOCK]).max(-1)
            steps = np.divide(most, scale, out=np.zeros_like(most), where=scale > 0)
            error += 2.0**-16 * (p[here] * scale).max() * steps.sum()
        total = max(total, error)
    return total / p.sum()


def check(native, keys, values, n, n_head, n_head_kv, head_dim, window, seed, size=1.0):
    layer = Layer(native, n, n_head, n_head_kv, head_dim, window, rotate=False, seed=seed)
    layer.inputs[2] *= np.float32(size)
    cache = native.KvCache([layer.shape], 5, PAGE, keys, values)
    found = layer.run(layer.builder.program(2), cache, Batch(n, pages=[[4, 0, 2]]))
    expected, bound = reference(layer, n_head, window, keys, values)
    assert (np.abs(found - expected) <= bound + 1e-37).all(), (np.abs(found - expected) / bound).max()


@pytest.mark.sample(60)
@pytest.mark.parametrize(("keys", "values"), PAIRS)
@pytest.mark.parametrize("head_dim", [40, 64, 80, 96, 128, 256])
def test_pairs_and_head_sizes(native, keys, values, head_dim):
    check(native, keys, values, 70, 6, 2, head_dim, 0, head_dim)


@settings(max_examples=40, deadline=None)
@given(
    pair=st.sampled_from(PAIRS), group=st.integers(1, 9), n_head_kv=st.integers(1, 3),
    head_dim=st.integers(4, 100), n=st.integers(1, 130), window=st.sampled_from([0, 1, 5, 64, 100]),
    size=st.sampled_from([1e-9, 1e-6, 1e-3, 1.0, 1e4]), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_against_float64(native, pair, group, n_head_kv, head_dim, n, window, size, seed):
    check(native, *pair, n, group * n_head_kv, n_head_kv, head_dim, window, seed, size)


@pytest.mark.sample(6)
@pytest.mark.parametrize("kind", ["f16", "q8_0:bf16", "q4_0:q8_0"])
@pytest.mark.parametrize(("n_head", "n_head_kv", "window"), [(1, 1, 0), (6, 2, 0), (9, 1, 1500)])
def test_a_long_past_on_any_number_of_threads(native, kind, n_head, n_head_kv, window):
    """Its parts are shared out where few queries see them, and not in a prompt: the bits are the same."""
    n = 2200
    layer = Layer(native, n, n_head, n_head_kv, 16, window)
    pages = [list(range(-(-n // PAGE)))]
    cache = layer.cache(len(pages[0]), kind)
    programs = [layer.builder.program(threads) for threads in (1, 2, 3, 16)]
    whole = layer.run(programs[1], cache, Batch(n, pages=pages))
    for program in programs:
        for which in (np.array([1023]), np.array([1024]), np.arange(2040, 2055), np.array([n - 1])):
            found = layer.run(program, cache, Batch(len(which), positions=which, pages=pages), which)
            np.testing.assert_array_equal(found, whole[which])


@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
def test_extremes(native, kind):
    """What is too small for a scale is zero. What is too large for one, or no number, is NaN where it is seen
    and only in its block of 32."""
    layer = Layer(native, 4, 1, 1, 64, rotate=False)
    values = layer.inputs[2]
    values[0] = 0
    values[1] = 1e-30
    values[2, :32] = 1e9
    values[3, 32:] = [*range(31), np.inf]
    with np.errstate(over="ignore"):
        found = layer.run(layer.builder.program(), layer.cache(1, "f16:" + kind), Batch(4, pages=[[0]]))
    assert (found[:2] == 0).all()
    assert np.isnan(found[2:, :32]).all()
    assert np.isfinite(found[2, 32:]).all()
    assert found[2, 32:].any()
    assert np.isnan(found[3]).all()


@pytest.mark.parametrize("kv", ["f32", "f16", "bf16:q4_0", "q8_0", "q4_0:f16", ("q8_0", "f32")])
def test_bytes(native, kv):
    """A program says what the cache takes."""
    formats = CacheFormats.parse(kv)
    for dim_k, dim_v in ((64, 64), (20, 20), (33, 40), (192, 128)):
        cache = native.KvCache([(3, dim_k, dim_v)] * 2, 7, PAGE, formats.keys, formats.values)
        assert cache.bytes == 7 * PAGE * 2 * 3 * formats.position_bytes(dim_k, dim_v)
