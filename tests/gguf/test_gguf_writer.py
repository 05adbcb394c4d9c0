"""What is written is read back; what cannot be written leaves nothing behind."""

from __future__ import annotations

import os
import resource
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_bytes import sample

from clarion.errors import ClosedError, FileError, ParameterError, UnsupportedError
from clarion.gguf import File, Writer


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    weights = np.arange(12, dtype="<f4").reshape(3, 4)
    blocks = bytes(range(34)) * 2
    with Writer(path, {"general.architecture": "llama", "x": 3}) as writer:
        writer.add("w", weights.shape, "F32", weights)
        writer.add("q", (2, 32), "Q8_0", (blocks[i : i + 5] for i in range(0, 68, 5)))
        writer.add("none", (0, 7), "F16", np.zeros((0, 7), "<f2"))
        writer.add("column", (3,), "F32", weights[:, 1])
    with File.open(path) as file:
        assert dict(file.metadata) == {"general.architecture": "llama", "x": 3}
        assert [(t.name, t.shape, t.format.name) for t in file.tensors.values()] == [
            *(("w", (3, 4), "F32"), ("q", (2, 32), "Q8_0"), ("none", (0, 7), "F16"), ("column", (3,), "F32"))
        ]
        assert np.array_equal(file.tensors["w"].data.view("<f4").reshape(3, 4), weights)
        assert bytes(file.tensors["q"].data) == blocks
        assert file.tensors["column"].data.view("<f4").tolist() == [1, 5, 9]
    assert os.listdir(tmp_path) == ["model.gguf"]


@pytest.mark.parametrize(
    ("value", "type_name"),
    [
        (0, "uint32"),
        (2**32 - 1, "uint32"),
        (-1, "int32"),
        (-(2**31), "int32"),
        (2**32, "uint64"),
        (2**64 - 1, "uint64"),
        (-(2**31) - 1, "int64"),
        (0.5, "float32"),
        (float("inf"), "float32"),
        (True, "bool"),
        ("text", "string"),
        ("", "string"),
        (np.uint8(3), "uint8"),
        (np.int16(-3), "int16"),
        (np.float64(0.1), "float64"),
        (np.bool_(False), "bool"),
    ],
)
def test_types_of_values(tmp_path: Path, value: Any, type_name: str) -> None:
    with Writer(tmp_path / "m", {"k": value}):
        pass
    with File.open(tmp_path / "m") as file:
        assert file.metadata.type("k") == type_name
        assert file.metadata["k"] == value


@pytest.mark.parametrize(
    ("values", "type_name"),
    [
        ([1, -2, 3], "int32[3]"),
        ((2**32 - 1, 0), "uint32[2]"),
        ([-1, 2**40], "int64[2]"),
        ([2**63], "uint64[1]"),
        ([1, 0.5], "float32[2]"),
        ([True, False], "bool[2]"),
        (["a", "", "ö"], "string[3]"),
        (np.array([1, 2], np.uint8), "uint8[2]"),
        (np.array([0.1]), "float64[1]"),
        (np.array([], np.float32), "float32[0]"),
        (np.array([], str), "string[0]"),
    ],
)
def test_types_of_arrays(tmp_path: Path, values: Any, type_name: str) -> None:
    with Writer(tmp_path / "m", {"k": values}):
        pass
    with File.open(tmp_path / "m") as file:
        assert file.metadata.type("k") == type_name
        assert list(file.metadata["k"]) == list(values)


def test_strings_may_be_bytes(tmp_path: Path) -> None:
    with Writer(tmp_path / "m", {"one": b"\xff\xfe", "many": [b"\xff", "a"]}):
        pass
    with File.open(tmp_path / "m") as file:
        assert list(file.metadata.strs("many").raws()) == [b"\xff", b"a"]


def test_exact_metadata_is_written_back_bit_for_bit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(sample())
    with File.open(tmp_path / "a") as file, Writer(tmp_path / "b", file.metadata.exact()) as writer:
        for tensor in file.tensors.values():
            writer.add(tensor.name, tensor.shape, tensor.format, tensor.data)
    written = (tmp_path / "b").read_bytes()
    assert written[: len(sample())] == sample()
    assert not any(written[len(sample()) :])


