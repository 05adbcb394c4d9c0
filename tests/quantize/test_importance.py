"""With any importance, each block is written at least as well as it would be by what is simpler."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarion.gguf import format_named
from clarion.quantize import dequantize_tensor, quantize_tensor, writable

NAMES = [format.name for format in writable() if format.name != "F32"]
COLS = 512
UNIT = 2.0**-24  # a rounding of float32, relative

# Weights of a group, its last code, and the largest integer that scales it, where groups share a scale.
WITH_MINIMUM = {
    "Q4_1": (32, 15, 0),
    "Q5_1": (32, 31, 0),
    "Q2_K": (16, 3, 15),
    "Q4_K": (32, 15, 63),
    "Q5_K": (32, 31, 63),
}

IMPORTANCES = {
    "zeros": lambda rng: np.zeros(COLS),
    "alike": lambda rng: np.ones(COLS),
    "one column": lambda rng: (np.arange(COLS) == rng.integers(COLS)) * 1.0,
    "one of 32": lambda rng: (np.arange(32) == rng.integers(32, size=(COLS // 32, 1))).reshape(-1) * 1.0,
    "one of 256": lambda rng: (np.arange(256) == rng.integers(256, size=(COLS // 256, 1))).reshape(-1) * 1.0,
    "two of 32": lambda rng: (np.arange(16) == rng.integers(16, size=(COLS // 16, 1))).reshape(-1) * 1.0,
    "ratios": lambda rng: rng.choice([1e-6, 1.0, 1e6], COLS),
    "wider ratios": lambda rng: rng.choice([1e-30, 1.0, 1e30], COLS),
    "sigma 3": lambda rng: rng.lognormal(0, 3, COLS),
    "dead columns": lambda rng: rng.lognormal(0, 1, COLS) * (rng.random(COLS) < rng.choice([0.05, 0.5, 0.9])),
    "dead groups": lambda rng: rng.lognormal(0, 1, COLS) * np.repeat(rng.random(COLS // 16) < 0.5, 16),
    "outlier": lambda rng: 1 + 1e6 * (np.arange(COLS) == rng.integers(COLS)),
}  # fmt: skip
WEIGHTS = {
    "normal": lambda rng: rng.standard_normal((2, COLS)) * 0.03,
    "student": lambda rng: rng.standard_t(3, (2, COLS)) * 0.02,
    "positive": lambda rng: 1 + rng.random((2, COLS)) * 0.1,
    "negative": lambda rng: -1 - rng.random((2, COLS)) * 0.1,
    "constant": lambda rng: np.full((2, COLS), rng.choice([0.0371, -0.0371])),
    "zeros": lambda rng: np.zeros((2, COLS)),
    "outlier": lambda rng: (np.arange(COLS) == rng.integers(COLS, size=(2, 1))) * rng.choice([0.5, -0.5]),
    "large outlier": lambda rng: rng.standard_normal((2, COLS)) * 0.03 + 5 * (rng.random((2, COLS)) < 0.004),
    "small": lambda rng: rng.standard_normal((2, COLS)) * 1e-5,
}


def by_block(values, name):
    return values.reshape(-1, format_named(name).block_size)


def errors(rows, found, importance, name):
    return (by_block(np.square(found - rows) * importance, name)).sum(1)


def nearest_half(x):
    return np.clip(x, -65504, 65504).astype(np.float16).astype(np.float64)


def best_scales(x, w, last):
    """Of each group the scale without an offset, from several that put the largest weight near the last code,
    or the one that counts most: [groups]."""
    at = np.arange(len(x))
    ends = [x[at, np.abs(x).argmax(1)], x[at, (w * x * x).argmax(1)], x[at, x.argmax(1)]]
    best, least = np.zeros(len(x)), (w * x * x).sum(1)
    for end in ends:
        for t in np.linspace(0.6, 1.1, 11):
            scale = end / (last * t)
            q = np.clip(np.rint(np.divide(x.T, scale, out=np.zeros_like(x.T), where=scale != 0).T), 0, last)
            below = (w * q * q).sum(1)
            scale = np.divide((w * q * x).sum(1), below, out=np.zeros(len(x)), where=below > 0)
            error = (w * np.square(x - scale[:, None] * q)).sum(1)
            best, least = np.where(error < least, scale, best), np.minimum(error, least)
    return best


def scale_only(rows, importance, name):
    """The weights as a format with a minimum holds them where it is not used."""
    n, last, most = WITH_MINIMUM[name]
    x = rows.reshape(-1, n)
    w = np.broadcast_to(importance, rows.shape).reshape(-1, n)
    scale = best_scales(x, w / np.maximum(w.max(1, keepdims=True), 1e-300), last)
    if most:
        groups = np.maximum(scale, 0).reshape(-1, 256 // n)
        d = nearest_half(groups.max(1, keepdims=True) / most)
        s = np.clip(np.rint(np.divide(groups, d, out=np.zeros_like(groups), where=d > 0)), 0, most)
        scale = (d * s).reshape(-1)
    else:
        scale = nearest_half(scale)
    scale = scale[:, None]
    q = np.clip(np.rint(np.divide(x, scale, out=np.zeros_like(x), where=scale != 0)), 0, last)
    return (scale * q).reshape(rows.shape)


def check(rows, importance, name):
    rows = rows.astype(np.float32)
    wanted, w = rows.astype(np.float64), importance.astype(np.float64)
    cols = rows.shape[1]
    found = dequantize_tensor(quantize_tensor(rows, name, importance), name, cols).astype(np.float64)
    others = {
        "zeros": np.zeros_like(wanted),
        "unweighted": dequantize_tensor(quantize_tensor(rows, name), name, cols).astype(np.float64),
    }
    if name in WITH_MINIMUM:
        others["scale only"] = scale_only(wanted, w, name)
    error = np.sqrt(errors(wanted, found, w, name))
    for other, values in others.items():
        # Errors of n weights are compared as float32 sums: each term is off by its own rounding, and each
        # difference by those of its two sides.
        n = format_named(name).block_size
        sides = np.sqrt(by_block(w * np.square(np.abs(wanted) + np.abs(found) + np.abs(values)), name).sum(1))
        allowed = np.sqrt(errors(wanted, values, w, name)) * (1 + 2 * (n + 4) * UNIT) + 8 * UNIT * sides
        if other == "scale only":  # which scale comes nearest depends on how float16 rounds it
            last, most = WITH_MINIMUM[name][1:]
            heaviest = by_block(w * np.square(wanted), name).argmax(1)[:, None]
            largest = np.take_along_axis(by_block(np.abs(wanted), name), heaviest, 1)[:, 0]
            rounding = 2.0**-12 + 2.0**-25 * last * max(most, 1) / np.maximum(largest, 1e-300)
            allowed += rounding * np.sqrt(by_block(w * np.square(wanted), name).sum(1))
        assert (error <= allowed).all(), (other, (error / np.maximum(allowed, 1e-300)).max())


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None, print_blob=True)
@given(st.sampled_from(sorted(IMPORTANCES)), st.sampled_from(sorted(WEIGHTS)),
       st.sampled_from([1.0, 1e-30, 1e30]), st.integers(0, 2**32 - 1))  # fmt: skip
def test_no_block_is_worse_than_what_is_simpler(name, importance, weights, scale, seed):
    rng = np.random.default_rng(seed)
    check(WEIGHTS[weights](rng), IMPORTANCES[importance](rng) * scale, name)


def test_one_weight_that_counts_is_kept():
    for name in NAMES:
        rng = np.random.default_rng(11)
        rows = (rng.standard_normal((64, 256)) * 0.05).astype(np.float32)
        importance = np.zeros(256)
        importance[37] = 1
        rows[:, 37] = -0.0360
        found = dequantize_tensor(quantize_tensor(rows, name, importance), name, 256)
        allowed = {"MXFP4": 0.34, "NVFP4": 2.0**-4, "Q8_K": 2.0**-5}.get(name, 2.0**-8)
        assert (np.abs(found[:, 37] + 0.0360) <= allowed * 0.0360).all(), name
