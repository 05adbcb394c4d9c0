"""Every way in which a file has broken a real engine ends in one error: where, what, found, allowed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from gguf_bytes import (
    ARCHITECTURE,
    ARRAY,
    BOOL,
    F32,
    HUGE,
    I32,
    STRING,
    U8,
    U32,
    U64,
    array,
    gguf,
    pair,
    row,
    sample,
    text,
    u32,
    u64,
)

from clarion.errors import ClarionError, FileError, FormatError, UnsupportedError
from clarion.gguf import File

GIB = 2**30


def alignment(value: bytes, value_type: int = U32) -> bytes:
    return gguf([pair("general.alignment", value_type, value)])


def key(value: bytes, n_pairs: int = 1) -> bytes:
    return gguf([value], n_pairs=n_pairs)


def tensors(*rows: bytes, size: int = 4096) -> bytes:
    return gguf([ARCHITECTURE], rows, bytes(size))


FORMAT: dict[str, tuple[bytes, str]] = {
    # header
    "empty file": (b"", "offset 0: the file is empty, allowed: a GGUF file"),
    "file of three bytes": (b"GGU", "offset 0: magic is 4 bytes long, allowed: at most the 3 bytes"),
    "bad magic": (gguf(magic=b"GGML"), "offset 0: magic is b'GGML', allowed: b'GGUF'"),
    "pairs, 2^64-1": (
        gguf(n_pairs=HUGE),
        "offset 16: number of metadata pairs is 18446744073709551615, allowed: at",
    ),
    "tensors, 2^64-1": (
        gguf(n_tensors=HUGE),
        "offset 8: number of tensors is 18446744073709551615, allowed: at most",
    ),
    "pairs, more than fit": (
        gguf([ARCHITECTURE], n_pairs=9),
        "number of metadata pairs is 9, allowed: at most 5",
    ),
    "pairs, more than there are": (gguf([ARCHITECTURE], n_pairs=2), "length of metadata key is 0"),
    # keys
    "empty key": (key(pair("", U8, b"\0")), "offset 24: length of metadata key is 0, allowed: 1 to 65535"),
    "key of 1 GiB": (key(text("a" * 100, GIB)), "length of metadata key is 1073741824, allowed: 1 to 65535"),
    "key longer than the file": (
        key(text("a" * 99, 9999)),
        "offset 32: metadata key is 9999 bytes long, allowed: at",
    ),
    "key over-long": (
        key(pair("k" * 65_536, U8, b"\0")),
        "length of metadata key is 65536, allowed: 1 to 65535",
    ),
    "key that wraps": (
        key(text("a" * 100, HUGE - 3)),
        "length of metadata key is 18446744073709551612, allowed",
    ),
    "key not UTF-8": (
        key(pair(b"caf\xe9", U8, b"\0")),
        "offset 35: metadata key is not UTF-8 .0xe9., allowed: UTF-8",
    ),
    "duplicate key": (
        gguf([pair("a", U8, b"\0"), pair("a", U8, b"\0")]),
        "offset 38: metadata key is 'a' again, allowed: each key once",
    ),
    # values
    "value type 13": (
        key(pair("a", 13, u64(0))),
        "offset 33: value type of metadata 'a' is 13, allowed: 0 to 12",
    ),
    "value type -1": (
        key(pair("a", 2**32 - 1, u64(0))),
        "value type of metadata 'a' is 4294967295, allowed: 0 to 12",
    ),
    "string that wraps": (
        key(pair("a", STRING, text("b" * 100, HUGE - 7))),
        "offset 45: metadata 'a' is 18446744073709551608 bytes long, allowed: at most the",
    ),
    "string of 1 GiB in 160 bytes": (
        key(pair("a", STRING, text("b" * 100, GIB))),
        "metadata 'a' is 1073741824 bytes long, allowed: at most the 115 bytes before the file ends",
    ),
    "array of 1 GiB in 160 bytes": (
        key(pair("a", ARRAY, array(U8, GIB, bytes(100)))),
        "metadata 'a' is 1073741824 bytes long, allowed: at most the",
    ),
    "array whose size wraps": (
        key(pair("a", ARRAY, array(U64, 2**61 + 1, bytes(100)))),
        "metadata 'a' is 18446744073709551624 bytes long",
    ),
    "strings, 1 Gi of them": (
        key(pair("a", ARRAY, array(STRING, GIB, bytes(100)))),
        "metadata 'a': offset 49: array length is 1073741824, allowed: what fits",
    ),
    "strings, 2^64-1 of them": (
        key(pair("a", ARRAY, array(STRING, HUGE, bytes(100)))),
        "metadata 'a': offset 49: array length is 18446744073709551615",
    ),
    "string in an array that wraps": (
        key(pair("a", ARRAY, array(STRING, 2, text("x") + text("yz", HUGE - 1)))),
        "metadata 'a': offset 58: string 1 has length 18446744073709551614",
    ),
    "strings, fewer than counted": (
        key(pair("a", ARRAY, array(STRING, 2, text("abcdefghijk"))))[:68],
        "metadata 'a': offset 68: string 1 has no length",
    ),
    "array of type 13": (
        key(pair("a", ARRAY, array(13, 1, bytes(8)))),
        "element type of metadata 'a' is 13, allowed",
    ),
    "bool 2": (key(pair("a", BOOL, b"\x02")), "offset 37: metadata 'a' is 2, allowed: 0 or 1 for a bool"),
    "bool 255 in an array": (
        key(pair("a", ARRAY, array(BOOL, 3, b"\x00\x01\xff"))),
        "offset 51: metadata 'a' is 255, allowed: 0 or 1 for a bool",
    ),
    "architecture is a number": (
        gguf([pair("general.architecture", U32, u32(1))]),
        "metadata 'general.architecture' is of type uint32, allowed: string",
    ),
    "architecture is an array": (
        gguf([pair("general.architecture", ARRAY, array(STRING, 1, text("llama")))]),
        r"metadata 'general.architecture' is of type string\[1\], allowed: string",
    ),
    # alignment
    "alignment 0": (
        alignment(u32(0)),
        "metadata 'general.alignment' is 0, allowed: a power of two from 8 to 1048576",
    ),
    "alignment 13": (alignment(u32(13)), "metadata 'general.alignment' is 13, allowed: a power of two"),
    "alignment 2^31": (
        alignment(u32(2**31)),
        "metadata 'general.alignment' is 2147483648, allowed: a power of two",
    ),
    "alignment is u64": (
        alignment(u64(32), U64),
        "metadata 'general.alignment' is of type uint64, allowed: uint32",
    ),
    "alignment is text": (
        alignment(text("32"), STRING),
        "'general.alignment' is of type string, allowed: uint32",
    ),
    "alignment is an array": (
        alignment(array(U32, 1, u32(32)), ARRAY),
        r"'general.alignment' is of type uint32\[1\], allowed: uint32",
    ),
    # tensor names
    "tensor name empty": (tensors(row("", [4])), "length of tensor name is 0, allowed: 1 to 64"),
    "tensor name over-long": (tensors(row("n" * 65, [4])), "length of tensor name is 65, allowed: 1 to 64"),
    "tensor name not UTF-8": (tensors(row(b"\xff", [4])), "tensor name is not UTF-8 .0xff., allowed: UTF-8"),
    "tensor name twice": (
        tensors(row("t", [4], 0, 0), row("t", [4], 0, 32)),
        "tensor name is 't' again, allowed: each name once",
    ),
    # tensor shapes
    "no dimensions": (tensors(row("t", [])), "number of dimensions of tensor 't' is 0, allowed: 1 to 4"),
    "5 dimensions": (tensors(row("t", [1] * 5)), "number of dimensions of tensor 't' is 5, allowed: 1 to 4"),
    "2^32-1 dimensions": (
        tensors(text("t") + u32(2**32 - 1) + bytes(64)),
        "number of dimensions of tensor 't' is 4294967295, allowed: 1 to 4",
    ),
    "elements overflow": (
        tensors(row("t", [2**32, 2**32])),
        r"shape of tensor 't' is \[4294967296, 4294967296\], allowed: at most 2\^63-1 elements",
    ),
    "elements overflow to a small number": (tensors(row("t", [2**62 + 1, 4])), "shape of tensor 't' is"),
    "elements overflow behind a zero": (tensors(row("t", [0, 2**40, 2**40])), "shape of tensor 't' is"),
    "negative dimension": (
        tensors(row("t", [HUGE])),
        r"shape of tensor 't' is \[18446744073709551615\], allowed",
    ),
    "bytes overflow": (
        tensors(row("t", [2**62 + 4])),
        "offset of tensor 't' is 0 and its end 18446744073709551632, allowed: an end of at most 4096",
    ),
    "bytes overflow in F64": (
        tensors(row("t", [2**61], 28)),
        "its end 18446744073709551616, allowed: an end of at",
    ),
    "row not divisible by the block": (
        tensors(row("t", [33, 2], 8)),
        "row of tensor 't' is 33 long, allowed: a multiple of 32 for Q8_0",
    ),
    "row not divisible though the tensor is": (
        tensors(row("t", [16, 2], 8)),
        "row of tensor 't' is 16 long, allowed: a multiple of 32 for Q8_0",
    ),
    "row not divisible by 256": (
        tensors(row("t", [128, 2], 12)),
        "row of tensor 't' is 128 long, allowed: a mult.* 256",
    ),
    # tensor offsets
    "offset misaligned": (
        tensors(row("t", [4], 0, 16)),
        "offset of tensor 't' is 16, allowed: a multiple of the alignment, 32",
    ),
    "offset past the end": (
        tensors(row("t", [4], 0, 8192)),
        "offset of tensor 't' is 8192 and its end 8208, allowed: an end of at most 4096, where the file ends",
    ),
    "end past the end": (tensors(row("t", [1025])), "its end 4100, allowed: an end of at most 4096"),
    "offset 2^64-32": (
        tensors(row("t", [4], 0, 2**64 - 32)),
        "offset of tensor 't' is 18446744073709551584 and its",
    ),
    "offset wraps to the beginning": (
        tensors(row("t", [16], 0, 2**64 - 32)),
        "its end 18446744073709551648, allowed",
    ),
    "padding wraps at 2^64-3": (
        tensors(row("a", [2**62 - 1, 1], 0, 0), row("b", [4], 0, 0)),
        "offset of tensor 'a' is 0 and its end 18446744073709551612, allowed",
    ),
    "zero-size tensor past the end": (
        tensors(row("t", [0], 0, 2**40)),
        "offset of tensor 't' is 1099511627776 and",
    ),
    "sum of sizes overflows": (
        tensors(*(row(f"t{i}", [2**60], 0, 2**62 * i) for i in range(4))),
        "offset of tensor 't0' is 0 and its end 4611686018427387904, allowed",
    ),
    "same bytes twice": (
        tensors(row("a", [64], 0, 0), row("b", [64], 0, 0)),
        "offset of tensor 'b' is 0, allowed: at least 256, where 'a' ends",
    ),
    "overlap by one block": (
        tensors(row("b", [64], 0, 224), row("a", [64], 0, 0)),
        "offset of tensor 'b' is 224, allowed: at least 256, where 'a' ends",
    ),
    "table longer than the file": (
        gguf([], [row("t", [4], 0, 0), row("u" * 60, [4], 0, 32)])[:95],
        "offset 65: tensor name is 60 bytes long, allowed: at most the 30 bytes before the file ends",
    ),
    # split
    "split.no not below split.count": (
        gguf([pair("split.no", U32, u32(2)), pair("split.count", U32, u32(2))]),
        "metadata 'split.no' is 2, allowed: 0 to 1",
    ),
    "split.no is negative": (
        gguf([pair("split.no", I32, u32(2**32 - 1)), pair("split.count", U32, u32(2))]),
        "metadata 'split.no' is -1, allowed: 0 to 1",
    ),
    "split.count is text": (
        gguf([pair("split.count", STRING, text("2"))]),
        "'split.count' is of type string, allowed",
    ),
    "split.tensors.count wrong in one file": (
        gguf([pair("split.tensors.count", I32, u32(3))]),
        "metadata 'split.tensors.count' is 3, allowed: 0, the number of tensors",
    ),
}

UNSUPPORTED: dict[str, tuple[bytes, str]] = {
    "version 0": (gguf(version=0), "offset 4: version is 0, allowed: 2 or 3"),
    "version 1": (gguf(version=1), "offset 4: version is 1, allowed: 2 or 3"),
    "version 4": (gguf(version=4), "offset 4: version is 4, allowed: 2 or 3"),
    "version 2^32-1": (gguf(version=2**32 - 1), "offset 4: version is 4294967295, allowed: 2 or 3"),
    "big-endian": (
        gguf(version=3 << 24),
        "version is 3 in big-endian byte order, allowed: 2 or 3, little-endian",
    ),
    "nested array": (
        key(pair("a", ARRAY, array(ARRAY, 1, array(U8, 1, b"\0")))),
        "offset 37: metadata 'a' is an array of arrays",
    ),
    "arrays, nested very deep": (
        key(pair("a", ARRAY, array(ARRAY, 1) * 10_000)),
        "offset 37: metadata 'a' is an array of arrays",
    ),
    "type removed": (
        tensors(row("t", [256], 4)),
        r"tensor 't': weight format is Q4_2 \(type id 4, removed from GGUF\), supported: F32, F64",
    ),
    "type negative": (
        tensors(row("t", [4], 2**32 - 1)),
        r"tensor 't': weight format is unknown \(type id 4294967295",
    ),
    "type huge": (
        tensors(row("t", [4], 10_000)),
        r"tensor 't': weight format is unknown \(type id 10000\), supported",
    ),
}

CASES = {**FORMAT, **UNSUPPORTED}


@pytest.mark.parametrize("name", CASES)
def test_bad_file_is_one_clear_error(name: str, tmp_path: Path) -> None:
    content, message = CASES[name]
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    expected = FormatError if name in FORMAT else UnsupportedError
    with pytest.raises(expected, match=message) as caught:
        File.open(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "offset" in text
    assert "\n" not in text


def test_bad_files_take_no_memory(tmp_path: Path) -> None:
    """All of them in one process that may use 64 MiB more than it has when it starts."""
    for i, (content, _) in enumerate(CASES.values()):
        (tmp_path / f"{i}.gguf").write_bytes(content)
    (tmp_path / "run.py").write_text(MEASURED)
    subprocess.run(
        [sys.executable, tmp_path / "run.py", tmp_path, Path(__file__).parent], check=True, timeout=len(CASES)
    )


MEASURED = """
import resource, sys
from pathlib import Path