def test_alignment(tmp_path: Path) -> None:
    with Writer(tmp_path / "m", {}, alignment=4096) as writer:
        writer.add("a", (3,), "F32", bytes(12))
        writer.add("b", (3,), "F32", b"\x07" * 12)
    with File.open(tmp_path / "m") as file:
        assert file.alignment == 4096
        assert [t.offset % 4096 for t in file.tensors.values()] == [0, 0]
        assert bytes(file.tensors["b"].data) == b"\x07" * 12
        with Writer(tmp_path / "n", file.metadata.exact(), file.alignment):
            pass
        with pytest.raises(
            ParameterError, match=r"'general\.alignment' is 4096, but the file is aligned to 32"
        ):
            Writer(tmp_path / "o", dict(file.metadata))
    with pytest.raises(ParameterError, match="alignment is 48, allowed: a power of two"):
        Writer(tmp_path / "o", {}, alignment=48)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("", 1, "metadata key '' is 0 bytes long, allowed: 1 to 65535"),
        ("k" * 65_536, 1, "is 65536 bytes long, allowed: 1 to 65535"),
        ("\ud800", 1, "cannot be written: 'utf-8' codec"),
        ("k", "\ud800", "metadata 'k' cannot be written: 'utf-8' codec"),
        ("k", None, "metadata 'k' cannot be written: found NoneType, allowed: a number, string"),
        ("k", {}, "found dict, allowed: a number"),
        ("k", 2**64, "fits into no integer of 64 bits"),
        ("k", [-1, 2**63], "fits into no integer of 64 bits"),
        ("k", 1e300, "does not fit into float32, use numpy.float64"),
        ("k", [], "a sequence of nothing has no array type"),
        ("k", [1, "a"], "a sequence of int and str has no array type"),
        ("k", [[1]], "a sequence of list has no array type"),
        ("k", np.zeros((2, 2)), "the array has 2 dimensions, allowed: 1"),
        ("k", np.float16(1), "found an element type of float16, allowed: uint8"),
        ("k", np.zeros(2, complex), "found an element type of complex128, allowed: uint8"),
    ],
)
def test_metadata_that_has_no_place_in_gguf(tmp_path: Path, key: str, value: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Writer(tmp_path / "m", {key: value})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "shape", "format", "message"),
    [
        ("", (4,), "F32", "tensor name '' is 0 bytes long, allowed: 1 to 64"),
        ("n" * 65, (4,), "F32", "is 65 bytes long, allowed: 1 to 64"),
        ("t", (), "F32", "has 0 dimensions, allowed: 1 to 4"),
        ("t", (1,) * 5, "F32", "has 5 dimensions, allowed: 1 to 4"),
        ("t", (-1, 4), "F32", r"has shape \[-1, 4\], allowed: 0 to"),
        ("t", (2**40, 2**40), "F32", r"has shape \[1099511627776, 1099511627776\], allowed: 0 to"),
        ("t", (2, 16), "Q8_0", "has rows of 16, allowed: a multiple of 32 for Q8_0"),
        ("old", (4,), "F32", "tensor 'old' was added already"),
    ],
)
def test_tensor_that_has_no_place_in_gguf(
    tmp_path: Path, name: str, shape: tuple[int, ...], format: str, message: str
) -> None:
    writer = Writer(tmp_path / "m", {})
    writer.add("old", (1,), "F32", bytes(4))
    with pytest.raises(ParameterError, match=message):
        writer.add(name, shape, format, b"")


def test_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="weight format is 'Q9_Z', supported: F32, "):
        Writer(tmp_path / "m", {}).add("t", (1,), "Q9_Z", b"")


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Path]:
    """A file that must survive, alone in its folder, whatever happens to its successor."""
    path = tmp_path / "model.gguf"
    path.write_bytes(b"old")
    yield path
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model.gguf"]


@pytest.mark.parametrize("size", [0, 15, 17, 100])
def test_wrong_number_of_bytes(old: Path, size: int) -> None:
    with (
        pytest.raises(ParameterError, match=rf"'t' came with {size} bytes, expected 16 for \[4\] F32"),
        Writer(old, {}) as writer,
    ):
        writer.add("t", (4,), "F32", bytes(size))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, MemoryError])
def test_error_in_the_source_of_a_tensor(old: Path, error: type[BaseException]) -> None:
    def chunks() -> Iterator[bytes]:
        yield bytes(8)
        raise error

    with pytest.raises(error), Writer(old, {}) as writer:
        writer.add("t", (4,), "F32", chunks())


def test_error_in_the_block(old: Path) -> None:
    with pytest.raises(RuntimeError), Writer(old, {}):
        raise RuntimeError


WRITE_4_MIB = """
import sys
from clarion.errors import FileError
from clarion.gguf import Writer

try:
    with Writer(sys.argv[1], {}) as writer:
        writer.add("t", (1 << 20,), "F32", (bytes(1 << 12) for _ in range(1 << 10)))
except FileError as error:
    print(error)
"""


def test_no_room_for_the_file(old: Path) -> None:
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))"
    command = [sys.executable, "-c", limited + WRITE_4_MIB, old]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout == f"{old}: cannot be written: File too large\n"


def test_disk_full(tmp_path: Path) -> None:
    """On a file system of 64 KiB, which only this process sees."""
    script = 'mount -t tmpfs -o size=64k tmpfs "$1" && "$2" -c "$3" "$1/m.gguf" && ls -A "$1"'
    command = ["unshare", "-rm", "sh", "-c", script, "sh"]
    arguments = [tmp_path, sys.executable, WRITE_4_MIB]
    if shutil.which("unshare") is None or subprocess.run([*command[:2], "true"], check=False).returncode:
        pytest.skip("no private file system can be mounted here; test_no_room_for_the_file covers the path")
    result = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout == f"{tmp_path}/m.gguf: cannot be written: No space left on device\n"


def test_folder_that_is_missing(tmp_path: Path) -> None:
    with (
        pytest.raises(FileError, match="cannot be written: No such file or directory"),
        Writer(tmp_path / "nowhere" / "m.gguf", {}),
    ):
        pass


def test_path_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    with pytest.raises(FileError, match="cannot be written: Is a directory"), Writer(tmp_path / "m", {}):
        pass
    assert os.listdir(tmp_path) == ["m"]


def test_replaces_the_old_file_while_it_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    for value in (1, 2):
        with Writer(path, {"k": value}) as writer:
            writer.add("t", (4,), "F32", bytes([value]) * 16)
        if value == 1:
            file = File.open(path)
    assert bytes(file.tensors["t"].data) == b"\x01" * 16
    file.check()
    with File.open(path) as new:
        assert new.metadata.int("k") == 2


def test_mode_follows_the_umask(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        with Writer(tmp_path / "m", {}):
            pass
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "m").stat().st_mode) == 0o640


def test_writer_closes_once(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "m", {})
    writer.close()
    with pytest.raises(ClosedError):
        writer.close()


def test_large_tensor_is_not_held_in_memory(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Writer(tmp_path / "m", {}) as writer:
        writer.add("t", (64 << 20,), "F32", (bytes(1 << 20) for _ in range(256)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB
