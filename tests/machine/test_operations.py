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

from clarion.plan.operations import OPERATIONS
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


INF, NAN = np.inf, np.nan
EDGES = [0.0, -0.0, 1e-40, -1e-40, 88.0, -88.0, 200.0, -200.0, 3e38, -3e38, INF, -INF, NAN]


@pytest.mark.parametrize(
    ("op", "parameters", "expected"),
    [
        ("gelu", {"tanh": 0}, [0, -0.0, 5e-41, -5e-41, 88, 0, 200, 0, 3e38, 0, INF, 0, NAN]),
        ("gelu", {"tanh": 1}, [0, -0.0, 5e-41, -5e-41, 88, 0, 200, 0, 3e38, 0, INF, 0, NAN]),
        ("relu_squared", {}, [0, 0, 0, 0, 7744, 0, 40000, 0, INF, 0, INF, 0, NAN]),
        ("logistic", {}, [0.5, 0.5, 0.5, 0.5, 1, 0, 1, 0, 1, 0, 1, 0, NAN]),
        ("softplus", {}, [*[np.log(2)] * 4, 88, 0, 200, 0, 3e38, 0, INF, 0, NAN]),
        ("tanh", {"cap": 1.0}, [0, -0.0, 1e-40, -1e-40, 1, -1, 1, -1, 1, -1, 1, -1, NAN]),
        ("scale", {"factor": -1.0}, [-value for value in EDGES]),
    ],
    ids=["gelu", "gelu of tanh", "relu_squared", "logistic", "softplus", "tanh", "scale"],
)  # fmt: skip
def test_activations_at_the_edges(native, op, parameters, expected):
    b = Builder(native, 1)
    ints = {key: value for key, value in parameters.items() if isinstance(value, int)}
    floats = {key: value for key, value in parameters.items() if isinstance(value, float)}
    b.op(op, [b.buffer("x", len(EDGES))], [b.buffer("y", len(EDGES))], ints=ints, floats=floats)
    program = b.program()
    program.buffer("x")[:] = np.array(EDGES, np.float32)
    assert Batch(1).run(program)
    found = program.buffer("y")[0]
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(found, np.float32(expected), rtol=1e-6, atol=1e-36)
    if op != "relu_squared":  # which has no negative results
        signs = [np.signbit(value) for value in expected[:2]]
        np.testing.assert_array_equal(np.signbit(found[:2]), signs)


@pytest.mark.parametrize("op", ["gelu", "tanh", "softplus"])
def test_activations_keep_the_digits_of_small_results(native, op):
    """Relative to the result itself, where that is far smaller than the parts that it is made of."""
    x = np.concatenate([-np.geomspace(1e-6, 8, 500), np.geomspace(1e-6, 8, 500)]).astype(np.float32)
    b = Builder(native, 1)
    ints, floats = ({"tanh": 0}, {}) if op == "gelu" else ({}, {"cap": 1.0} if op == "tanh" else {})
    b.op(op, [b.buffer("x", len(x))], [b.buffer("y", len(x))], ints=ints, floats=floats)
    program = b.program()
    program.buffer("x")[:] = x
    assert Batch(1).run(program)
    wanted = OPERATIONS[op].definition(np, x.astype(np.float64)[None], **ints, **floats)[0]
    np.testing.assert_allclose(program.buffer("y")[0], wanted, rtol=64 * UNIT, atol=0)


def test_a_clamped_gate_at_the_edges(native):
    b, n = Builder(native, 1), 6
    b.op(
        "swiglu_clamped", [b.buffer("g", n), b.buffer("u", n)], [b.buffer("y", n)],
        floats={"alpha": 1.0, "limit": 7.0, "shift": 1.0},
    )  # fmt: skip
    program = b.program()
    program.buffer("g")[:] = np.array([INF, 3e38, -200, NAN, 100, 100], np.float32)
    program.buffer("u")[:] = np.array([INF, -INF, 3e38, 0, NAN, -3e38], np.float32)
    assert Batch(1).run(program)
    g = 7 / (1 + np.exp(-7))
    np.testing.assert_allclose(
        program.buffer("y")[0], [8 * g, -6 * g, 0, NAN, NAN, -6 * g], rtol=1e-6, atol=1e-36
    )


@pytest.mark.parametrize("width", [1, 3, 16, 700])
def test_layer_norm_of_a_row_far_from_zero(native, width):
    """Where the mean is ten thousand times the deviation, its rounding alone would cost four digits."""
    b = Builder(native, 1)
    b.op("layer_norm", [b.buffer("x", width)], [b.buffer("y", width)], [-1, -1], floats={"eps": 1e-12})
    x = rows(np.random.default_rng(width), 1, width) + np.float32(10000)
    check(b, Batch(1), {"x": x}, ["y"], 2 * FEW)


def test_a_mean_is_that_of_a_sequence(native):
    b, width = Builder(native, 40), 700
    b.op("mean_rows", [b.buffer("x", width)], [b.buffer("y", width, rows="outputs")])
    rng = np.random.default_rng(3)
    x, sequences, outputs = rows(rng, 40, width) + 100, rng.integers(0, 3, 40), rng.integers(0, 40, 7)
    batch = Batch(40, sequences=sequences, pages=((), (), ()), outputs=outputs)
    check(b, batch, {"x": x}, ["y"], UNIT)
    program = b.program()
    x[sequences != sequences[outputs[0]]] = NAN  # those of others do not matter
    program.buffer("x")[:] = x
    assert batch.run(program)
    assert np.isfinite(program.buffer("y")[0]).all()


def test_numbers_of_experts_that_do_not_exist(native):
    """A program may compute any ids: they name the last one."""
    b = Builder(native, 1)
    b.op("chosen", [b.buffer("ids", 3, "i32")], [b.buffer("y", 3)], [b.weight(np.array([5.0, 6.0]))])
    program = b.program()
    program.buffer("ids")[:] = [0, 7, -1]
    assert Batch(1).run(program)
    assert program.buffer("y").tolist() == [[5, 6, 6]]


def test_positions_beyond_the_table(native):
    b = Builder(native, 2)
    b.op("embed_positions", [], [b.buffer("x", 3)], [b.weight(np.ones((5, 3)))])
    program = b.program()
    assert Batch(2, positions=[0, 4]).run(program)
    with pytest.raises(ValueError, match=r"positions\[1\]: found 5, expected 0 to 4"):
        Batch(2, positions=[0, 5]).run(program)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("op", ["linear", "expert_linear"])
def test_biases_of_float_formats(native, op, kind):
    rng, b, n, m = np.random.default_rng(2), Builder(native, 9), 20, 37
    experts = 4 if op == "expert_linear" else 1
    biases = rng.integers(-8, 8, (experts, m)) / 8.0  # exact in all of them
    matrix = b.weight(rows(rng, experts * m, n).reshape(experts, m, n))
    bias = b.weight(biases)
    data = {"F32": biases.astype(np.float32), "F16": biases.astype(np.float16)}
    data["BF16"] = (data["F32"].view(np.uint32) >> 16).astype(np.uint16)
    b.spec["weights"][bias] |= {
        "format": {"F32": 0, "F16": 1, "BF16": 30}[kind],
        "data": data[kind].view(np.uint8).reshape(-1),
    }
    x, given = b.buffer("x", n), {"x": rows(rng, 9, n)}
    if op == "expert_linear":
        inputs, slots = [x, b.buffer("ids", 2, "i32")], 2
        given["ids"] = np.stack([rng.permutation(4)[:2] for _ in range(9)])
    else:
        inputs, slots = [x], 1
    b.op(op, inputs, [b.buffer("y", m, slots=slots)], [matrix, bias])
    check(b, Batch(9), given, ["y"], SUM)


@pytest.mark.parametrize(
    ("format_", "shape", "message"),
    [
        (0, (3, 8), r"is F32 \[3, 8\], expected floats \[4, 8\]"),
        (0, (4, 7), r"is F32 \[4, 7\], expected floats \[4, 8\]"),
        (8, (4, 32), r"is Q8_0 \[4, 32\], expected floats \[4, 8\]"),
    ],
)
def test_biases_that_do_not_fit(native, format_, shape, message):
    b = Builder(native, 1)
    matrix, bias = b.weight(np.zeros((4, 8, 5))), b.weight(np.zeros(shape))
    b.spec["weights"][bias]["format"] = format_
    ids = b.buffer("ids", 2, "i32")
    b.op("expert_linear", [b.buffer("x", 5), ids], [b.buffer("y", 8, slots=2)], [matrix, bias])
    with pytest.raises(ValueError, match=f"bias 'w1' {message}"):
        b.program()


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


ENCODING: dict[str, tuple[int, dict[str, int], dict[str, float]]] = {  # inputs, parameters
    "rms_norm": (1, {}, {"eps": 1e-6}),
    "layer_norm": (1, {}, {"eps": 1e-6}),
    "swiglu": (2, {}, {}),
    "geglu": (2, {"tanh": 1}, {}),
    "swiglu_clamped": (2, {}, {"alpha": 1.7, "limit": 7.0, "shift": 1.0}),
    "gelu": (1, {"tanh": 0}, {}),
    "relu_squared": (1, {}, {}),
}


@pytest.mark.parametrize("kind", ["fast", "high"])
@pytest.mark.parametrize("op", ENCODING)
def test_encoded_output_is_that_of_encode(native, op, kind):
    """An operation that can write its result encoded does it just as an `encode` after it would."""
    rng, width, n = np.random.default_rng(1), 160, 9
    x, u = rows(rng, n, width), rows(rng, n, width)
    # Q8_0 blocks: a scale and 32 integers. The scale, 1.0, is 0x3c00.
    blocks = np.concatenate([np.tile([0, 0x3C], (35, 1)), rng.integers(0, 256, (35, 32))], 1).astype(np.uint8)
    q8_0 = {"name": "q", "format": 8, "rows": 7, "cols": width, "experts": 1, "data": blocks.reshape(-1)}
    n_inputs, ints, floats = ENCODING[op]
    results = []
    for fused in (True, False):
        b = Builder(native, n)
        inputs = [b.buffer("x", width), b.buffer("u", width)][:n_inputs]
        plain, encoded, y = b.buffer("plain", width), b.buffer("encoded", width, kind), b.buffer("y", 7)
        weights = [b.weight(np.ones(width)) for _ in OPERATIONS[op].weights]
        b.op(op, inputs, [encoded if fused else plain], weights, ints, floats)
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


