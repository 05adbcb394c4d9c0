"""The key-value pairs of a GGUF file: validated when the file is opened, decoded when they are asked for."""

from __future__ import annotations

import builtins
import re
import struct
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, overload

from clarion._native import files
from clarion.errors import FormatError, UnsupportedError
from clarion.gguf.cursor import MOST_AT_ONCE, Cursor, decode, format_error

# Imported where arrays of numbers are asked for: who only runs a model starts without it.
if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

BOOL, STRING, ARRAY = 7, 8, 9


@dataclass(frozen=True, slots=True)
class Scalar:
    """A type of number: the letter that `struct` and `array` have for it, and its kind as numpy says it."""

    name: str
    letter: str
    kind: str

    @property
    def itemsize(self) -> int:
        return _SIZES[self.letter]


_SIZES: Final = {letter: struct.calcsize("<" + letter) for letter in "BbHhIiQqfd?"}
# By value type id: those whose values have a fixed size.
SCALARS: Final[Mapping[int, Scalar]] = {
    0: Scalar("uint8", "B", "u"),
    1: Scalar("int8", "b", "i"),
    2: Scalar("uint16", "H", "u"),
    3: Scalar("int16", "h", "i"),
    4: Scalar("uint32", "I", "u"),
    5: Scalar("int32", "i", "i"),
    6: Scalar("float32", "f", "f"),
    BOOL: Scalar("bool", "?", "b"),
    10: Scalar("uint64", "Q", "u"),
    11: Scalar("int64", "q", "i"),
    12: Scalar("float64", "d", "f"),
}
MAX_PAIRS = 65_536  # real files have some dozen; this many are read in about half a second
MAX_KEY_BYTES = 65_535  # the format's own limit
# What describes a file and not the model in it.
OF_THE_FILE = frozenset({"general.alignment", "split.no", "split.count", "split.tensors.count"})
LEAST_PAIR_BYTES = 8 + 1 + 4 + 1  # key length, key, value type, value

Numbers: TypeAlias = "npt.NDArray[Any]"
D = TypeVar("D")
_REQUIRED: Final[Any] = object()


class Strings(Sequence[str]):
    """An array of strings in the file. Each is decoded when it is asked for.

    Indexing raises FormatError where the bytes are no UTF-8; `raw` gives the bytes as they are.
    """

    __slots__ = ("_data", "_key", "_lengths", "_path", "_starts")

    def __init__(
        self, path: Path, key: str, data: memoryview, starts: memoryview, lengths: memoryview
    ) -> None:
        self._path = path
        self._key = key
        self._data = data
        self._starts = starts
        self._lengths = lengths

    def __len__(self) -> int:
        return len(self._starts)

    def raw(self, index: int) -> bytes:
        """The bytes of string `index`."""
        start = self._starts[index]
        return self._data[start : start + self._lengths[index]].tobytes()

    def raws(self) -> Iterator[bytes]:
        """The bytes of every string, in order."""
        for start, length in zip(self._starts.tolist(), self._lengths.tolist(), strict=True):
            yield bytes(self._data[start : start + length])

    def texts(self) -> list[str]:
        """Every string, in order. Bytes that are no UTF-8 become lone surrogates (`surrogateescape`)."""
        return files.strings(*self.places())

    def places(self) -> tuple[memoryview, memoryview, memoryview]:
        """Bytes, and where in them each string begins and how long it is: i64[n] twice."""
        return self._data, _contiguous(self._starts), _contiguous(self._lengths)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Strings: ...
    def __getitem__(self, index: int | slice) -> str | Strings:
        if isinstance(index, slice):
            return Strings(self._path, self._key, self._data, self._starts[index], self._lengths[index])
        return self._decode(index, self.raw(index))

    def __iter__(self) -> Iterator[str]:
        for index, raw in enumerate(self.raws()):
            try:
                yield str(raw, "utf-8")
            except UnicodeDecodeError:
                yield self._decode(index, raw)

    def __repr__(self) -> str:
        return f"<{len(self)} strings>"

    def _decode(self, index: int, raw: bytes) -> str:
        return decode(self._path, self._starts[index], f"metadata {self._key!r}[{index}]", raw)


