"""What random cases of the table (test_cases.py) do not reach: values at the edge of the range, several kinds
of results, refusals.

Tolerances, relative to the largest element of inputs and result, in units of the rounding error 2⁻²⁴: an
operation of few roundings may err by a few units; a sum of n products by about sqrt(n), for which 64 is room
up to n = 1000.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.machine.build import Batch, Builder, check

UNIT = 2.0**-24
FEW, SUM = 16 * UNIT, 64 * UNIT

widths = st.integers(1, 100)
tokens = st.integers(1, 40)
seeds = st.integers(0, 2**32 - 1)


def rows(rng, n, width):
    return rng.standard_normal((n, width)).astype(np.float32)


def test_silu_of_extreme_values(native):
    b = Builder(native, 1)
    x = np.array([[0.0, -0.0, 88.0, -88.0, 200.0, -200.0, 3e38, -3e38, np.inf, np.nan, 1e-40]], np.float32)
    b.op("silu", [b.buffer("x", x.shape[1])], [b.buffer("y", x.shape[1])])
    program = b.program()
    program.buffer("x")[:] = x
    assert Batch(1).run(program)
    expected = [0, 0, 88, -88 * np.exp(-88), 200, 0, 3e38, 0, np.inf, np.nan, 5e-41]
    np.testing.assert_allclose(program.buffer("y")[0], expected, rtol=1e-6, atol=1e-36)


@settings(max_examples=25)
@given(
    seed=seeds,
    n=tokens,
    width=st.integers(1, 700),
    kinds=st.sampled_from([["f32"], ["f32", "high"], ["fast"]]),
)
def test_norm(native, seed, n, width, kinds):
    rng, b = np.random.default_rng(seed), Builder(native, 40)
    x = b.buffer("x", width)
    outputs = [b.buffer(kind, width, kind) for kind in kinds]
    b.op("rms_norm", [x], outputs, [b.weight(rows(rng, 1, width)[0])], floats={"eps": 1e-5})
    names = [name for name in kinds if name == "f32"]
    check(b, Batch(n), {"x": rows(rng, n, width) * 30}, names, FEW)


@pytest.mark.parametrize("kind", ["fast", "high"])
@pytest.mark.parametrize("op", ["rms_norm", "swiglu"])
def test_encoded_output_is_that_of_encode(native, op, kind):
    """rms_norm and swiglu encode their result just as an `encode` after them would."""
    rng, width, n = np.random.default_rng(1), 160, 9
    x, u = rows(rng, n, width), rows(rng, n, width)
    # Q8_0 blocks: a scale and 32 integers. The scale, 1.0, is 0x3c00.
    blocks = np.concatenate([np.tile([0, 0x3C], (35, 1)), rng.integers(0, 256, (35, 32))], 1).astype(np.uint8)
    q8_0 = {"name": "q", "format": 8, "rows": 7, "cols": width, "experts": 1, "data": blocks.reshape(-1)}
    results = []
    for fused in (True, False):
        b = Builder(native, n)
        inputs = [b.buffer("x", width), b.buffer("u", width)][: 1 if op == "rms_norm" else 2]
        plain, encoded, y = b.buffer("plain", width), b.buffer("encoded", width, kind), b.buffer("y", 7)
        weights, floats = ([b.weight(np.ones(width))], {"eps": 1e-6}) if op == "rms_norm" else ((), {})
        b.op(op, inputs, [encoded if fused else plain], weights, floats=floats)
        if not fused:
            b.op("encode", [plain], [encoded])
        b.spec["weights"].append(q8_0)
        b.op("linear", [encoded], [y], [len(b.spec["weights"]) - 1, -1])
        program = b.program()
        program.buffer("x")[:], program.buffer("u")[:] = x, u
        assert Batch(n).run(program)
        results.append(program.buffer("y").copy())
    assert np.abs(results[0]).min() > 0
    np.testing.assert_array_equal(*results)


@settings(max_examples=25)
@given(seed=seeds, n=tokens, half=st.integers(1, 40), magnitude=st.floats(0.1, 3))
def test_rope_table(native, seed, n, half, magnitude):
    rng, b = np.random.default_rng(seed), Builder(native, 40)
    inv_freq = list(rng.uniform(0, 1, half))
    b.op(
        "rope_table",
        [],
        [b.buffer("r", 2 * half)],
        arrays={"inv_freq": inv_freq},
        floats={"magnitude": magnitude},
    )
    check(b, Batch(n, positions=rng.integers(0, 2**20, n)), {}, ["r"], 2 * UNIT)


@settings(max_examples=25)
@given(seed=seeds, n=tokens, n_expert=st.integers(1, 70), normalize=st.booleans(), data=st.data())
def test_route(native, seed, n, n_expert, normalize, data):
    k = data.draw(st.integers(1, n_expert))
    rng, b = np.random.default_rng(seed), Builder(native, 40)
    scores = rows(rng, n, n_expert) * 3
    scores[:, rng.integers(n_expert)] = scores[:, rng.integers(n_expert)]  # ties go to the lower id
    b.op(
        "route", [b.buffer("scores", n_expert)], [b.buffer("ids", k, "i32"), b.buffer("w", k)],
        ints={"k": k, "normalize": int(normalize)},
    )  # fmt: skip
    check(b, Batch(n), {"scores": scores}, ["ids"], 0)
    check(b, Batch(n), {"scores": scores}, ["w"], SUM)


def test_route_gives_distinct_experts_for_any_scores(native):
    b, k = Builder(native, 5), 3
    b.op(
        "route", [b.buffer("scores", 4)], [b.buffer("ids", k, "i32"), b.buffer("w", k)],
        ints={"k": k, "normalize": 1},
    )  # fmt: skip
    program = b.program()
    inf, nan = np.inf, np.nan
    program.buffer("scores")[:] = [
        [nan] * 4, [nan, 1, nan, 2], [-inf] * 4, [inf, -inf, nan, inf], [-3e38, -inf, 3e38, 0]
    ]  # fmt: skip
    assert Batch(5).run(program)
    assert program.buffer("ids").tolist() == [[0, 1, 2], [3, 1, 0], [0, 1, 2], [0, 3, 1], [2, 3, 0]]
    np.testing.assert_array_equal(program.buffer("w")[4], [1, 0, 0])


@settings(max_examples=40)
@given(
    seed=seeds,
    n=tokens,
    width=st.integers(1, 600),
    k=st.integers(1, 3),
    experts=st.integers(3, 5),
    of=st.sampled_from(["rows", "tokens of experts", "slots of experts"]),
)
def test_square_sums(native, seed, n, width, k, experts, of):
    rng, b = np.random.default_rng(seed), Builder(native, 40)
    slots = of == "slots of experts"
    inputs = [b.buffer("x", width, slots=k if slots else 1)]
    given = {"x": rows(rng, n * (k if slots else 1), width)}
    if of == "rows":
        experts = 1
    else:
        inputs.append(b.buffer("ids", k, "i32"))
        given["ids"] = np.stack([rng.permutation(experts)[:k] for _ in range(n)])
    outputs = [b.buffer("sums", experts * width, rows="batch"), b.buffer("counts", experts, rows="batch")]
    b.op("square_sums", inputs, outputs, ints={"experts": experts})
    check(b, Batch(n), given, ["sums", "counts"], SUM)


def test_square_sums_begin_anew_with_each_batch(native):
    b = Builder(native, 4)
    x, sums, counts = b.buffer("x", 3), b.buffer("sums", 3, rows="batch"), b.buffer("counts", 1, rows="batch")
    b.op("square_sums", [x], [sums, counts], ints={"experts": 1})
    program = b.program()
    program.buffer("x")[:] = [1, 2, 3]
    for n in (4, 2):
        assert Batch(n).run(program)
        np.testing.assert_array_equal(program.buffer("sums"), [[n, 4 * n, 9 * n]])
        np.testing.assert_array_equal(program.buffer("counts"), [[n]])


@pytest.mark.parametrize(
    ("experts", "sums", "rows_", "message"),
    [
        (2, 6, "batch", "without their ids"),
        (1, 4, "batch", "4 wide, expected 1 times 3"),
        (0, 3, "batch", "experts is 0"),
        (1, 3, "tokens", "rows of tokens, expected batch"),
    ],
)
def test_square_sums_that_do_not_fit(native, experts, sums, rows_, message):
    b = Builder(native, 4)
    outputs = [b.buffer("sums", sums, rows=rows_), b.buffer("counts", max(experts, 1), rows="batch")]
    b.op("square_sums", [b.buffer("x", 3)], outputs, ints={"experts": experts})
    with pytest.raises(ValueError, match=message):
        b.program()
