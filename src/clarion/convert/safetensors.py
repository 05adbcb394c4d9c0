"""The header of a safetensors file: JSON that says where each tensor lies.

Layout (https://github.com/huggingface/safetensors#format): length of the header u64, little-endian; the
header; the tensors' bytes, without gaps. Offsets in it count from the header's end. Python's
integers do not wrap, so every sum and product below is exact.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from clarion.convert.recognise import described
from clarion.convert.stored import ELEMENT_BYTES, Stored, check_shape, read_exactly
from clarion.errors import FileError, FormatError, UnsupportedError
from clarion.gguf.kinds import incomplete
from clarion.gguf.texts import part_text, size_text

_MOST_BYTES = 1 << 50  # of a file: what states more is damaged
MAX_HEADER_BYTES = 100_000_000  # as the format has it


def read(path: Path) -> dict[str, Stored]:
    """The tensors of a file by name, none of them read yet.

    Raises:
        FileError: the file cannot be read.
        FormatError: the header breaks the format's rules, or the file is shorter or longer than it says.
        UnsupportedError: an unknown element type.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from error
    if size < 8:
        found = _stand_in(path, size)
        what = f": it {found}" if found else ""
        raise FormatError(f"{path}: found {size} bytes, expected at least the 8 of the header's length{what}")
    length = int.from_bytes(read_exactly(path, 0, 8, "the header's length").tobytes(), "little")
    if 0 < size - 8 < length <= MAX_HEADER_BYTES and bytes(read_exactly(path, 8, 1, "the header")) == b"{":
        detail = f"found {size} bytes, expected a header of {length}"
        raise incomplete(path, f"it ends after {size_text(size)}, within its header", detail)
    if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8) and (found := _stand_in(path, size)):
        raise FormatError(f"{path} {found}, expected a safetensors file")
    if length > min(MAX_HEADER_BYTES, size - 8):
        raise FormatError(
            f"{path}: offset 0: length of the header is {length}, "
            f"allowed: at most {min(MAX_HEADER_BYTES, size - 8)} in a file of {size} bytes"
        )
    header = parse_json(read_exactly(path, 8, length, "the header").tobytes(), f"{path}: header")
    begin = 8 + length
    _check_complete(path, header, begin, size)
    tensors = {
        name: _tensor(path, name, entry, begin, size)
        for name, entry in header.items()
        if name != "__metadata__"
    }
    end = begin
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.offset, tensor.n_bytes)):
        if tensor.offset != end:
            raise FormatError(
                f"{path}: tensor {tensor.name!r} begins at {tensor.offset - begin}, "
                f"expected {end - begin}, where the one before it ends"
            )
        end += tensor.n_bytes
    if end != size:
        raise FormatError(f"{path}: found {size} bytes, expected {end}, where the last tensor ends")
    return tensors


def _stand_in(path: Path, size: int) -> str:
    """What is in the place of the file, if that is known."""
    return described(read_exactly(path, 0, min(size, 4096), "the beginning").tobytes()) or ""


def _check_complete(path: Path, header: dict[str, Any], begin: int, size: int) -> None:
    """Tells a file that was cut, and is as its header says up to there, from one that contradicts itself."""
    places = [entry.get("data_offsets") for entry in header.values() if isinstance(entry, dict)]
    pairs = sorted(
        (place[0], place[1])
        for place in places
        if isinstance(place, list) and len(place) == 2 and all(type(offset) is int for offset in place)
    )
    if not pairs or pairs[0][0] != 0 or any(a[1] != b[0] for a, b in pairwise(pairs)):
        return
    end = begin + pairs[-1][1]
    if size < end <= _MOST_BYTES:
        detail = f"found {size} bytes, expected {end}, where the last tensor ends"
        raise incomplete(path, part_text(size, end), detail)


def parse_json(raw: bytes, where: str) -> dict[str, Any]:
    """A JSON object in which no name stands twice; `where` begins the message of an error.

    Raises:
        FormatError: anything else.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for i, name in enumerate(names) if name in names[:i])
            raise ValueError(f"name {twice!r:.80} stands twice")
        return found

    try:
        value = json.loads(raw.decode(), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise FormatError(f"{where} is a JSON {type(value).__name__}, expected an object")
    return value


def _tensor(path: Path, name: str, entry: Any, begin: int, size: int) -> Stored:
    where = f"{path}: tensor {name!r:.200}"
    if not isinstance(entry, dict):
        raise FormatError(f"{where} is described by {entry!r:.80}, expected an object")
    dtype, offsets = entry.get("dtype"), entry.get("data_offsets")
    shape = check_shape(where, entry.get("shape"))
    if not isinstance(dtype, str) or dtype not in ELEMENT_BYTES:
        raise UnsupportedError(f"{where} has dtype {dtype!r:.80}, supported: {', '.join(ELEMENT_BYTES)}")
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(type(offset) is int for offset in offsets)
        or not 0 <= offsets[0] <= offsets[1] <= size - begin
    ):
        raise FormatError(
            f"{where} lies at {offsets!r:.80}, expected begin and end within {size - begin} bytes"
        )
    tensor = Stored(name, dtype, shape, path, begin + offsets[0])
    if tensor.n_bytes != offsets[1] - offsets[0]:
        raise FormatError(
            f"{where} takes {offsets[1] - offsets[0]} bytes, expected {tensor.n_bytes} "
            f"for {list(shape)} {dtype}"
        )
    return tensor