sys.path.insert(0, sys.argv[2])
from gguf_bytes import sample
from clarion.errors import ClarionError
from clarion.gguf import File

folder = Path(sys.argv[1])
(folder / "valid").write_bytes(sample())
File.open(folder / "valid").close()
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 2**26
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in folder.glob("*.gguf"):
    try:
        File.open(path)
    except ClarionError:
        continue
    raise SystemExit(f"{path} was opened")
"""


def test_cut_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    whole = sample()
    path.write_bytes(whole)
    File.open(path).close()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        message = "incomplete: .*offset" if size else "this is an empty file, not a model: .*offset 0"
        with pytest.raises(FormatError, match=message):
            File.open(path)


def test_every_byte_changed(tmp_path: Path) -> None:
    """A file with one wrong byte opens or is refused; nothing else happens."""
    path = tmp_path / "model.gguf"
    whole = sample()
    opened = 0
    for at in range(len(whole)):
        for value in (0, 1, 0x7F, 0x80, 0xFF):
            path.write_bytes(whole[:at] + bytes([value]) + whole[at + 1 :])
            try:
                file = File.open(path)
                dict(file.metadata)
                opened += 1
            except ClarionError:
                continue
    assert opened > 0


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "device"])
def test_no_file(kind: str, tmp_path: Path) -> None:
    path = {"folder": tmp_path, "device": Path("/dev/null")}.get(kind, tmp_path / "model.gguf")
    if kind == "pipe":
        os.mkfifo(path)
    message = "No such file or directory" if kind == "missing" else "not a regular file"
    with pytest.raises(FileError, match=f"{path}: cannot be opened: {message}"):
        File.open(path)


def test_string_that_is_no_utf8_is_refused_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    tokens = array(STRING, 2, text("good") + text(b"\xf0\x9f"))
    path.write_bytes(
        gguf([pair("a", STRING, text(b"x\xff")), pair("b", ARRAY, tokens), pair("c", F32, bytes(4))])
    )
    with File.open(path) as file:
        with pytest.raises(FormatError, match=r"offset 46: metadata 'a' is not UTF-8 \(0xff\)"):
            file.metadata.str("a")
        tokens = file.metadata.strs("b")
        assert tokens[0] == "good"
        assert tokens.raw(1) == b"\xf0\x9f"
        with pytest.raises(FormatError, match=r"metadata 'b'\[1\] is not UTF-8 \(0xf0\)"):
            list(tokens)
        assert file.metadata.float("c") == 0.0
