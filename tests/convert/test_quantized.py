"""Quantised weights give the numbers that they stand for, and the formats that hold them give the same."""

import json
import re
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarion.convert import bits, quantization, safetensors
from clarion.convert.config import Config
from clarion.convert.encode import ENCODERS
from clarion.convert.pieces import Piece, Target
from clarion.convert.stored import Stored
from clarion.errors import ClarionError, FormatError, ModelError, UnsupportedError
from tests.convert import quantized
from tests.convert.files import write_safetensors
from tests.convert.quantized import packed

GOLDENS = sorted((Path(__file__).parent / "quantized_goldens").glob("*.safetensors"))
ROWS, COLS = 40, 96
INTEGERS = ("Q4_0", "Q5_0", "Q8_0")
# A maker, its options, and the formats that hold its numbers.
CASES = [
    (quantized.gptq, {}, INTEGERS),
    (quantized.gptq, {"v2": True}, INTEGERS),
    (quantized.gptq, {"group": -1}, INTEGERS),
    (quantized.gptq, {"order": "none"}, INTEGERS),
    (quantized.gptq, {"order": "blocks"}, INTEGERS),
    (quantized.gptq, {"order": "any"}, ()),
    (quantized.gptq, {"group": 16}, ()),
    (quantized.gptq, {"group": 64}, INTEGERS),  # the last group is shorter
    (quantized.gptq, {"dtype": "F32"}, ()),
    (quantized.gptq, {"sym": False}, INTEGERS[1:]),
    (quantized.gptq, {"sym": False, "v2": True}, INTEGERS[1:]),
    (quantized.gptq, {"bits": 2}, INTEGERS),
    (quantized.gptq, {"bits": 3}, INTEGERS),
    (quantized.gptq, {"bits": 3, "sym": False}, INTEGERS),
    (quantized.gptq, {"bits": 8}, INTEGERS[2:]),
    (quantized.gptq, {"bits": 8, "sym": False}, ()),
    (quantized.awq, {}, INTEGERS[1:]),
    (quantized.awq, {"group": -1}, INTEGERS[1:]),
    (quantized.awq, {"group": 16}, ()),
    *((quantized.compressed, {"bits": n}, INTEGERS) for n in (1, 2, 3, 4)),
    *((quantized.compressed, {"bits": n, "symmetric": False}, INTEGERS) for n in (2, 3)),
    (quantized.compressed, {"symmetric": False}, INTEGERS[1:]),
    (quantized.compressed, {"bits": 5}, INTEGERS[1:]),
    (quantized.compressed, {"bits": 7, "symmetric": False}, INTEGERS[2:]),
    (quantized.compressed, {"bits": 8}, INTEGERS[2:]),
    (quantized.compressed, {"group": None}, INTEGERS),
    (quantized.compressed, {"dtype": "F32"}, ()),
    (quantized.compressed, {"order": True}, ()),
    (quantized.compressed_int8, {}, INTEGERS[2:]),
    (quantized.compressed_int8, {"strategy": "tensor"}, INTEGERS[2:]),
    (quantized.compressed_int8, {"strategy": "tensor", "symmetric": False}, ()),
    (quantized.compressed_int8, {"strategy": "group", "group": 32}, INTEGERS[2:]),
    (quantized.compressed_int8, {"symmetric": False}, ()),
    (quantized.compressed_float8, {}, ()),
    (quantized.compressed_float4, {}, ("MXFP4",)),
    (quantized.compressed_float4, {"nv": True}, ()),
    (quantized.bnb4, {}, ()),
    (quantized.bnb4, {"nested": False, "kind": "fp4"}, ()),
    (quantized.bnb4, {"block": 36}, ()),  # blocks end within rows and within bytes
    (quantized.bnb8, {}, ()),
]
NAMES = [f"{make.__name__}-{'-'.join(f'{k}={v}' for k, v in options.items())}" for make, options, _ in CASES]


def found(folder, made, name="a.weight", base="a."):
    """The matrix of the parts."""
    write_safetensors(folder / "w.safetensors", {base + end: part for end, part in made.parts.items()})
    method = quantization.read(Config({"quantization_config": made.config}, "config.json"))
    return quantization.find(method, safetensors.read(folder / "w.safetensors"), name)