Value: TypeAlias = "int | float | bool | str | Numbers | Strings"
Plain: TypeAlias = "int | float | bool | str | list[builtins.bool] | array[Any] | Strings"


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one value lies, and what it is."""

    type_id: int  # of the value, or of the array's elements
    offset: int  # of the number, the string's bytes, or the array's first element
    length: int  # of the string in bytes; of the array in elements; 1 for a number
    is_array: bool
    strings: tuple[memoryview, memoryview] | None = None  # starts, lengths


class Metadata(Mapping[str, Value]):
    """Key → int, float, bool, str; for arrays a read-only numpy view (of any alignment) or `Strings`.

    The typed getters check the type; without a default the key is required. They raise FormatError, which
    names the key, when it is missing or of another type.
    """

    __slots__ = ("_data", "_entries", "_path")

    def __init__(self, path: Path, data: memoryview, entries: Mapping[str, Entry]) -> None:
        self._path = path
        self._data = data
        self._entries = entries

    def __len__(self) -> builtins.int:
        return len(self._entries)

    def __iter__(self) -> Iterator[builtins.str]:
        return iter(self._entries)

    def __contains__(self, key: object) -> builtins.bool:
        return key in self._entries

    def __getitem__(self, key: builtins.str) -> Value:
        entry = self._entries[key]
        if entry.type_id == STRING or entry.is_array:
            value: Value = self._stored(key, entry)
            return value
        number: builtins.int | builtins.float | builtins.bool
        (number,) = struct.unpack_from("<" + SCALARS[entry.type_id].letter, self._data, entry.offset)
        return number

    def plain(self, key: builtins.str) -> Plain | None:
        """The value without numpy: of numbers an `array`, of bools a list, both copies; None where the key is
        missing."""
        entry = self._entries.get(key)
        if entry is None or not entry.is_array or entry.type_id == STRING:
            found: Any = self.get(key)
            stored: Plain | None = found
            return stored
        scalar = SCALARS[entry.type_id]
        raw = self._data[entry.offset : entry.offset + entry.length * scalar.itemsize]
        if entry.type_id == BOOL:
            return list(map(builtins.bool, raw))
        values = array(scalar.letter)
        values.frombytes(raw)
        if sys.byteorder == "big":
            values.byteswap()
        return values

    def type(self, key: builtins.str) -> builtins.str:
        """The type in the file: `uint32`, `string`, `float32[4]`, ..."""
        entry = self._entries[key]
        name = "string" if entry.type_id == STRING else SCALARS[entry.type_id].name
        return f"{name}[{entry.length}]" if entry.is_array else name

    def error(self, key: builtins.str, found: object, allowed: object) -> FormatError:
        """The error that says what is wrong with this key's value, and where it stands."""
        entry = self._entries.get(key)
        if entry is None:
            return FormatError(f"{self._path}: metadata {key!r} is missing, allowed: {allowed}")
        return format_error(self._path, entry.offset, f"metadata {key!r}", found, allowed)

    def exact(self) -> dict[builtins.str, Any]:
        """The pairs with their types, numbers as numpy scalars, as `Writer` takes them for a copy.

        Without the alignment and the place in a split model, which describe this file and not the model.
        """
        return {
            key: self._stored(key, entry) for key, entry in self._entries.items() if key not in OF_THE_FILE
        }

    @overload
    def str(self, key: builtins.str) -> builtins.str: ...
    @overload
    def str(self, key: builtins.str, default: D) -> builtins.str | D: ...
    def str(self, key: builtins.str, default: Any = _REQUIRED) -> Any:
        return self._get(key, default, "s", is_array=False, allowed="string")

    @overload
    def int(self, key: builtins.str) -> builtins.int: ...
    @overload
    def int(self, key: builtins.str, default: D) -> builtins.int | D: ...
    def int(self, key: builtins.str, default: Any = _REQUIRED) -> Any:
        return self._get(key, default, "iu", is_array=False, allowed="an integer")

    @overload
    def float(self, key: builtins.str) -> builtins.float: ...
    @overload
    def float(self, key: builtins.str, default: D) -> builtins.float | D: ...
    def float(self, key: builtins.str, default: Any = _REQUIRED) -> Any:
        return self._get(key, default, "f", is_array=False, allowed="float32 or float64")

    @overload
    def bool(self, key: builtins.str) -> builtins.bool: ...
    @overload
    def bool(self, key: builtins.str, default: D) -> builtins.bool | D: ...
    def bool(self, key: builtins.str, default: Any = _REQUIRED) -> Any:
        return self._get(key, default, "b", is_array=False, allowed="bool")

    @overload
    def strs(self, key: builtins.str) -> Strings: ...
    @overload
    def strs(self, key: builtins.str, default: D) -> Strings | D: ...
    def strs(self, key: builtins.str, default: Any = _REQUIRED) -> Any:
        return self._get(key, default, "s", is_array=True, allowed="an array of strings")

    @overload
    def ints(self, key: builtins.str) -> npt.NDArray[np.int64]: ...
    @overload
    def ints(self, key: builtins.str, default: D) -> npt.NDArray[np.int64] | D: ...
    def ints(self, key: builtins.str, default: Any = _REQUIRED) -> Any:
        """i64[n], a copy."""
        values = self._get(key, default, "iu", is_array=True, allowed="an array of integers")
        if key not in self._entries:
            return values
        import numpy as np

        if values.dtype == np.uint64 and np.any(values > np.iinfo(np.int64).max):
            raise self.error(key, f"an array with {values.max()}", "at most 2^63-1")
        return values.astype(np.int64)

    @overload
    def floats(self, key: builtins.str) -> npt.NDArray[np.float64]: ...
    @overload
    def floats(self, key: builtins.str, default: D) -> npt.NDArray[np.float64] | D: ...
    def floats(self, key: builtins.str, default: Any = _REQUIRED) -> Any:
        """f64[n], a copy."""
        values = self._get(key, default, "f", is_array=True, allowed="an array of float32 or float64")
        return values.astype("f8") if key in self._entries else values

    @overload
    def bools(self, key: builtins.str) -> npt.NDArray[np.bool_]: ...
    @overload
    def bools(self, key: builtins.str, default: D) -> npt.NDArray[np.bool_] | D: ...
    def bools(self, key: builtins.str, default: Any = _REQUIRED) -> Any:
        return self._get(key, default, "b", is_array=True, allowed="an array of bools")

    def _get(
        self,
        key: builtins.str,
        default: Any,
        kinds: builtins.str,
        *,
        is_array: builtins.bool,
        allowed: builtins.str,
    ) -> Any:
        entry = self._entries.get(key)
        if entry is None:
            if default is _REQUIRED:
                raise self.error(key, None, allowed)
            return default
        kind = "s" if entry.type_id == STRING else SCALARS[entry.type_id].kind
        if kind not in kinds or entry.is_array != is_array:
            raise self.error(key, f"of type {self.type(key)}", allowed)
        return self[key]

    def _stored(self, key: builtins.str, entry: Entry) -> Any:
        if entry.strings is not None:
            return Strings(self._path, key, self._data, *entry.strings)
        if entry.type_id == STRING:
            raw = self._data[entry.offset : entry.offset + entry.length].tobytes()
            return decode(self._path, entry.offset, f"metadata {key!r}", raw)
        import numpy as np

        scalar = SCALARS[entry.type_id]
        raw_values = self._data[entry.offset : entry.offset + entry.length * scalar.itemsize]
        values = np.frombuffer(raw_values, np.dtype(scalar.name).newbyteorder("<"))
        return values if entry.is_array else values[0]


