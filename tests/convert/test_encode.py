"""Bytes are those of the gguf package; what the checkpoint's types mean is said by exhaustion."""

import tracemalloc

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from clarion.convert import pieces
from clarion.convert.encode import ENCODERS
from clarion.convert.float8 import scaled
from clarion.convert.pieces import CHUNK_BYTES, Piece, Target
from clarion.convert.stored import Stored
from clarion.errors import ModelError

ROWS = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 3), st.just(64)), elements=st.floats(-1e4, 1e4, width=32)
)


@given(ROWS, st.sampled_from(["F32", "F16", "BF16", "Q8_0"]))
def test_bytes_are_those_of_the_gguf_package(x, name):
    kind = gguf.GGMLQuantizationType[name]
    wanted = gguf.quants.quantize(x, kind) if name != "F32" else x
    if name == "BF16":  # the package flushes nothing, but numpy's comparison of NaN bits would
        wanted = gguf.quants.BF16.quantize(x)
    assert ENCODERS[name](x).tobytes() == wanted.tobytes()


def test_halves_are_rounded_away_from_zero():
    x = np.zeros((1, 32), np.float32)
    x[0, :5] = 127, 0.5, -0.5, 2.5, np.nextafter(np.float32(0.5), np.float32(0))
    quants = ENCODERS["Q8_0"](x)[2:].view(np.int8)
    assert quants[:5].tolist() == [127, 1, -1, 3, 0]


def test_every_float8(tmp_path):
    path = tmp_path / "codes"
    path.write_bytes(bytes(range(256)))
    for dtype, bits, bias, special in (("F8_E4M3", 3, 7, "nan"), ("F8_E5M2", 2, 15, "infinity")):
        values = Stored("codes", dtype, (256,), path, 0).values()
        for code, value in enumerate(values):
            exponent, mantissa = (code & 127) >> bits, code & ((1 << bits) - 1)
            top = exponent == (1 << (7 - bits)) - 1
            if special == "nan" and code & 127 == 127:
                assert np.isnan(value)
                continue
            if special == "infinity" and top:
                assert np.isnan(value) if mantissa else np.isinf(value)
                continue
            fraction = mantissa / (1 << bits)
            wanted = (1 + fraction) * 2.0 ** (exponent - bias) if exponent else fraction * 2.0 ** (1 - bias)
            assert value == (-wanted if code & 128 else wanted)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path, bad):
    values = np.zeros((4, 8), np.float32)
    values[2, 3] = bad
    target = Target("token_embd.weight", (Piece(_stored(tmp_path, values)),))
    with pytest.raises(ModelError, match=r"tensor 'w' holds -?(nan|inf) at \[2, 3\]"):
        list(target.encode("F32", lambda n: None))


@pytest.mark.parametrize(("format", "value"), [("F16", 7e4), ("BF16", 3.4e38), ("Q8_0", 1e7)])
def test_values_that_the_format_cannot_hold_are_refused(tmp_path, format, value):
    target = Target("t", (Piece(_stored(tmp_path, np.full((1, 32), value, np.float32))),))
    with pytest.raises(ModelError, match=format):
        list(target.encode(format, lambda n: None))


def test_chunks_are_small_and_whole_heads(tmp_path, monkeypatch):
    monkeypatch.setattr("clarion.convert.pieces.CHUNK_BYTES", 100)
    values = np.arange(16 * 6, dtype=np.float32).reshape(16, 6)
    chunks = list(Piece(_stored(tmp_path, values), head_dim=4).chunks())
    assert [len(chunk) for chunk in chunks] == [4, 4, 4, 4]
    wanted = values.reshape(4, 2, 2, 6).swapaxes(1, 2).reshape(16, 6)
    assert (np.concatenate(chunks) == wanted).all()


@pytest.mark.parametrize("shape", [(), (1,), (6,), (6, 1), (3, 2)])
def test_scales(tmp_path, shape):
    codes = np.full((6, 8), 0x38, np.uint8)  # 1.0
    (tmp_path / "w").write_bytes(codes.tobytes())
    scale = np.arange(1, 1 + np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    stored = Stored("w", "F8_E4M3", (6, 8), tmp_path / "w", 0)
    matrix = scaled(stored, _stored(tmp_path, scale, "s"), (2, 4))
    (found,) = Piece(matrix).chunks()
    grown = scale.repeat(2, 0).repeat(4, 1) if shape == (3, 2) else scale.reshape(-1, 1)
    assert (found == np.broadcast_to(grown, (6, 8))).all()


def test_ternary_weights_are_rounded_over_all_chunks(tmp_path, monkeypatch):
    """The scale is that of the whole matrix, and a row at a time gives the same."""
    x = np.random.default_rng(0).normal(0, 0.02, (6, 8)).astype(np.float32)
    scale = np.float32(np.abs(x).mean(dtype=np.float64))
    piece = Piece(_stored(tmp_path, x), ternary=True)
    (whole,) = piece.chunks()
    assert (whole == np.clip(np.round(x / scale), -1, 1) * scale).all()
    assert len(np.unique(whole)) == 3
    monkeypatch.setattr(pieces, "CHUNK_BYTES", 32)
    assert (np.concatenate(list(piece.chunks())) == whole).all()
    zeros = Piece(_stored(tmp_path, np.zeros((2, 2), np.float32), "zeros"), ternary=True)
    assert (np.concatenate(list(zeros.chunks())) == 0).all()


def test_a_scale_of_another_shape_is_refused(tmp_path):
    weight, scale = (_stored(tmp_path, np.ones(shape, np.float32)) for shape in ((6, 8), (2, 2)))
    with pytest.raises(ModelError, match=r"\[2, 2\]"):
        scaled(weight, scale, (0, 0))


def _stored(folder, values, name="w"):
    path = folder / f"{name}.bin"
    path.write_bytes(values.tobytes())
    return Stored(name, "F32", values.shape, path, 0)


@pytest.mark.parametrize("format", ["F32", "BF16", "F16", "Q8_0"])
def test_memory_is_bounded_by_the_chunk(tmp_path, format):
    path = tmp_path / "large"
    with open(path, "wb") as file:
        file.truncate(1 << 27)  # zeros
    target = Target("t", (Piece(Stored("w", "BF16", (1 << 15, 1 << 11), path, 0)),))
    tracemalloc.start()
    try:
        n_bytes = sum(len(chunk) for chunk in target.encode(format, lambda n: None))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert n_bytes > 1 << 26
    assert peak < 6 * CHUNK_BYTES