@pytest.mark.parametrize(("make", "options", "formats"), CASES, ids=NAMES)
def test_numbers(tmp_path, make, options, formats):
    made = make(np.random.default_rng(0), ROWS, COLS, **options)
    matrix = found(tmp_path, made)
    wanted = made.values.astype(np.float32)
    assert matrix.shape == wanted.shape
    assert sorted(matrix.parts) == sorted("a." + end for end in made.parts)
    assert matrix.method
    for begin, end in ((0, ROWS), (0, 1), (5, 23), (ROWS - 1, ROWS), (7, 7)):
        assert matrix.rows(begin, end).tobytes() == wanted[begin:end].tobytes()


@pytest.mark.parametrize(("make", "options", "formats"), CASES, ids=NAMES)
def test_formats_that_hold_them(tmp_path, make, options, formats):
    made = make(np.random.default_rng(1), ROWS, COLS, **options)
    matrix = found(tmp_path, made)
    assert matrix.formats() == formats
    for name in formats:
        for begin, end in ((0, ROWS), (9, 10)):
            blocks = matrix.blocks(begin, end, name)
            decoded = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[name])
            assert (decoded == made.values[begin:end]).all()


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("v2", [False, True])
@pytest.mark.parametrize("order", [None, "any"])
def test_symmetric_codes_have_their_zero_in_the_middle(tmp_path, bits, v2, order):
    """In the other format of zeros every weight would be a step off."""
    made = quantized.gptq(np.random.default_rng(0), ROWS, COLS, bits=bits, v2=v2, order=order)
    made.config["checkpoint_format"] = "gptq" if v2 else "gptq_v2"
    matrix = found(tmp_path, made)
    middle = 1 << (bits - 1)
    stored, expected = (middle, middle - 1) if v2 else (middle - 1, middle)
    message = rf"'a\.qzeros' holds zeros of {stored}, expected {expected}, as sym is true and"
    for read in (lambda: matrix.rows(0, 1), *((matrix.formats,) if order is None else ())):
        with pytest.raises(ModelError, match=message):
            read()
    made.config["sym"] = False  # then zeros are what they are
    found(tmp_path, made).rows(0, ROWS)


def test_a_zero_less_one_wraps_around(tmp_path):
    """Zero 0 of 4 bits is stored as 15."""
    made = quantized.gptq(np.random.default_rng(0), 8, 32, sym=False)
    made.parts["qzeros"][:] = -1
    codes = np.zeros((8, 32))
    made.parts["qweight"] = packed(codes.astype(int), 4).T.copy()
    assert (found(tmp_path, made).rows(0, 8) == 0).all()


@pytest.mark.parametrize("shape", [(3, 8, 64), (64, 32)])
def test_experts_in_mxfp4(tmp_path, shape):
    made = quantized.mxfp4(np.random.default_rng(0), *shape)
    matrix = found(tmp_path, made, "a", "a")
    assert matrix.shape == shape
    rows = made.values.reshape(-1, shape[-1])
    assert (matrix.rows(1, 20) == rows[1:20]).all()
    (name,) = matrix.formats()
    decoded = gguf.quants.dequantize(matrix.blocks(1, 20, name), gguf.GGMLQuantizationType.MXFP4)
    assert (decoded == rows[1:20]).all()


def test_every_exponent_of_mxfp4(tmp_path):
    made = quantized.mxfp4(np.random.default_rng(0), 253, 32)
    made.parts["_scales"][1][:, 0] = np.arange(253)
    codes = made.parts["_blocks"][1]
    values = np.array(quantized.E2M1)[np.stack([codes & 15, codes >> 4], -1).reshape(253, 32)]
    wanted = (values * 2.0 ** (np.arange(253.0)[:, None] - 127)).astype(np.float32)
    matrix = found(tmp_path, made, "a", "a")
    assert (matrix.rows(0, 253) == wanted).all()
    assert matrix.formats() == ("MXFP4",)


