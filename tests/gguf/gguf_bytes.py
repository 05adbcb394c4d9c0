"""GGUF files put together byte by byte, so that a test can break any rule of the format."""

from __future__ import annotations

import struct
from collections.abc import Iterable

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
HUGE = 2**64 - 1


def u16(value: int) -> bytes:
    return struct.pack("<H", value)


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def i32(value: int) -> bytes:
    return struct.pack("<i", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def text(value: str | bytes, length: int | None = None) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return u64(len(raw) if length is None else length) + raw


def pair(key: str | bytes, value_type: int, value: bytes) -> bytes:
    return text(key) + u32(value_type) + value


def array(element_type: int, count: int, elements: bytes = b"") -> bytes:
    return u32(element_type) + u64(count) + elements


def row(name: str | bytes, dimensions: Iterable[int], type_id: int = 0, offset: int = 0) -> bytes:
    dimensions = list(dimensions)
    shape = b"".join(map(u64, dimensions))
    return text(name) + u32(len(dimensions)) + shape + u32(type_id) + u64(offset)


def gguf(
    pairs: Iterable[bytes] = (),
    rows: Iterable[bytes] = (),
    data: bytes = b"",
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    n_pairs: int | None = None,
    n_tensors: int | None = None,
    alignment: int = 32,
) -> bytes:
    pairs, rows = list(pairs), list(rows)
    head = magic + u32(version)
    head += u64(len(rows) if n_tensors is None else n_tensors)
    head += u64(len(pairs) if n_pairs is None else n_pairs)
    head += b"".join(pairs) + b"".join(rows)
    return head + bytes(-len(head) % alignment) + data


ARCHITECTURE = pair("general.architecture", STRING, text("llama"))


def sample() -> bytes:
    """A valid file with every kind of value, two tensors, and no byte that could be left out."""
    pairs = [
        ARCHITECTURE,
        pair("a.u8", U8, b"\x07"),
        pair("a.i16", I16, b"\xfe\xff"),
        pair("a.u32", U32, u32(5)),
        pair("a.u64", U64, u64(2**63)),
        pair("a.f32", F32, struct.pack("<f", 0.5)),
        pair("a.f64", F64, struct.pack("<d", 0.1)),
        pair("a.bool", BOOL, b"\x01"),
        pair("a.ints", ARRAY, array(I32, 3, i32(1) + i32(-2) + i32(3))),
        pair("a.bools", ARRAY, array(BOOL, 2, b"\x00\x01")),
        pair("a.strings", ARRAY, array(STRING, 3, text("one") + text("") + text("drei"))),
    ]
    rows = [row("one", [4, 2], 0, 0), row("two", [32], 8, 32)]
    return gguf(pairs, rows, bytes(range(32)) + bytes(range(34)))
