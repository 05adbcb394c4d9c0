"""Random files: what is written is read back, and no damage gives anything but a ClarionError."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_bytes import sample
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from clarion.errors import ClarionError
from clarion.gguf import File, Strings, Writer, formats
from clarion.gguf.encode import DTYPES
from clarion.gguf.metadata import OF_THE_FILE
from clarion.gguf.part import MAX_NAME_BYTES

SETTINGS = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

reserved = (*OF_THE_FILE, "general.architecture")
keys = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)
numbers = st.sampled_from(list(DTYPES.values())).flatmap(
    lambda dtype: hnp.arrays(dtype, ()).map(lambda a: a[()])
)
arrays = st.sampled_from(list(DTYPES.values())).flatmap(lambda dtype: hnp.arrays(dtype, st.integers(0, 20)))
strings = st.lists(st.text(st.characters(codec="utf-8")) | st.binary(max_size=20), min_size=1, max_size=10)
values = numbers | arrays | strings | st.text(st.characters(codec="utf-8"))
metadata = st.dictionaries(keys.filter(lambda k: k not in reserved), values, max_size=8)


@st.composite
def tensors(draw: Callable[..., Any]) -> dict[str, tuple[tuple[int, ...], Any, bytes]]:
    names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
    found = {}
    for name in draw(
        st.lists(names.filter(lambda n: len(n.encode()) <= MAX_NAME_BYTES), max_size=6, unique=True)
    ):
        format = draw(st.sampled_from(list(formats().values())))
        shape = draw(st.lists(st.integers(0, 4), min_size=1, max_size=4))
        shape[-1] *= format.block_size
        data = draw(st.binary(min_size=1, max_size=64))
        n_bytes = format.n_bytes(shape)
        found[name] = (tuple(shape), format, (data * (n_bytes // len(data) + 1))[:n_bytes])
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


@SETTINGS
@given(metadata, tensors(), st.sampled_from([8, 16, 32, 64, 4096]), st.integers(1, 1000))
@example({"split.": "kept", "split.no.more": np.uint8(1), "general.alignments": np.uint32(3)}, {}, 32, 1)
def test_round_trip(path: Path, metadata: Any, tensors: Any, alignment: int, chunk: int) -> None:
    with Writer(path, metadata, alignment) as writer:
        for name, (shape, format, data) in tensors.items():
            writer.add(name, shape, format, chunks(data, chunk))
    with File.open(path) as file:
        assert file.alignment == alignment
        exact = file.metadata.exact()
        assert list(exact) == list(metadata)
        for key, value in metadata.items():
            assert same(exact[key], value), key
        assert [(t.name, t.shape, t.format, bytes(t.data)) for t in file.tensors.values()] == [
            (name, *tensor) for name, tensor in tensors.items()
        ]
        assert all(tensor.offset % alignment == 0 for tensor in file.tensors.values())


def chunks(data: bytes, size: int) -> Iterator[bytes]:
    for i in range(0, len(data), size):
        yield data[i : i + size]


def same(found: Any, written: Any) -> bool:
    if isinstance(found, Strings):
        return list(found.raws()) == [v.encode() if isinstance(v, str) else v for v in written]
    if isinstance(found, str):
        return bool(found == written)
    return bool(found.dtype == written.dtype and found.tobytes() == written.tobytes())


def read_all(path: Path) -> None:
    """Touches everything that a file holds."""
    with File.open(path) as file:
        for key in file.metadata:
            try:
                value = file.metadata[key]
                if isinstance(value, Strings):
                    list(value)
            except ClarionError:
                continue
        for tensor in file.tensors.values():
            tensor.data.sum()
            assert tensor.n_bytes == tensor.format.n_bytes(tensor.shape)
        file.check()


def refused(path: Path) -> bool:
    try:
        read_all(path)
    except ClarionError:
        return True
    return False


edits = st.lists(
    st.tuples(
        st.integers(0, len(sample())),  # where
        st.integers(0, 16),  # bytes replaced
        st.binary(max_size=16) | st.integers(0, 2**64 - 1).map(lambda n: n.to_bytes(8, "little")),
    ),
    max_size=6,
)


@settings(SETTINGS, max_examples=500)
@given(edits)
def test_edited_file(path: Path, edits: list[tuple[int, int, bytes]]) -> None:
    content = sample()
    for at, n_replaced, new in edits:
        content = content[:at] + new + content[at + n_replaced :]
    path.write_bytes(content)
    if refused(path):
        assert content != sample()


@settings(SETTINGS, max_examples=300)
@given(st.binary(max_size=400), st.sampled_from([b"", b"GGUF\x02\0\0\0", b"GGUF\x03\0\0\0"]))
@example(b"", b"")
def test_any_bytes(path: Path, content: bytes, head: bytes) -> None:
    path.write_bytes(head + content)
    if len(content) < 16:
        assert refused(path)
    else:
        refused(path)


@settings(SETTINGS, max_examples=300)
@given(st.data())
def test_any_numbers_in_the_places_of_numbers(path: Path, data: st.DataObject) -> None:
    """Counts, lengths, types and offsets, each replaced by a value that likes to overflow."""
    content = bytearray(sample())
    special = [
        0,
        1,
        2**31 - 1,
        2**31,
        2**32 - 1,
        2**62,
        2**63 - 1,
        2**63,
        2**64 - 33,
        2**64 - 8,
        2**64 - 3,
        2**64 - 1,
    ]
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(4, len(content) - 8))
        width = data.draw(st.sampled_from([4, 8]))
        value = data.draw(st.sampled_from(special) | st.integers(0, 2**64 - 1))
        content[at : at + width] = value.to_bytes(8, "little")[:width]
    path.write_bytes(content)
    refused(path)


@settings(SETTINGS, max_examples=200)
@given(st.data())
def test_cut_while_it_is_read(path: Path, data: st.DataObject) -> None:
    """Zeros instead of what was there are values too: whatever they mean, `check` tells."""
    path.write_bytes(sample() + bytes(3 * 4096))
    size = data.draw(st.integers(0, len(sample()) + 3 * 4096 - 1))
    file = File.open(path)
    with open(path, "r+b") as cut:
        cut.truncate(size)
    for key in file.metadata:
        try:
            list(file.metadata[key]) if isinstance(file.metadata[key], Strings) else file.metadata[key]
        except ClarionError:
            continue
    with pytest.raises(ClarionError):
        file.check()