@pytest.mark.parametrize("exponent", [255, 254])
def test_exponents_that_are_no_numbers(tmp_path, exponent):
    made = quantized.mxfp4(np.random.default_rng(0), 4, 64)
    made.parts["_blocks"][1][:] = 0x77
    made.parts["_scales"][1][2, 1] = exponent
    matrix = found(tmp_path, made, "a", "a")
    assert matrix.formats() == ()
    with pytest.raises(ModelError, match=r"'a_blocks' holds (nan|inf) at \[2, 32\]"):
        list(Target("t", (Piece(matrix),)).encode("F32", lambda n: None))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scales_that_are_no_numbers(tmp_path, bad):
    made = quantized.gptq(np.random.default_rng(0), 8, 32)
    made.parts["scales"][0, 3] = bad
    matrix = found(tmp_path, made)
    assert matrix.formats() == ()
    with pytest.raises(ModelError, match=r"'a\.qweight' holds .* at \[3, "):
        list(Target("t", (Piece(matrix),)).encode("F32", lambda n: None))


def test_chunks_are_the_same_as_the_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("clarion.convert.pieces.CHUNK_BYTES", 4 * COLS * 7)
    monkeypatch.setattr("clarion.convert.integers._SCALES_AT_ONCE", 10)
    for make, options, formats in CASES:
        made = make(np.random.default_rng(0), ROWS, COLS, **options)
        matrix = found(tmp_path, made)
        assert matrix.formats() == formats
        target = Target("t", (Piece(matrix, head_dim=4),))
        order = np.arange(ROWS).reshape(-1, 2, 2).swapaxes(1, 2).reshape(-1)
        raw = np.concatenate(list(target.encode("F32", lambda n: None)))
        wanted = made.values.astype(np.float32)[order]
        assert (raw.view(np.float32).reshape(ROWS, COLS) == wanted).all()
        for name in formats:
            raw = np.concatenate(list(target.repack(name, lambda n: None)))
            assert raw.tobytes() == matrix.blocks(0, ROWS, name)[order].tobytes()


@given(st.integers(1, 8), st.integers(1, 100), st.integers(0, 2**32 - 1))
def test_codes_of_any_width(width, n, seed):
    codes = np.random.default_rng(seed).integers(0, 1 << width, (3, n))
    words = packed(codes, width)
    assert words.shape[1] == bits.n_words(n, width)
    assert (bits.unpack(words, width, n) == codes).all()


@settings(max_examples=60)
@given(
    st.sampled_from([2, 3, 4, 8]),
    st.sampled_from([-1, 8, 32, 64]),
    *(st.booleans(), st.sampled_from([None, "none", "blocks", "any"])),
    *(st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**32 - 1)),
)
def test_any_gptq(tmp_path_factory, n_bits, group, sym, order, rows, cols, seed):
    options = {"bits": n_bits, "group": group, "sym": sym, "order": order}
    made = quantized.gptq(np.random.default_rng(seed), 32 * rows, 32 * cols, **options)
    matrix = found(tmp_path_factory.mktemp("gptq"), made)
    assert (matrix.rows(0, 32 * rows) == made.values.astype(np.float32)).all()
    for name in matrix.formats():
        blocks = matrix.blocks(0, 32 * rows, name)
        assert (gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[name]) == made.values).all()


