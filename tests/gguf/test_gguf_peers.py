"""The `gguf` package reads what we write and writes what we read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from clarion.errors import UnsupportedError
from clarion.gguf import File, Writer, formats
from clarion.gguf.formats import NAMES, REMOVED

VALUES: dict[str, Any] = {
    "general.architecture": "llama",
    "n.u8": np.uint8(200),
    "n.i8": np.int8(-100),
    "n.u16": np.uint16(60_000),
    "n.i16": np.int16(-30_000),
    "n.u32": np.uint32(4_000_000_000),
    "n.i32": np.int32(-2_000_000_000),
    "n.u64": np.uint64(2**64 - 1),
    "n.i64": np.int64(-(2**63)),
    "n.f32": np.float32(1e-5),
    "n.f64": np.float64(0.1),
    "n.bool": np.bool_(True),
    "a.strings": ["<s>", "▁the", "\n", "🙂"],
    "a.ints": np.array([3, 1, 2], np.int32),
    "a.floats": np.array([-1.5, 0.0, 1e30], np.float32),
    "a.bools": np.array([True, False]),
    "a.u64": np.array([2**63], np.uint64),
}

# The package does not know Q2_0 yet, and gives Q8_1 two 32-bit floats; in ggml they have 16 bits.
NOT_THEIRS = {"Q8_1": (9, 32, 36), "Q2_0": (42, 64, 18)}


def blocks(rng: np.random.Generator, shape: tuple[int, ...], block_size: int, block_bytes: int) -> Any:
    row_bytes = shape[-1] // block_size * block_bytes
    return rng.integers(0, 256, (*shape[:-1], row_bytes), np.uint8)


def test_their_reader_reads_what_we_write(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tensors = {}
    with Writer(tmp_path / "m.gguf", VALUES, alignment=64) as writer:
        shared = [format for format in formats().values() if format.name not in NOT_THEIRS]
        for i, format in enumerate(shared):
            shape = (2, 3, format.block_size * (i + 1))
            data = blocks(rng, shape, format.block_size, format.block_bytes)
            tensors[format.name] = (shape, data)
            writer.add(format.name, shape, format, data)
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    for key, value in VALUES.items():
        found = reader.get_field(key).contents()
        assert found == (value.tolist() if isinstance(value, np.ndarray) else value), key
    assert reader.alignment == 64
    assert [tensor.name for tensor in reader.tensors] == list(tensors)
    for tensor in reader.tensors:
        shape, data = tensors[tensor.name]
        assert tensor.tensor_type.name == tensor.name
        assert tensor.shape.tolist() == list(reversed(shape))
        assert tensor.data.tobytes() == data.tobytes()


def their_file(path: Path, **options: Any) -> dict[str, Any]:
    """Every kind of value and every format of theirs that we support; returns the tensors' bytes."""
    rng = np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "llama", **options)
    writer.add_uint8("n.u8", 200)
    writer.add_int8("n.i8", -100)
    writer.add_uint16("n.u16", 60_000)
    writer.add_int16("n.i16", -30_000)
    writer.add_uint32("n.u32", 4_000_000_000)
    writer.add_int32("n.i32", -2_000_000_000)
    writer.add_uint64("n.u64", 2**64 - 1)
    writer.add_int64("n.i64", -(2**63))
    writer.add_float32("n.f32", 1e-5)
    writer.add_float64("n.f64", 0.1)
    writer.add_bool("n.bool", True)
    writer.add_array("a.strings", VALUES["a.strings"])
    writer.add_array("a.ints", [3, 1, 2])
    writer.add_array("a.floats", [-1.5, 0.0, 1e30])
    writer.add_array("a.bools", [True, False])
    data = {}
    for format in formats().values():
        if format.name in NOT_THEIRS:
            continue
        data[format.name] = blocks(rng, (4, 2 * format.block_size), format.block_size, format.block_bytes)
        writer.add_tensor(format.name, data[format.name], raw_dtype=gguf.GGMLQuantizationType(format.type_id))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return data


def check(file: File, data: dict[str, Any]) -> None:
    for key, value in VALUES.items():
        if key != "a.u64":
            assert np.array_equal(file.metadata[key], value), key
    assert {name: tensor.data.tobytes() for name, tensor in file.tensors.items()} == {
        name: values.tobytes() for name, values in data.items()
    }
    for tensor in file.tensors.values():
        assert tensor.shape == (4, 2 * tensor.format.block_size)


def test_we_read_what_their_writer_writes(tmp_path: Path) -> None:
    data = their_file(tmp_path / "m.gguf")
    with File.open(tmp_path / "m.gguf") as file:
        check(file, data)


@pytest.mark.parametrize("opened", [0, -1])
def test_we_read_what_their_writer_splits(tmp_path: Path, opened: int) -> None:
    data = their_file(tmp_path / "m.gguf", split_max_tensors=4)
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == -(-len(data) // 4)
    with File.open(paths[opened]) as file:
        assert file.parts == tuple(paths)
        check(file, data)


def test_their_big_endian_file_is_named_as_such(tmp_path: Path) -> None:
    their_file(tmp_path / "m.gguf", endianess=gguf.GGUFEndian.BIG)
    with pytest.raises(
        UnsupportedError, match="version is 3 in big-endian byte order, allowed: 2 or 3, little"
    ):
        File.open(tmp_path / "m.gguf")


def test_formats_are_theirs() -> None:
    for format in formats().values():
        if format.name in NOT_THEIRS:
            assert (format.type_id, format.block_size, format.block_bytes) == NOT_THEIRS[format.name]
            continue
        theirs = gguf.GGMLQuantizationType(format.type_id)
        assert format.name == theirs.name
        assert (format.block_size, format.block_bytes) == gguf.GGML_QUANT_SIZES[theirs]


def test_every_format_of_theirs_is_ours() -> None:
    assert {format.name for format in formats().values()} >= {t.name for t in gguf.GGMLQuantizationType}


def test_names_are_theirs() -> None:
    theirs = {int(type_id): type_id.name for type_id in gguf.GGMLQuantizationType}
    ours = {i: name for i, name in enumerate(NAMES) if i not in REMOVED}
    assert ours == theirs | {42: "Q2_0"}
