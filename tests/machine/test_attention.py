"""Attention and the cache: against float64, and bit for bit whatever a token's company."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarion.plan.state import Paged
from tests.machine.build import Batch, Builder
from tests.plan.reference import Memory, Reference

INPUTS = ("q", "k", "v")


PLAIN = {"window": 0, "chunked": 0, "causal": 1, "cap": 0.0, "slopes": ()}


class Layer:
    """One layer's rope_kv and attention, or kv_write and attention, and inputs for a text of n tokens."""

    def __init__(
        self, native, n, n_head=4, n_head_kv=2, head_dim=20, window=0, rotate=True, seed=0, dim_v=0,
        sinks=None, **options,
    ):  # fmt: skip
        """options: those of `PLAIN` that differ. dim_v: 0 for head_dim."""
        rng, dim_v = np.random.default_rng(seed), dim_v or head_dim
        options = PLAIN | {"window": window} | options
        self.native, self.shape = native, (n_head_kv, head_dim, dim_v)
        b = self.builder = Builder(native, n)
        widths = (n_head * head_dim, n_head_kv * head_dim, n_head_kv * dim_v)
        self.inputs = [rng.standard_normal((n, width)).astype(np.float32) for width in widths]
        q, k, v = (b.buffer(name, width) for name, width in zip(INPUTS, widths, strict=True))
        out = b.buffer("o", n_head * dim_v)
        ints = {"state": 0, "n_head": n_head, "n_head_kv": n_head_kv, "head_dim": head_dim, "dim_v": dim_v}
        if rotate:
            n_rot = head_dim // 4 * 2
            r = b.buffer("r", n_rot)
            inv_freq = list(0.7 ** np.arange(n_rot // 2))
            b.op("rope_table", [], [r], arrays={"inv_freq": inv_freq}, floats={"magnitude": 1.0})
            gains = [b.weight(rng.standard_normal(head_dim)), -1]
            b.op("rope_kv", [q, k, v, r], [q], gains, ints | {"n_rot": n_rot, "neox": 1}, {"eps": 1e-6})
        else:
            b.op("kv_write", [k, v], [], [], {"state": 0})
        weights = [-1] if sinks is None else [b.weight(np.asarray(sinks))]
        ints |= {key: options[key] for key in ("window", "chunked", "causal")}
        floats = {"scale": head_dim**-0.5, "cap": options["cap"]}
        b.op("attention", [q], [out], weights, ints, floats, {"slopes": list(options["slopes"])})

    def cache(self, pages=6, kind="f32"):
        return self.native.KvCache([self.shape], pages, 64, *kind.split(":"))

    def run(self, program, cache, batch, which=None):
        """The rows of `which` (default: the first) as inputs; the output rows."""
        n = len(batch.positions)
        for name, rows in zip(INPUTS, self.inputs, strict=True):
            program.buffer(name)[:n] = rows[:n] if which is None else rows[which]
        assert batch.run(program, cache)
        return program.buffer("o")[:n].copy()

    def reference(self, batch):
        reference = Reference(self.builder.spec)
        for name, rows in zip(INPUTS, self.inputs, strict=True):
            reference.values[reference.index[name]] = rows[: len(batch.positions)].astype(np.float64)
        reference.run(
            Memory([Paged(*self.shape)]), batch.tokens, batch.positions, batch.sequences, batch.outputs
        )
        return reference.buffer("o")


@settings(max_examples=30, deadline=None)
@given(
    group=st.integers(1, 9), n_head_kv=st.integers(1, 3), head_dim=st.integers(4, 70), n=st.integers(1, 150),
    window=st.sampled_from([0, 1, 5, 64, 100]), rotate=st.booleans(), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_against_float64(native, group, n_head_kv, head_dim, n, window, rotate, seed):
    layer = Layer(native, n, group * n_head_kv, n_head_kv, head_dim, window, rotate, seed)
    batch = Batch(n, pages=[[4, 0, 2]])
    expected = layer.reference(batch)
    found = layer.run(layer.builder.program(2), layer.cache(5), batch)
    close(found, expected)


def close(found, expected):
    """Scores of normal q and k are of size 1; their sums of products round, and so do the weighted means."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=128 * 2.0**-24)


@settings(max_examples=30, deadline=None)
@given(
    group=st.integers(1, 9), n_head_kv=st.integers(1, 3), head_dim=st.integers(1, 70),
    dim_v=st.integers(1, 70), n=st.integers(1, 150), window=st.sampled_from([0, 1, 63, 64, 65]),
    chunked=st.booleans(), causal=st.booleans(), cap=st.sampled_from([0.0, 1.0, 50.0]),
    sloped=st.booleans(), sinks=st.booleans(), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_every_option_against_float64(
    native, group, n_head_kv, head_dim, dim_v, n, window, chunked, causal, cap, sloped, sinks, seed
):
    rng, n_head = np.random.default_rng(seed), group * n_head_kv
    layer = Layer(
        native, n, n_head, n_head_kv, head_dim, window, False, seed, dim_v,
        sinks=rng.uniform(-3, 3, n_head) if sinks else None,
        chunked=int(chunked and causal and window > 0), causal=int(causal), cap=cap,
        slopes=rng.uniform(-0.1, 1, n_head).tolist() if sloped else (),
    )  # fmt: skip
    batch = Batch(n, pages=[[4, 0, 2]])
    expected = layer.reference(batch)
    close(layer.run(layer.builder.program(2), layer.cache(5), batch), expected)


OPTIONS = {
    "widths": {"dim_v": 40},
    "cap": {"cap": 5.0},
    "window": {"window": 70},
    "chunks": {"window": 48, "chunked": 1},
    "slopes": {"slopes": (0.5, 0.25, 0.125, 0.0625)},
    "sinks": {"sinks": [2.0, -1.0, 0.0, 30.0]},
    "all": {"dim_v": 7, "cap": 3.0, "window": 100, "slopes": (1.0, 0.5, 0.25, 0.1), "sinks": [1.0, 2, 3, 4]},
}


@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0:bf16", "q4_0:q8_0"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options_give_the_same_bits_in_any_company(native, kind, options):
    """A text in one batch, in pieces of 1, 7 and 64, shuffled, on 1, 2 and 3 threads."""
    n = 150
    layer = Layer(native, n, rotate=False, **options)
    programs = [layer.builder.program(threads) for threads in (1, 2, 3)]
    pages = [[5, 1, 3]]
    whole = layer.run(programs[0], layer.cache(kind=kind), Batch(n, pages=pages))
    for program, piece in zip([*programs, programs[1]], (n, 64, 7, 1), strict=True):
        cache, found = layer.cache(kind=kind), []
        for start in range(0, n, piece):
            which = np.arange(start, min(n, start + piece))
            batch = Batch(len(which), positions=which, pages=pages)
            found.append(layer.run(program, cache, batch, which))
        np.testing.assert_array_equal(np.concatenate(found), whole)
    order = np.random.default_rng(1).permutation(n)
    batch = Batch(n, positions=order, pages=pages)
    np.testing.assert_array_equal(layer.run(programs[1], layer.cache(kind=kind), batch, order), whole[order])


@pytest.mark.parametrize("window", [0, 1, 64, 65, 200])
@pytest.mark.parametrize("kind", ["f32", "q8_0:f16"])
def test_texts_seen_in_both_directions(native, window, kind):
    """Several in one batch, of different lengths, tokens in any order: each as it is alone."""
    lengths = [1, 70, 130, 64]
    n = sum(lengths)
    layer = Layer(native, n, 6, 2, 24, window, False, causal=0)
    sequences = np.repeat(np.arange(4), lengths)
    positions = np.concatenate([np.arange(length) for length in lengths])
    pages = [[0, 6, 7], [1, 2, 7], [3, 4, 5], [6, 7, 7]]
    together = Batch(n, positions=positions, sequences=sequences, pages=pages)
    program, alone = layer.builder.program(2), layer.builder.program(1)
    found = layer.run(program, layer.cache(8, kind), together)
    if kind == "f32":
        close(found, layer.reference(together))
    for s, length in enumerate(lengths):
        which = np.flatnonzero(sequences == s)
        batch = Batch(length, pages=[[0, 2, 1]])
        np.testing.assert_array_equal(layer.run(alone, layer.cache(kind=kind), batch, which), found[which])
    order = np.random.default_rng(2).permutation(n)
    shuffled = Batch(n, positions=positions[order], sequences=sequences[order], pages=pages)
    np.testing.assert_array_equal(layer.run(program, layer.cache(8, kind), shuffled, order), found[order])


@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0"])
@pytest.mark.parametrize("chunked", [0, 1])
def test_pages_before_a_window_are_not_read(native, kind, chunked):
    """They belong to somebody else by now, and hold what would be seen in every result."""
    n, window = 300, 70
    layer = Layer(native, n, window=window, chunked=chunked, rotate=False)
    program, pages = layer.builder.program(2), [[1, 2, 3, 4, 5]]
    cache = layer.cache(kind=kind)
    whole = layer.run(program, cache, Batch(n, pages=pages))
    for position in (127, 139, 140, 141, 210, 299):
        first = position // window * window if chunked else position - window + 1
        cut = [[0] * (first // 64) + pages[0][first // 64 :]]
        other = layer.cache(kind=kind)
        layer.run(program, other, Batch(n, pages=pages))
        other.page(0)[:] = b"\xff" * other.page_bytes  # NaN in every format, and as a scale
        which = np.array([position])
        found = layer.run(program, other, Batch(1, positions=which, pages=cut), which)
        np.testing.assert_array_equal(found, whole[which])


def test_borders_of_windows_and_chunks(native):
    """Values that say which positions a query sees: with equal scores their mean is that of the positions."""
    n = 200
    for window, chunked, causal in ((70, 0, 1), (64, 1, 1), (1, 0, 1), (1, 1, 1), (33, 0, 0), (0, 0, 0)):
        layer = Layer(native, n, 1, 1, 16, window, False, chunked=chunked, causal=causal)
        layer.inputs[0][:] = 0
        layer.inputs[2][:] = np.arange(n)[:, None]
        found = layer.run(layer.builder.program(), layer.cache(), Batch(n, pages=[[0, 1, 2, 3]]))
        for p in range(n):
            first = max(0, p - window + 1) if window else 0
            first = p // window * window if chunked else first
            last = p if causal else min(n - 1, p + window - 1) if window else n - 1
            np.testing.assert_allclose(found[p], (first + last) / 2, rtol=1e-5, atol=1e-5)


def test_sinks_take_their_share(native):
    """One position with score 0, and a sink: e^0 / (e^0 + e^sink) of the value is left."""
    sinks = [0.0, 1.0, -np.inf, 200.0]
    layer = Layer(native, 1, 4, 1, 16, rotate=False, sinks=sinks)
    layer.inputs[0][:] = 0
    found = layer.run(layer.builder.program(), layer.cache(1), Batch(1, pages=[[0]])).reshape(4, 16)
    with np.errstate(over="ignore"):
        share = 1 / (1 + np.exp(np.array(sinks)))
    np.testing.assert_allclose(found, share[:, None] * layer.inputs[2], rtol=1e-6, atol=1e-37)
    assert (found[3] == 0).all()


def test_a_cap_bounds_the_scores(native):
    """Scores of any size are capped: the weights of two positions differ by a factor of e^2cap at most."""
    layer = Layer(native, 2, 1, 1, 16, rotate=False, cap=2.0)
    q, k, v = layer.inputs
    q[:], k[0], k[1], v[0], v[1] = 1, -1e30, 1e30, 1, 0
    found = layer.run(layer.builder.program(), layer.cache(1), Batch(2, pages=[[0]]))
    np.testing.assert_allclose(found[1], 1 / (1 + np.exp(4)), rtol=1e-5)
    k[1, 0] = np.nan
    assert np.isnan(layer.run(layer.builder.program(), layer.cache(1), Batch(2, pages=[[0]]))[1]).all()


@pytest.mark.parametrize("options", [{"chunked": 1}, {"chunked": 1, "window": 4, "causal": 0}])
def test_chunks_need_a_window(native, options):
    with pytest.raises(ValueError, match="chunks need a window, and causal attention"):
        Layer(native, 1, **options).builder.program()


def test_bad_options(native):
    for options, message in (
        ({"slopes": (1.0,)}, "found 1 slopes, expected 4"),
        ({"cap": -1.0}, "cap: expected a finite number, 0 or more"),
        ({"cap": np.nan}, "cap: expected a finite number, 0 or more"),
        ({"cap": np.inf}, "cap: expected a finite number, 0 or more"),
        ({"window": -1}, "window: found -1"),
        ({"sinks": [1.0, 2.0]}, "has 1 x 1 x 2 elements, expected 4"),
    ):
        with pytest.raises(ValueError, match=message):
            Layer(native, 1, **options).builder.program()


@pytest.mark.parametrize("head_dim", [16, 33])
def test_f16_cache_rounds_once(native, head_dim):
    """With keys and values that f16 holds exactly, the kind of cache makes no difference."""
    layer = Layer(native, 100, head_dim=head_dim, rotate=False)
    layer.inputs = [rows.astype(np.float16).astype(np.float32) for rows in layer.inputs]
    batch = Batch(100, pages=[[1, 0]])
    f32, f16 = (layer.run(layer.builder.program(), layer.cache(2, kind), batch) for kind in ("f32", "f16"))
    np.testing.assert_array_equal(f32, f16)


@pytest.mark.sample(30)
@pytest.mark.parametrize(("n_head", "n_head_kv"), [(1, 1), (5, 5), (8, 2), (9, 3), (7, 1), (64, 1)])
@pytest.mark.parametrize("window", [0, 70])
@pytest.mark.parametrize("kind", ["f32", "f16", "bf16:q8_0", "q8_0:f16", "q4_0"])
def test_same_bits_in_any_company(native, n_head, n_head_kv, window, kind):
    """A text of 150 tokens in one batch, in pieces, beside other sequences, on 1, 2 and 3 threads."""
    n = 150
    layer = Layer(native, n, n_head, n_head_kv, 24, window)
    pages = [[5, 1, 3]]
    programs = [layer.builder.program(threads) for threads in (1, 2, 3)]
    whole = layer.run(programs[0], layer.cache(kind=kind), Batch(n, pages=pages))
    for program in programs[1:]:
        np.testing.assert_array_equal(
            layer.run(program, layer.cache(kind=kind), Batch(n, pages=pages)), whole
        )

    for piece in (1, 7, 64, 100):
        cache, found = layer.cache(kind=kind), []
        for start in range(0, n, piece):
            which = np.arange(start, min(n, start + piece))
            found.append(
                layer.run(programs[1], cache, Batch(len(which), positions=which, pages=pages), which)
            )
        np.testing.assert_array_equal(np.concatenate(found), whole)

    # Three sequences of the same text, their tokens shuffled together, at different pages.
    rng = np.random.default_rng(5)
    which, sequences = np.repeat(np.arange(50), 3), np.tile(np.arange(3), 50)
    order = rng.permutation(150)
    batch = Batch(n, positions=which[order], sequences=sequences[order], pages=[[2], [0], [4]])
    found = layer.run(programs[2], layer.cache(kind=kind), batch, which[order])
    np.testing.assert_array_equal(found, whole[which[order]])


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0", "q4_0"])
@pytest.mark.parametrize("n_head", [4, 20])
def test_unseen_positions_may_hold_anything(native, kind, n_head):
    """A later token's infinities reach neither earlier tokens of its batch nor those after a rollback."""
    n = 12
    layer = Layer(native, n, n_head, rotate=False)
    batch, program = Batch(n, pages=[[0]]), layer.builder.program()
    expected = layer.run(program, layer.cache(kind=kind), batch)
    clean = [rows.copy() for rows in layer.inputs]
    for rows in layer.inputs:
        rows[8:] = np.nan
    layer.inputs[2][8:] = np.inf
    cache = layer.cache(kind=kind)
    found = layer.run(program, cache, batch)
    np.testing.assert_array_equal(found[:8], expected[:8])
    assert np.isnan(found[8:]).all()

    layer.inputs = clean
    which = np.arange(8, n)
    rolled_back = layer.run(program, cache, Batch(4, positions=which, pages=[[0]]), which)
    np.testing.assert_array_equal(rolled_back, expected[8:])


@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0:q4_0", "q4_0:bf16"])
def test_fork(native, kind):
    """Two continuations of one text, the second on a copy of its last page."""
    n = 100
    layer = Layer(native, n)
    program, cache = layer.builder.program(2), layer.cache(kind=kind)
    whole = layer.run(program, cache, Batch(n, pages=[[0, 1]]))
    cache.copy_page(1, 3)
    other = np.arange(70, 80)
    layer.run(
        program, cache, Batch(10, positions=other, pages=[[0, 3]]), other[::-1]
    )  # other tokens, other page
    last = np.array([99])
    again = layer.run(program, cache, Batch(1, positions=last, pages=[[0, 1]]), last)
    np.testing.assert_array_equal(again[0], whole[99])
    changed = layer.run(program, cache, Batch(1, positions=last, pages=[[0, 3]]), last)
    assert not np.array_equal(changed[0], whole[99])


def test_cache_takes_no_memory_until_it_is_used(native):
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    before = resident()
    cache = native.KvCache([(8, 128, 128)] * 32, 1024)
    assert cache.bytes == 32 * 8 * 1024 * 64 * (128 + 128) * 2
    assert resident() - before < 2**20


def test_bad_caches(native):
    for layers, pages, size, kind, message in (
        ([(1, 8, 8)], 0, 64, "f16", "pages: found 0"),
        ([(0, 8, 8)], 1, 64, "f16", "heads of a layer: found 0"),
        ([(1, -8, 8)], 1, 64, "f16", "dim_k of a layer: found -8"),
        ([(1, 8)], 1, 64, "f16", "layers: expected"),
        ([(1, 8, 8)], 1, 32, "f16", "page_size: found 32, expected 64"),
        ([(1, 8, 8)], 1, 64, "f8", "cache format: found 'f8', expected f32, f16, bf16, q8_0 or q4_0"),
        ([(2**31, 2**31, 8)], 2**31 - 1, 64, "f16", "too large"),
    ):
        with pytest.raises(ValueError, match=message):
            native.KvCache(layers, pages, size, kind)
    cache = native.KvCache([(1, 8, 8)], 2)
    for pages in ((0, 2), (-1, 0)):
        with pytest.raises(ValueError, match="page: found"):
            cache.copy_page(*pages)
