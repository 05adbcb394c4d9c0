"""What a valid file says is what the reader gives."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gguf_bytes import (
    ARRAY,
    F32,
    F64,
    I32,
    STRING,
    U16,
    U32,
    U64,
    array,
    gguf,
    i32,
    pair,
    row,
    sample,
    text,
    u16,
    u32,
    u64,
)

from clarion.errors import FormatError
from clarion.gguf import File, Metadata, Strings
from tests.end_to_end.files import BUILT_IN


def open_bytes(folder: Path, content: bytes) -> File:
    path = folder / "model.gguf"
    path.write_bytes(content)
    return File.open(path)


@pytest.fixture
def metadata(tmp_path: Path) -> Metadata:
    return open_bytes(tmp_path, sample()).metadata


@pytest.mark.parametrize("version", [2, 3])
def test_versions(tmp_path: Path, version: int) -> None:
    with open_bytes(
        tmp_path, gguf([pair("a", U32, u32(1))], [row("t", [8])], bytes(32), version=version)
    ) as file:
        assert file.version == version
        assert file.metadata.int("a") == 1
        assert file.tensors["t"].shape == (8,)


def test_values(metadata: Metadata) -> None:
    assert {key: metadata[key] for key in metadata if metadata.type(key).find("[") < 0} == {
        "general.architecture": "llama",
        "a.u8": 7,
        "a.i16": -2,
        "a.u32": 5,
        "a.u64": 2**63,
        "a.f32": 0.5,
        "a.f64": 0.1,
        "a.bool": True,
    }
    assert type(metadata["a.u8"]) is int
    assert type(metadata["a.f32"]) is float
    assert metadata["a.bool"] is True
    assert np.array_equal(metadata["a.ints"], [1, -2, 3])
    assert metadata["a.ints"].dtype == np.int32
    assert metadata["a.bools"].tolist() == [False, True]
    assert list(metadata["a.strings"]) == ["one", "", "drei"]


def test_types(metadata: Metadata) -> None:
    assert [metadata.type(key) for key in metadata] == [
        *("string", "uint8", "int16", "uint32", "uint64", "float32", "float64", "bool"),
        *("int32[3]", "bool[2]", "string[3]"),
    ]


def test_strings(metadata: Metadata) -> None:
    strings = metadata.strs("a.strings")
    assert isinstance(strings, Strings)
    assert (len(strings), strings[0], strings[-1], strings.raw(2)) == (3, "one", "drei", b"drei")
    assert list(strings[1:]) == ["", "drei"]
    assert list(strings.raws()) == [b"one", b"", b"drei"]
    assert "drei" in strings
    assert strings.index("") == 1
    for wrong in (3, -4):
        with pytest.raises(IndexError):
            strings[wrong]


def test_getters(metadata: Metadata) -> None:
    assert metadata.str("general.architecture") == "llama"
    assert metadata.int("a.u64") == 2**63
    assert metadata.int("a.i16") == -2
    assert metadata.float("a.f64") == 0.1
    assert metadata.bool("a.bool") is True
    assert metadata.ints("a.ints").dtype == np.int64
    assert metadata.bools("a.bools").tolist() == [False, True]
    assert metadata.int("absent", 3) == 3
    assert metadata.str("absent", None) is None
    assert metadata.ints("absent", None) is None
    assert metadata.floats("absent", []) == []
    assert "absent" not in metadata
    with pytest.raises(KeyError):
        metadata["absent"]


@pytest.mark.parametrize(
    ("getter", "key", "found", "allowed"),
    [
        ("str", "a.u8", "of type uint8", "string"),
        ("str", "a.strings", "of type string[3]", "string"),
        ("int", "a.f32", "of type float32", "an integer"),
        ("int", "a.bool", "of type bool", "an integer"),
        ("int", "a.ints", "of type int32[3]", "an integer"),
        ("int", "general.architecture", "of type string", "an integer"),
        ("float", "a.u8", "of type uint8", "float32 or float64"),
        ("bool", "a.u8", "of type uint8", "bool"),
        ("strs", "general.architecture", "of type string", "an array of strings"),
        ("strs", "a.ints", "of type int32[3]", "an array of strings"),
        ("ints", "a.u8", "of type uint8", "an array of integers"),
        ("ints", "a.bools", "of type bool[2]", "an array of integers"),
        ("floats", "a.ints", "of type int32[3]", "an array of float32 or float64"),
        ("bools", "a.bool", "of type bool", "an array of bools"),
    ],
)
def test_getters_refuse_other_types(
    metadata: Metadata, getter: str, key: str, found: str, allowed: str
) -> None:
    for arguments in ((key,), (key, None)):
        with pytest.raises(FormatError) as caught:
            getattr(metadata, getter)(*arguments)
        assert str(caught.value).endswith(f"metadata {key!r} is {found}, allowed: {allowed}")


@pytest.mark.parametrize("getter", ["str", "int", "float", "bool", "strs", "ints", "floats", "bools"])
def test_missing_key_is_named(metadata: Metadata, getter: str) -> None:
    with pytest.raises(
        FormatError, match=r"model\.gguf: metadata 'llama\.block_count' is missing, allowed: "
    ):
        getattr(metadata, getter)("llama.block_count")


def test_integers_beyond_int64_are_refused_in_arrays(tmp_path: Path) -> None:
    with (
        open_bytes(tmp_path, gguf([pair("a", ARRAY, array(U64, 1, u64(2**63)))])) as file,
        pytest.raises(
            FormatError, match=r"'a' is an array with 9223372036854775808, allowed: at most 2\^63-1"
        ),
    ):
        file.metadata.ints("a")


def test_empty_arrays(tmp_path: Path) -> None:
    pairs = [
        pair("s", ARRAY, array(STRING, 0)),
        pair("i", ARRAY, array(I32, 0)),
        pair("f", ARRAY, array(F64, 0)),
    ]
    with open_bytes(tmp_path, gguf(pairs)) as file:
        assert list(file.metadata.strs("s")) == []
        assert file.metadata.ints("i").tolist() == []
        assert file.metadata.floats("f").tolist() == []


def test_arrays_lie_at_any_offset(tmp_path: Path) -> None:
    for padding in range(8):
        pairs = [pair("k" * (padding + 1), ARRAY, array(F64, 2, struct.pack("<2d", 0.25, -8.0)))]
        with open_bytes(tmp_path, gguf(pairs)) as file:
            assert file.metadata.floats("k" * (padding + 1)).tolist() == [0.25, -8.0]


def test_vocabulary_without_tensors(tmp_path: Path) -> None:
    """Such a file ends with its metadata, without padding."""
    content = gguf([pair("tokens", ARRAY, array(STRING, 2, text("a") + text("b")))], alignment=1)
    assert len(content) % 32
    with open_bytes(tmp_path, content) as file:
        assert dict(file.tensors) == {}
        assert list(file.metadata.strs("tokens")) == ["a", "b"]
        file.check()


def test_tensors(tmp_path: Path) -> None:
    data = bytes(range(128)) + bytes(64)
    rows = [row("late", [32, 1, 1, 1], 8, 128), row("early", [4, 3, 2], 0, 0), row("none", [5, 0], 0, 32)]
    with open_bytes(tmp_path, gguf([pair("x", U16, u16(1))], rows, data)) as file:
        assert list(file.tensors) == ["late", "early", "none"]
        early, late, none = (file.tensors[name] for name in ("early", "late", "none"))
        assert early.shape == (2, 3, 4)
        assert (early.format.name, early.format.type_id, early.n_elements, early.n_bytes) == (
            "F32",
            0,
            24,
            96,
        )
        assert bytes(early.data) == data[:96]
        assert (late.shape, late.format.name, late.n_bytes) == ((1, 1, 1, 32), "Q8_0", 34)
        assert bytes(late.data) == data[128:162]
        assert late.offset == early.offset + 128
        assert (none.shape, none.n_elements, none.n_bytes, bytes(none.data)) == ((0, 5), 0, 0, b"")


@pytest.mark.parametrize("alignment", [8, 32, 64, 4096, 2**20])
def test_alignment(tmp_path: Path, alignment: int) -> None:
    rows = [row("a", [2], 0, 0), row("b", [2], 0, alignment)]
    data = b"\x01" * 8 + bytes(alignment - 8) + b"\x02" * 8
    pairs = [pair("general.alignment", U32, u32(alignment))]
    with open_bytes(tmp_path, gguf(pairs, rows, data, alignment=alignment)) as file:
        assert file.alignment == alignment
        assert file.tensors["a"].offset % alignment == 0
        assert bytes(file.tensors["b"].data) == b"\x02" * 8


def test_plain_number_formats(tmp_path: Path) -> None:
    rows = [row(str(type_id), [4], type_id, 32 * (type_id - 24)) for type_id in range(24, 29)]
    with open_bytes(tmp_path, gguf([], rows, bytes(160))) as file:
        assert [(t.format.name, t.n_bytes) for t in file.tensors.values()] == [
            *(("I8", 4), ("I16", 8), ("I32", 16), ("I64", 32), ("F64", 32))
        ]


def test_file_is_a_context_manager_and_takes_strings(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(sample())
    with File.open(str(tmp_path / "m.gguf")) as file:
        assert file.path == tmp_path / "m.gguf"
        assert file.parts == (file.path,)


def test_names_of_files_need_not_be_utf8(tmp_path: Path) -> None:
    path = tmp_path / b"caf\xe9.gguf".decode("utf-8", "surrogateescape")
    path.write_bytes(gguf([pair("a", F32, bytes(4)), pair("b", I32, i32(-1))]))
    with File.open(path) as file:
        assert file.metadata.int("b") == -1


def test_reading_a_file_chooses_no_processor() -> None:
    code = (
        "import sys\nfrom clarion.gguf import File\n"
        f"with File.open({str(BUILT_IN)!r}) as file:\n    assert file.tensors\n"
        "assert not [name for name in sys.modules if name.startswith('clarion.host')]\n"
        "assert {n for n in sys.modules if n.startswith('clarion._native.')} == {'clarion._native.files'}\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
