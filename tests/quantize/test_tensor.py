"""Bytes mean what the gguf package reads in them, and depend on neither threads nor processor."""

import importlib
import signal
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from clarion.errors import ModelError, ParameterError, UnsupportedError
from clarion.gguf import format_named
from clarion.host import choices, quantizer
from clarion.quantize import quantize_tensor, tensor_error, writable
from tests.kernels.blocks import dequantize
from tests.quantize.files import GOLDENS, awkward_rows

NAMES = [format.name for format in writable() if format.name != "F32"]
MODULES = [choice.name for choice in choices() if choice.usable]

# Relative error (root mean square) that a format may have on the normally distributed weights of `normal`:
# measured in float64 arithmetic, and 2% more.
ERRORS = {
    "BF16": 0.00170, "F16": 0.000211, "IQ1_M": 0.419, "IQ1_S": 0.452, "IQ2_S": 0.244, "IQ2_XS": 0.292,
    "IQ2_XXS": 0.335, "IQ3_S": 0.132, "IQ3_XXS": 0.182, "IQ4_NL": 0.0745, "IQ4_XS": 0.0749, "MXFP4": 0.114,
    "NVFP4": 0.0869, "Q1_0": 0.612, "Q2_0": 0.363, "Q2_K": 0.266, "Q3_K": 0.146, "Q4_0": 0.0874,
    "Q4_1": 0.0788, "Q4_K": 0.0706, "Q5_0": 0.0433, "Q5_1": 0.0384, "Q5_K": 0.0349, "Q6_K": 0.0169,
    "Q8_0": 0.00546, "Q8_1": 0.00546, "Q8_K": 0.00701, "TQ1_0": 0.441, "TQ2_0": 0.441,
}  # fmt: skip


def read(data, name):
    """Weights of quantized rows, as the gguf package or the tests' own definitions read them."""
    return dequantize(name, data.reshape(-1, format_named(name).block_bytes)).reshape(len(data), -1)


def normal(rows=16, cols=1024, seed=5):
    return np.random.default_rng(seed).standard_normal((rows, cols)).astype(np.float32) * np.float32(0.03)