def test_columns_of_a_stored_tensor(tmp_path):
    values = np.arange(35, dtype=np.float32).reshape(5, 7)
    (tmp_path / "w").write_bytes(b"four" + values.tobytes())
    stored = Stored("w", "F32", (5, 7), tmp_path / "w", 4)
    for begin in range(8):
        for end in range(begin, 8):
            assert (stored.columns(begin, end) == values[:, begin:end]).all()
    assert (stored.columns(2, 4, 1, 3) == values[1:3, 2:4]).all()
    longer = Stored("w", "F32", (6, 7), tmp_path / "w", 4)
    with pytest.raises(ClarionError, match="before the file's end"):
        longer.columns(1, 3)


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_numbers_are_those_of_the_libraries(path):
    """The parts are what compressed-tensors, bitsandbytes and transformers write, rounded as they round."""
    raw = path.read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    config = {"quantization_config": json.loads(header["__metadata__"]["quantization_config"])}
    tensors = safetensors.read(path)
    expected = tensors.pop("expected")
    name = "a" if "a_blocks" in tensors else "a.weight"
    matrix = quantization.find(quantization.read(Config(config, "config.json")), tensors, name)
    assert matrix.shape == expected.shape
    assert set(matrix.parts) == set(tensors)
    ours = matrix.rows(0, matrix.n_rows)
    if path.stem == "int8":  # where the library rounds the product twice, and 1 / 127 before
        np.testing.assert_allclose(ours, expected.values(), rtol=2**-22)
    else:
        assert ENCODERS[expected.dtype](ours).tobytes() == expected.bytes(0, expected.n_rows).tobytes()
    kept = {"w4": "Q4_0", "w4-zeros": "Q5_0", "w3-rows": "Q4_0", "w8": "Q8_0"}
    kept |= {"mxfp4": "MXFP4", "experts": "MXFP4"}
    assert matrix.formats()[:1] == ((kept[path.stem],) if path.stem in kept else ())


# ---- bad input -----------------------------------------------------------------------------------------


def refused(folder, made, kind=ModelError):
    with pytest.raises(kind) as error:
        found(folder, made)
    assert str(folder) in str(error.value) or "config.json" in str(error.value)
    return str(error.value)


def without(end):
    return lambda made: made.parts.pop(end)


def cut(end):
    """The last row is missing."""

    def change(made):
        part = made.parts[end]
        made.parts[end] = (part[0], part[1][:-1]) if isinstance(part, tuple) else part[:-1]

    return change


def as_floats(end):
    def change(made):
        part = made.parts[end]
        values = part[1] if isinstance(part, tuple) else part
        made.parts[end] = values.astype(np.float32)

    return change


def option(**changes):
    return lambda made: made.config.update(changes)


def weights(**changes):
    return lambda made: made.config["config_groups"]["group_0"]["weights"].update(changes)


def put(end, value):
    def change(made):
        made.parts[end] = value

    return change


def state(**changes):
    def change(made):
        name = "weight.quant_state.bitsandbytes__nf4"
        values = json.loads(made.parts[name][1].tobytes()) | changes
        raw = json.dumps({k: v for k, v in values.items() if v is not None}).encode()
        made.parts[name] = ("U8", np.frombuffer(raw, np.uint8))

    return change


