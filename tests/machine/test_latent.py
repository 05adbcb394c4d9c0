"""Latent attention: against float64 in every format, and bit for bit whatever a token's company."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarion.plan.cache import FORMATS
from tests.machine.build import Batch, Builder
from tests.machine.test_cache_formats import BLOCK, stored, value_error

PAGE = 64


class Layer:
    """latent_write and latent_attention, and inputs for a text of n tokens."""

    def __init__(self, native, n, n_head=4, dim=36, dim_v=20, seed=0):
        rng = np.random.default_rng(seed)
        self.native, self.n_head, self.dim, self.dim_v = native, n_head, dim, dim_v
        b = self.builder = Builder(native, n)
        self.q = rng.standard_normal((n, n_head * dim)).astype(np.float32)
        self.rows = rng.standard_normal((n, dim)).astype(np.float32)
        q, rows, out = b.buffer("q", n_head * dim), b.buffer("rows", dim), b.buffer("o", n_head * dim_v)
        b.op("latent_write", [rows], [], [], {"state": 0})
        sizes = {"state": 0, "n_head": n_head, "dim": dim, "dim_v": dim_v}
        b.op("latent_attention", [q], [out], [], sizes, {"scale": dim**-0.5})

    def cache(self, pages=6, kind="f32"):
        return self.native.KvCache([(1, self.dim, 0)], pages, PAGE, kind)

    def run(self, program, cache, batch, which=slice(None)):
        n = len(batch.positions)
        program.buffer("q")[:n], program.buffer("rows")[:n] = self.q[which], self.rows[which]
        assert batch.run(program, cache)
        return program.buffer("o")[:n].copy()

    def reference(self, kind):
        """Attention over what is stored, and how far the kernels may be from it, as for other caches."""
        rows, scales = stored(kind, self.rows)
        q = self.q.reshape(len(self.q), self.n_head, self.dim).astype(np.float64) * self.dim**-0.5
        out = np.empty((len(q), self.n_head, self.dim_v))
        bound = np.empty((len(q), self.n_head, 1))
        for t in range(len(q)):
            seen = rows[: t + 1]
            v = seen[:, : self.dim_v]
            for h in range(self.n_head):
                s = seen @ q[t, h]
                p = np.exp(s - s.max())
                out[t, h] = p @ v / p.sum()
                greatest = np.abs(seen).max()
                bound[t, h] = 128 * 2.0**-24 * greatest
                if scales is None:
                    continue
                largest = [np.abs(q[t, h, b : b + BLOCK]).max() for b in range(0, self.dim, BLOCK)]
                largest = np.repeat(largest, BLOCK)[: self.dim]
                bound[t, h] += 2 * greatest * 2.0**-16 * (np.abs(seen) @ largest).max()
                bound[t, h] += value_error(np.arange(t + 1), p, seen, scales[: t + 1])
        return out.reshape(len(q), -1), np.broadcast_to(bound, out.shape).reshape(len(q), -1)


def check(native, kind, n, n_head, dim, dim_v, seed=0):
    layer = Layer(native, n, n_head, dim, dim_v, seed)
    found = layer.run(layer.builder.program(2), layer.cache(5, kind), Batch(n, pages=[[4, 0, 2]]))
    expected, bound = layer.reference(kind)
    assert (np.abs(found - expected) <= bound).all(), (np.abs(found - expected) / bound).max()


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(FORMATS), n=st.integers(1, 140), n_head=st.integers(1, 20), dim=st.integers(1, 100),
    part=st.floats(0, 1), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_against_float64(native, kind, n, n_head, dim, part, seed):
    check(native, kind, n, n_head, dim, max(1, round(part * dim)), seed)


@pytest.mark.sample(8)
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("n_head", [16, 67, 128])
def test_shapes_of_large_models(native, kind, n_head):
    """67 heads are no multiple of what reads a page together, 128 are two of these."""
    check(native, kind, 66, n_head, 576, 512)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(("n_head", "n"), [(1, 150), (5, 150), (16, 150), (96, 70), (1, 2200), (20, 1100)])
def test_same_bits_in_any_company(native, kind, n_head, n):
    """A text in one batch, in pieces of 1, 7, 64 and 100, beside others, on 1, 2 and 3 threads."""
    layer = Layer(native, n, n_head)
    pages = [list(reversed(range(-(-n // PAGE))))]
    programs = [layer.builder.program(threads) for threads in (1, 2, 3)]
    whole = layer.run(programs[0], layer.cache(len(pages[0]), kind), Batch(n, pages=pages))
    for piece, program in zip((n, 100, 64, 7, 1), [programs[1], *programs, programs[2]], strict=True):
        cache, start = layer.cache(len(pages[0]), kind), 0
        while start < n:
            many = n - 30 if piece < 64 and start == 0 else piece  # step by step only at the end
            which = np.arange(start, min(n, start + many))
            batch = Batch(len(which), positions=which, pages=pages)
            np.testing.assert_array_equal(layer.run(program, cache, batch, which), whole[which])
            start += many
    which, sequences = np.repeat(np.arange(n // 3), 3), np.tile(np.arange(3), n // 3)
    order = np.random.default_rng(5).permutation(len(which))
    tables = np.arange(3 * len(pages[0])).reshape(3, -1)
    batch = Batch(len(which), positions=which[order], sequences=sequences[order], pages=tables)
    found = layer.run(programs[1], layer.cache(tables.size, kind), batch, which[order])
    np.testing.assert_array_equal(found, whole[which[order]])


@pytest.mark.parametrize("kind", FORMATS)
def test_unseen_positions_may_hold_anything(native, kind):
    n = 12
    layer = Layer(native, n, 5)
    program, batch = layer.builder.program(), Batch(n, pages=[[0]])
    expected = layer.run(program, layer.cache(kind=kind), batch)
    layer.rows[8:] = np.nan
    layer.rows[9, 3] = np.inf
    cache = layer.cache(kind=kind)
    cache.page(0)[:] = b"\xff" * cache.page_bytes
    found = layer.run(program, cache, batch)
    np.testing.assert_array_equal(found[:8], expected[:8])
    assert np.isnan(found[8:]).all()


def test_what_does_not_fit_is_refused(native):
    with pytest.raises(ValueError, match="dim_v: found 9"):
        Layer(native, 1, 1, 8, 9).builder.program()
    layer = Layer(native, 1, 2, 8, 4)
    for shape in ((1, 8, 8), (1, 7, 0), (2, 8, 0)):
        with pytest.raises(ValueError, match="which do not fit rows of 8 and 0"):
            Batch(1, pages=[[0]]).run(layer.builder.program(), native.KvCache([shape], 1))