def importance(cols=1024, seed=6):
    return np.random.default_rng(seed).lognormal(0, 1, cols).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_bytes_mean_what_the_gguf_package_reads_in_them(name):
    rows = normal()
    data = quantize_tensor(rows, name)
    assert data.shape == (len(rows), format_named(name).n_bytes((1, rows.shape[1])))
    found = read(data, name).astype(np.float64)
    relative = np.sqrt(np.square(found - rows).sum() / np.square(rows, dtype=np.float64).sum())
    assert relative <= ERRORS[name]
    assert relative >= 0.97 * ERRORS[name]  # the table stays as tight as it says
    assert tensor_error(rows, data, name).relative == pytest.approx(relative, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_importance_moves_the_error_to_columns_that_matter_less(name):
    if format_named(name).block_size == 1 or name == "Q8_K":
        return  # nothing to choose, or a scale that follows from the largest weight alone
    rows, weights = normal(), importance()
    with_it = tensor_error(rows, quantize_tensor(rows, name, weights), name, weights)
    without = tensor_error(rows, quantize_tensor(rows, name), name, weights)
    assert with_it.squared < 0.996 * without.squared


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_bytes_are_those_of_llama_cpp_where_the_format_leaves_no_choice(name):
    with np.load(GOLDENS / "blocks.npz") as golden:
        assert (quantize_tensor(awkward_rows(), name) == golden[name]).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("weighted", [False, True])
def test_threads_do_not_change_the_bytes(name, weighted):
    rows = np.tile(awkward_rows(), (30, 1)) / np.float32(64)
    weights = importance() if weighted else None
    one = quantize_tensor(rows, name, weights, threads=1)
    assert (quantize_tensor(rows, name, weights, threads=3) == one).all()
    # Nor do the rows around them.
    assert (quantize_tensor(rows[5:8], name, weights, threads=1) == one[5:8]).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("weighted", [False, True])
def test_every_instruction_set_writes_the_same_bytes(name, weighted):
    rows = awkward_rows() / np.float32(64)
    weights = importance() if weighted else None
    format = format_named(name)
    found = [
        importlib.import_module(f"clarion._native.quantize_{module}").quantize(
            format.type_id, rows, weights, 1
        )[0]
        for module in MODULES
    ]
    assert all((data == found[0]).all() for data in found)


@pytest.mark.parametrize("name", NAMES)
def test_zeros_stay_zeros(name):
    found = read(quantize_tensor(np.zeros((2, 512), np.float32), name), name)
    assert (found == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_too_small_for_a_scale_becomes_small(name):
    # The smallest number of float32, and around the smallest scale of float16.
    for size in (1e-45, 1e-30, 3e-8, 1e-6):
        found = read(quantize_tensor(normal() / np.float32(0.03) * np.float32(size), name), name)
        assert np.isfinite(found).all()
        assert np.abs(found).max() <= max(16 * size, 0.01 if name == "NVFP4" else 1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_largest_weights_that_a_format_holds(name):
    limit = quantizer().writable()[format_named(name).type_id]
    rows = np.clip(normal() * np.float32(10), -1, 1) * np.float32(limit)
    found = read(quantize_tensor(rows, name), name).astype(np.float64)
    assert np.isfinite(found).all()
    size = np.sqrt(np.square(rows, dtype=np.float64).sum())
    assert np.sqrt(np.square(found - rows).sum()) < 0.9 * size


@pytest.mark.parametrize("name", [*NAMES, "F32"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(name, bad):
    rows = normal(rows=200)
    rows[130, 77] = rows[131, 5] = rows[199, 1] = bad
    with pytest.raises(ModelError, match=rf"found -?(nan|inf) at \[130, 77\], {name} holds"):
        quantize_tensor(rows, name, threads=3)


@pytest.mark.parametrize("name", NAMES)
def test_weights_that_are_too_large_are_refused(name):
    limit = np.float32(quantizer().writable()[format_named(name).type_id])
    rows = normal()
    rows[3, 2] = -np.nextafter(limit, np.float32(np.inf))
    with pytest.raises(ModelError, match=r"at \[3, 2\]"):
        quantize_tensor(rows, name)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.float32, (2, 256), elements=st.floats(-1000, 1000, width=32)),
    st.sampled_from(NAMES),
    st.booleans(),
)
def test_any_weights(rows, name, weighted):
    """No block is worse than none: its error is at most about its norm, and all bytes are meant."""
    found = read(quantize_tensor(rows, name, importance(256) if weighted else None), name)
    assert np.isfinite(found).all()
    if not weighted:
        norm = np.square(rows, dtype=np.float64).sum()
        assert np.square(found - rows, dtype=np.float64).sum() <= 1.01 * norm + 1e-9


@pytest.mark.parametrize("name", ["TQ1_0", "TQ2_0"])
@pytest.mark.parametrize("share", [0.01, 0.5, 1.0])
def test_ternary_weights_are_kept_exactly(name, share):
    rng = np.random.default_rng(1)
    scale = np.float32(np.float16(0.0371))
    rows = rng.choice([-scale, 0, scale], (8, 1024), p=[share / 2, 1 - share, share / 2]).astype(np.float32)
    assert (read(quantize_tensor(rows, name), name) == rows).all()


def test_sixteen_bit_sources_are_widened_exactly():
    rows = normal().astype(np.float16)
    native, q4 = quantizer(), format_named("Q4_K").type_id
    wide = rows.astype(np.float32)
    assert (native.quantize(q4, rows, None, 1)[0] == native.quantize(q4, wide, None, 1)[0]).all()
    bits = (normal().view(np.uint32) >> 16).astype(np.uint16)
    wide = (bits.astype(np.uint32) << 16).view(np.float32)
    assert (native.quantize(q4, bits, None, 1)[0] == native.quantize(q4, wide, None, 1)[0]).all()


@pytest.mark.parametrize(
    ("rows", "name", "weights", "error"),
    [
        (np.zeros((2, 100), np.float32), "Q4_0", None, ParameterError),
        (np.zeros(256, np.float32), "Q4_0", None, ParameterError),
        (np.zeros((2, 256), np.float32), "Q4_0", np.ones(32), ParameterError),
        (np.zeros((2, 256), np.float32), "Q4_0", np.full(256, -1.0), ParameterError),
        (np.zeros((2, 256), np.float32), "Q4_0", np.full(256, np.nan), ParameterError),
        (np.zeros((2, 256), np.float32), "I8", None, UnsupportedError),
        (np.zeros((2, 256), np.float32), "Q9", None, UnsupportedError),
    ],
)
def test_what_does_not_fit_is_refused(rows, name, weights, error):
    with pytest.raises(error):
        quantize_tensor(rows, name, weights)


@pytest.mark.parametrize("threads", [0, -1, 5000])
def test_impossible_threads_are_refused(threads):
    with pytest.raises(ParameterError, match="threads"):
        quantize_tensor(normal(), "Q4_K", threads=threads)


def test_no_rows_and_importance_of_nothing():
    assert quantize_tensor(np.zeros((0, 256), np.float32), "Q4_K").shape == (0, 144)
    rows = normal()
    assert (quantize_tensor(rows, "Q4_K", np.zeros(1024)) == quantize_tensor(rows, "Q4_K")).all()


def test_control_c_ends_it():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    rows = normal(rows=16384, cols=2048)  # seconds of work
    timer = threading.Timer(0.2, signal.raise_signal, [signal.SIGINT])
    timer.start()
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            quantize_tensor(rows, "IQ1_M", threads=1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() < began + 10