BAD = [
    (quantized.gptq, without("scales"), r"'a\.scales' is missing, which 'a\.qweight' needs"),
    (quantized.gptq, without("qzeros"), r"'a\.qzeros' is missing"),
    (quantized.gptq, cut("scales"), r"'a\.scales' has shape \[2, 40\], expected \[3, 40\]"),
    (quantized.gptq, cut("qzeros"), r"'a\.qzeros' has shape \[2, 5\], expected \[3, 5\]"),
    (quantized.gptq, cut("g_idx"), r"'a\.g_idx' has shape \[95\], expected \[96\]"),
    (quantized.gptq, as_floats("qweight"), r"'a\.qweight' holds F32, expected I32"),
    (
        quantized.gptq,
        put("g_idx", np.full(96, 3, np.int32)),
        r"'a\.g_idx' holds 3 to 3, expected .* 3 groups",
    ),
    (quantized.gptq, put("g_idx", np.full(96, -1, np.int32)), r"'a\.g_idx' holds -1 to -1"),
    (quantized.gptq, put("qweight", np.zeros(8, np.int32)), r"has shape \[8\], expected two sizes"),
    (quantized.gptq, option(bits=8), r"expected \[2, 40\]"),
    (
        quantized.gptq,
        option(bits=3, group_size=-1),
        r"expected two sizes .* whole codes of 3 bits|expected \[",
    ),
    (quantized.gptq, option(bits=None), r"quantization_config: bits is None, expected a whole number"),
    (quantized.gptq, option(group_size=0), r"group_size is 0, expected a whole number from 1"),
    (quantized.gptq, option(group_size="all"), r"group_size is 'all', expected"),
    (quantized.gptq, option(sym=1), r"quantization_config: sym is 1, expected true or false"),
    (quantized.gptq, option(sym="true"), r"sym is 'true', expected true or false"),
    (quantized.awq, without("scales"), r"'a\.scales' is missing"),
    (quantized.awq, without("qzeros"), r"'a\.qzeros' is missing"),
    (quantized.awq, cut("qzeros"), r"'a\.qzeros' has shape \[2, 5\], expected \[3, 5\]"),
    (quantized.awq, cut("scales"), r"'a\.scales' has shape \[2, 40\], expected \[3, 40\]"),
    (quantized.awq, option(group_size=36), r"'a\.qweight' has shape .* multiple of 36, the size of a group"),
    (quantized.compressed, without("weight_scale"), r"'a\.weight_scale' is missing"),
    (quantized.compressed, without("weight_shape"), r"'a\.weight_shape' is missing"),
    (
        quantized.compressed,
        cut("weight_scale"),
        r"no scheme in config\.json: integers of 4 bits in groups of 32",
    ),
    (
        quantized.compressed,
        put("weight_shape", np.array([40, 97])),
        r"for a weight of \[40, 97\] are of no scheme",
    ),
    (quantized.compressed, put("weight_shape", np.array([-1, 96])), r"\[-1, 96\] are of no scheme"),
    (quantized.compressed, put("weight_shape", np.array([1, 40, 96])), r"'a\.weight_shape' has shape \[3\]"),
    (quantized.compressed, weights(num_bits=8), r"no scheme in config\.json: integers of 8 bits"),
    (quantized.compressed, weights(symmetric=False), r"no scheme .* with zeros"),
    (quantized.compressed, weights(group_size=None), r"group_size is None, expected a whole number"),
    (quantized.compressed, option(config_groups={}), r"no scheme in config\.json: none"),
    (quantized.compressed, option(config_groups={"W4A16": ["Linear"]}), r"W4A16 is .*, expected an object"),
    (quantized.compressed_int8, without("weight_scale"), r"'a\.weight_scale' is missing"),
    (quantized.compressed_float4, without("weight_scale"), r"'a\.weight_scale' is missing"),
    (
        quantized.compressed_float4,
        cut("weight_scale"),
        r"'a\.weight_packed' has shape \[40, 48\], expected that",
    ),
    (quantized.bnb4, without("weight.quant_map"), r"'a\.weight\.quant_map' is missing"),
    (quantized.bnb4, without("weight.nested_absmax"), r"'a\.weight\.nested_absmax' is missing"),
    (quantized.bnb4, without("weight.quant_state.bitsandbytes__nf4"), r"bitsandbytes__nf4' is missing"),
    (quantized.bnb4, cut("weight"), r"'a\.weight' takes 1919 bytes, expected half"),
    (quantized.bnb4, cut("weight.absmax"), r"'a\.weight\.absmax' has shape \[59\], expected \[60\]"),
    (quantized.bnb4, state(blocksize=None), r"blocksize is None, expected"),
    (quantized.bnb4, state(nested_offset="x"), r"nested_offset is 'x', expected a number"),
    (quantized.bnb4, state(shape=[3840]), r"'a\.weight' takes 1920 bytes, expected .* \[3840\]"),
    (quantized.bnb8, without("SCB"), r"'a\.SCB' is missing"),
    (quantized.bnb8, cut("SCB"), r"'a\.SCB' has shape \[39\], expected \[40\]"),
]
UNSUPPORTED = [
    (quantized.gptq, option(bits=5), "bits is 5, supported: 2, 3, 4 or 8"),
    (quantized.gptq, option(checkpoint_format=False), "checkpoint_format is False, supported: gptq or"),
    (quantized.awq, option(version=False), "version is False, supported: gemm"),
    (quantized.compressed, weights(type=False), "type is False, supported"),
    (quantized.compressed, weights(strategy=False), "strategy is False, supported"),
    (quantized.gptq, option(checkpoint_format="marlin"), "checkpoint_format is 'marlin', supported: gptq or"),
    (quantized.gptq, option(is_marlin_format=True), "is_marlin_format is True"),
    (quantized.gptq, option(dynamic={"+:.*up.*": {"bits": 8}}), r"dynamic is '\+:\.\*up\.\*', supported"),
    (quantized.gptq, option(quant_method="hqq"), "quant_method is 'hqq', supported: fp8, .*gptq, awq"),
    (quantized.awq, option(bits=3), "bits is 3, supported: 4"),
    (quantized.awq, option(version="gemv"), "version is 'gemv', supported: gemm"),
    (quantized.awq, option(zero_point=False), "zero_point is False, supported: True"),
    (quantized.compressed, option(format="marlin-24"), "format is 'marlin-24', supported"),
    (quantized.compressed, option(sparsity_config={"format": "sparse-24-bitmask"}), "format is 'sparse-24"),
    (quantized.compressed, option(transform_config={"config_groups": {}}), "transform_config is"),
    (quantized.compressed, weights(type="complex"), "type is 'complex', supported"),
    (quantized.compressed, weights(num_bits=9), "num_bits is 9, supported"),
    (quantized.compressed, weights(strategy="token"), "strategy is 'token', supported"),
    (quantized.bnb4, option(bnb_4bit_quant_type="int4"), "bnb_4bit_quant_type is 'int4', supported"),
    (quantized.bnb4, state(quant_type="fp4"), "quant_type is 'fp4', supported: 'nf4'"),
    (quantized.bnb8, put("weight_format", ("U8", np.array(2, np.uint8))), r"holds 2, supported: 0, rows"),
]