def routing(
    b, n_expert, k, gating=0, normalize=True, n_group=1, n_group_used=1, group_top=1, scale=1.0, bias=-1
):
    b.op(
        "route",
        [b.buffer("scores", n_expert)],
        [b.buffer("ids", k, "i32"), b.buffer("w", k)],
        [bias],
        ints={
            "k": k,
            "gating": gating,
            "n_group": n_group,
            "n_group_used": n_group_used,
            "group_top": group_top,
            "normalize": int(normalize),
        },
        floats={"scale": scale},
    )


@settings(max_examples=25)
@given(
    seed=seeds,
    n=tokens,
    n_expert=st.integers(1, 70),
    normalize=st.booleans(),
    gating=st.integers(0, 3),
    data=st.data(),
)
def test_route(native, seed, n, n_expert, normalize, gating, data):
    k = data.draw(st.integers(1, n_expert))
    rng, b = np.random.default_rng(seed), Builder(native, 40)
    scores = rows(rng, n, n_expert) * 3
    scores[:, rng.integers(n_expert)] = scores[:, rng.integers(n_expert)]  # ties go to the lower id
    routing(b, n_expert, k, gating, normalize, scale=2.5)
    check(b, Batch(n), {"scores": scores}, ["ids"], 0)
    check(b, Batch(n), {"scores": scores}, ["w"], SUM)


def test_route_gives_distinct_experts_for_any_scores(native):
    b, k = Builder(native, 5), 3
    routing(b, 4, k)
    program = b.program()
    program.buffer("scores")[:] = [
        [NAN] * 4, [NAN, 1, NAN, 2], [-INF] * 4, [INF, -INF, NAN, INF], [-3e38, -INF, 3e38, 0]
    ]  # fmt: skip
    assert Batch(5).run(program)
    assert program.buffer("ids").tolist() == [[0, 1, 2], [3, 1, 0], [0, 1, 2], [0, 3, 1], [2, 3, 0]]
    np.testing.assert_array_equal(program.buffer("w")[4], [1, 0, 0])


@pytest.mark.parametrize("gating", range(4))
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("biased", [False, True])
def test_route_stays_in_range_for_any_scores(native, gating, groups, biased):
    b, n, n_expert, k = Builder(native, 300), 300, 16, 7
    rng = np.random.default_rng([gating, groups, biased])
    edges = np.array([0, -0.0, 1, -1, 100, -100, 3e38, -3e38, 1e-40, INF, -INF, NAN], np.float32)
    bias = b.weight(rng.choice(edges, n_expert)) if biased else -1
    used = max(1, groups // 2)
    routing(b, n_expert, k, gating, True, groups, used, group_top=2, bias=bias)
    program = b.program()
    program.buffer("scores")[:] = rng.choice(edges, (n, n_expert))
    assert Batch(n).run(program)
    ids = program.buffer("ids")
    assert ids.min() >= 0
    assert ids.max() < n_expert
    assert all(len(set(row)) == k for row in ids.tolist())


def test_route_weighs_experts_that_a_bias_chose(native):
    """Their scores may be so far below the highest that exp of the difference is nothing."""
    b = Builder(native, 1)
    routing(b, 3, 2, bias=b.weight(np.array([0.0, 5.0, 5.0])))
    check(b, Batch(1), {"scores": np.array([[300, 1, 0]], np.float32)}, ["ids"], 0)
    check(b, Batch(1), {"scores": np.array([[300, 1, 0]], np.float32)}, ["w"], SUM)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k: found 0, expected 1 to 12"),
        ({"gating": 4}, "gating: found 4, expected 0 to 3"),
        ({"n_group": 5}, "n_group: found 5, expected a divisor of 12"),
        ({"n_group": 4, "n_group_used": 5}, "n_group_used: found 5, expected 1 to 4"),
        ({"n_group": 4, "n_group_used": 0}, "n_group_used: found 0, expected 1 to 4"),
        ({"n_group": 4, "group_top": 4}, "group_top: found 4, expected 1 to 3"),
        ({"n_group": 4, "k": 4}, "k: found 4, expected 1 to 3"),
        ({"normalize": 2}, "normalize: found 2, expected 0 or 1"),
    ],
)
def test_routes_that_do_not_fit(native, change, message):
    b = Builder(native, 1)
    routing(b, 12, change.get("k", 2) or 1)
    b.spec["ops"][0]["ints"] |= change
    with pytest.raises(ValueError, match=message):
        b.program()


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
