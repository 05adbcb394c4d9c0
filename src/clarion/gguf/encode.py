"""Metadata as the bytes of a GGUF file: the counterpart of metadata.py."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from clarion.errors import ParameterError
from clarion.gguf.metadata import ARRAY, BOOL, MAX_KEY_BYTES, SCALARS, STRING, Strings

DTYPES = {type_id: np.dtype(scalar.name).newbyteorder("<") for type_id, scalar in SCALARS.items()}
_TYPE_IDS = {dtype: type_id for type_id, dtype in DTYPES.items()}
# The first of these that holds all the values is the type of a Python int.
_INT_TYPES = ("<u4", "<i4", "<u8", "<i8")


def encode_pair(key: str, value: Any) -> bytes:
    """A key and its value.

    numpy scalars and arrays keep their type. Of Python's own types, int becomes the first of uint32, int32,
    uint64 and int64 that holds it, float becomes float32; a list or tuple becomes an array, in which ints are
    int32 if all fit. Strings may be bytes, which need not be UTF-8.

    Raises:
        ParameterError: GGUF has no type for the value.
    """
    name = encode_text(key, f"metadata key {key!r}", MAX_KEY_BYTES)
    try:
        return name + _encode_value(value)
    except (OverflowError, TypeError, ValueError) as error:
        raise ParameterError(f"metadata {key!r} cannot be written: {error}") from error


def encode_text(text: str, what: str, most: int) -> bytes:
    """A length and 1 to `most` bytes of UTF-8."""
    try:
        raw = text.encode()
    except UnicodeEncodeError as error:
        raise ParameterError(f"{what} cannot be written: {error}") from error
    if not 1 <= len(raw) <= most:
        raise ParameterError(f"{what} is {len(raw)} bytes long, allowed: 1 to {most}")
    return _string(raw)


def _encode_value(value: Any) -> bytes:
    if isinstance(value, str | bytes):
        return struct.pack("<I", STRING) + _string(value)
    if isinstance(value, Strings):
        return _string_array(value.raws())
    if isinstance(value, np.ndarray):
        return _string_array(value.tolist()) if value.dtype.kind == "U" else _number_array(value)
    if isinstance(value, Sequence):
        return _array(value)
    number = _number(value)
    return struct.pack("<I", _type_id(number.dtype)) + number.tobytes()


def _number(value: Any) -> np.ndarray[Any, Any]:
    if isinstance(value, np.generic):
        return np.asarray(value)
    if isinstance(value, bool):
        return np.asarray(value)
    if isinstance(value, int):
        return _integers(value, _INT_TYPES)
    if isinstance(value, float):
        return _float32(value)
    raise TypeError(f"found {type(value).__name__}, allowed: a number, string, or sequence of one of them")


def _array(values: Sequence[Any]) -> bytes:
    kinds = {type(value) for value in values}
    if kinds and kinds <= {str, bytes}:
        return _string_array(values)
    if kinds == {bool}:
        return _number_array(np.array(values))
    if kinds == {int}:
        return _number_array(_integers(values, ("<i4", *_INT_TYPES)))
    if kinds and kinds <= {int, float}:
        return _number_array(_float32(values))
    found = " and ".join(sorted(kind.__name__ for kind in kinds)) or "nothing"
    raise TypeError(f"a sequence of {found} has no array type, allowed: strings, bools, ints or floats")


def _integers(values: Any, types: Iterable[str]) -> np.ndarray[Any, Any]:
    low, high = (min(values), max(values)) if isinstance(values, Sequence) else (values, values)
    for dtype in types:
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return np.array(values, dtype)
    raise OverflowError(f"{low} to {high} fits into no integer of 64 bits")


def _float32(values: Any) -> np.ndarray[Any, Any]:
    exact = np.array(values, "<f8")
    with np.errstate(over="ignore"):
        rounded = exact.astype("<f4")
    if np.any(np.isinf(rounded) & ~np.isinf(exact)):
        raise OverflowError("does not fit into float32, use numpy.float64")
    return rounded


def _number_array(values: np.ndarray[Any, Any]) -> bytes:
    if values.ndim != 1:
        raise ValueError(f"the array has {values.ndim} dimensions, allowed: 1")
    return struct.pack("<IIQ", ARRAY, _type_id(values.dtype), len(values)) + values.tobytes()


def _string_array(values: Iterable[str | bytes]) -> bytes:
    encoded = [_string(value) for value in values]
    return struct.pack("<IIQ", ARRAY, STRING, len(encoded)) + b"".join(encoded)


def _string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def _type_id(dtype: np.dtype[Any]) -> int:
    type_id = BOOL if dtype.kind == "b" else _TYPE_IDS.get(dtype)
    if type_id is None:
        raise TypeError(f"found an element type of {dtype}, allowed: {', '.join(t.name for t in _TYPE_IDS)}")
    return type_id