def read_metadata(cursor: Cursor, n_pairs: builtins.int) -> Metadata:
    """Reads `n_pairs` pairs and validates everything but the encoding of string values.

    Raises:
        FormatError: a pair is malformed or does not fit into the file, or a key comes twice.
        UnsupportedError: an array of arrays, which no model uses.
    """
    entries: dict[str, Entry] = {}
    for _ in range(n_pairs):
        begin = cursor.offset
        key = cursor.string("metadata key", MAX_KEY_BYTES)
        if key in entries:
            raise format_error(cursor.path, begin, "metadata key", f"{key!r} again", "each key once")
        entries[key] = _read_entry(cursor, f"metadata {key!r}")
    return Metadata(cursor.path, cursor.data, entries)


def _read_entry(cursor: Cursor, field: str) -> Entry:
    type_id = _read_type(cursor, f"value type of {field}", (*SCALARS, STRING, ARRAY))
    if type_id == STRING:
        length = cursor.u64(f"length of {field}")
        return Entry(STRING, cursor.take(length, field), length, is_array=False)
    if type_id != ARRAY:
        entry = Entry(type_id, cursor.take(SCALARS[type_id].itemsize, field), 1, is_array=False)
    else:
        begin = cursor.offset
        element_type = _read_type(cursor, f"element type of {field}", (*SCALARS, STRING, ARRAY))
        if element_type == ARRAY:
            raise UnsupportedError(f"{cursor.path}: offset {begin}: {field} is an array of arrays")
        count = cursor.u64(f"length of {field}")
        if element_type == STRING:
            return _read_strings(cursor, field, count)
        start = cursor.take(count * SCALARS[element_type].itemsize, field)
        entry = Entry(element_type, start, count, is_array=True)
    if entry.type_id == BOOL:
        _check_bools(cursor, field, entry.offset)
    return entry


def _read_type(cursor: Cursor, field: str, allowed: Sequence[int]) -> int:
    begin = cursor.offset
    type_id = cursor.u32(field)
    if type_id not in allowed:
        raise format_error(cursor.path, begin, field, type_id, f"0 to {max(allowed)}")
    return type_id


def _read_strings(cursor: Cursor, field: str, count: int) -> Entry:
    start = cursor.offset
    try:
        starts, lengths, cursor.offset = files.string_offsets(cursor.data, start, count)
    except IndexError as error:
        cursor.ended = count <= MOST_AT_ONCE and not re.search(r"\d{9}", str(error))
        raise FormatError(f"{cursor.path}: {field}: {error}") from None
    return Entry(STRING, start, count, is_array=True, strings=(starts, lengths))


def _check_bools(cursor: Cursor, field: str, start: int) -> None:
    wrong = bytes(cursor.data[start : cursor.offset]).lstrip(b"\x00\x01")
    if wrong:
        offset = cursor.offset - len(wrong)
        raise format_error(cursor.path, offset, field, wrong[0], "0 or 1 for a bool")


def _contiguous(places: memoryview) -> memoryview:
    """The same numbers beside each other: those of a slice with a step are not."""
    return places if places.c_contiguous else memoryview(array("q", places.tolist()))