@pytest.mark.parametrize(("make", "change", "message"), BAD)
def test_bad_parts(tmp_path, make, change, message):
    made = make(np.random.default_rng(0), ROWS, COLS)
    change(made)
    assert re.search(message, refused(tmp_path, made))


@pytest.mark.parametrize(("make", "change", "message"), UNSUPPORTED)
def test_options_that_are_not_implemented(tmp_path, make, change, message):
    made = make(np.random.default_rng(0), ROWS, COLS)
    change(made)
    assert re.search(message, refused(tmp_path, made, UnsupportedError))


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"shape": [1e99]}', b'{"shape": [-1, 2]}'])
def test_figures_that_are_no_json(tmp_path, raw):
    made = quantized.bnb4(np.random.default_rng(0), ROWS, COLS)
    made.parts["weight.quant_state.bitsandbytes__nf4"] = ("U8", np.frombuffer(raw, np.uint8))
    assert "bitsandbytes__nf4'" in refused(tmp_path, made, FormatError)


@pytest.mark.parametrize(("end", "message"), [("_scales", "'a_scales' is missing"), ("_blocks", None)])
def test_experts_without_a_part(tmp_path, end, message):
    made = quantized.mxfp4(np.random.default_rng(0), 4, 64)
    del made.parts[end]
    if message is None:
        assert found(tmp_path, made, "a", "a") is None
    else:
        with pytest.raises(ModelError, match=message):
            found(tmp_path, made, "a", "a")


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(CASES) - 1), st.data())
def test_parts_of_any_shape(tmp_path_factory, case, data):
    """Whatever shapes the parts have, there are numbers or one error of our own."""
    make, options, _ = CASES[case]
    made = make(np.random.default_rng(0), 8, 64, **options)
    name = data.draw(st.sampled_from(sorted(made.parts)))
    part = made.parts[name]
    dtype, values = part if isinstance(part, tuple) else (None, part)
    shape = tuple(data.draw(st.lists(st.integers(0, 40), max_size=3)))
    values = np.resize(values, shape).astype(values.dtype)
    made.parts[name] = values if dtype is None else (dtype, values)
    try:
        matrix = found(tmp_path_factory.mktemp("any"), made)
        rows = matrix.rows(0, matrix.n_rows)
    except ClarionError:
        return
    assert rows.shape == (matrix.n_rows, matrix.n_cols)
    for format in matrix.formats():
        matrix.blocks(0, matrix.n_rows, format)
