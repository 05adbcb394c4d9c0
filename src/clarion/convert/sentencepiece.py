"""sentencepiece's `tokenizer.model`: as much of its protocol buffer as a vocabulary needs.

Numbers of fields are those of sentencepiece_model.proto (https://github.com/google/sentencepiece).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from clarion.errors import FormatError, UnsupportedError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # the same numbers as in GGUF
_BPE = 2  # of trainer_spec.model_type


@dataclass(frozen=True, slots=True)
class Piece:
    text: str
    score: float
    kind: int


@dataclass(frozen=True, slots=True)
class PieceModel:
    """A vocabulary of scored merges. Ids are -1 where there is no such token."""

    pieces: tuple[Piece, ...]
    unknown: int
    bos: int
    eos: int
    pad: int
    add_space_prefix: bool
    normalized: bool  # by more than how spaces are written: characters are replaced, or spaces removed


def parse(raw: bytes, where: str) -> PieceModel:
    """The model in the bytes of a file; `where` begins the message of an error.

    Raises:
        FormatError: the bytes are no such message.
        UnsupportedError: a model that is not byte-pair encoding.
    """
    pieces: list[Piece] = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    damaged = f"{where}: no sentencepiece model"
    for number, value in _fields(raw, damaged):
        if number == 1:
            pieces.append(_piece(_message(value, damaged), damaged))
        elif number == 2:
            trainer = _message(value, damaged)
        elif number == 3:
            normalizer = _message(value, damaged)
    if not pieces:
        raise FormatError(f"{where}: no pieces, expected a sentencepiece model")
    kind = trainer.get(3, 1)
    if kind != _BPE:
        raise UnsupportedError(f"{where}: trainer_spec.model_type is {kind}, supported: {_BPE} (BPE)")

    def token(field: int, default: int) -> int:
        value = trainer.get(field, default)
        if not isinstance(value, int):
            raise FormatError(f"{where}: trainer_spec field {field} is {value!r:.80}, expected an id")
        # int32 travels as 64 bits.
        value = value - 2**64 if value >= 2**63 else value
        return value if 0 <= value < len(pieces) else -1

    return PieceModel(
        tuple(pieces),
        unknown=token(40, 0),
        bos=token(41, 1),
        eos=token(42, 2),
        pad=token(43, -1),
        add_space_prefix=bool(normalizer.get(3, 1)),
        normalized=bool(normalizer.get(2) or normalizer.get(4)),
    )


def _piece(fields: dict[int, Any], where: str) -> Piece:
    text, score, kind = fields.get(1, b""), fields.get(2, b"\0\0\0\0"), fields.get(3, NORMAL)
    if not isinstance(text, bytes) or not isinstance(score, bytes) or len(score) != 4:
        raise FormatError(f"{where}: a piece is {fields!r:.80}, expected a text and a score")
    if kind not in range(NORMAL, BYTE + 1):
        raise FormatError(f"{where}: a piece is of type {kind!r:.80}, expected {NORMAL} to {BYTE}")
    try:
        return Piece(text.decode(), struct.unpack("<f", score)[0], kind)
    except UnicodeDecodeError as error:
        raise FormatError(f"{where}: piece {text!r:.80} is not UTF-8") from error


def _message(value: int | bytes, where: str) -> dict[int, Any]:
    """The fields of a message inside the message, the last of each number."""
    if not isinstance(value, bytes):
        raise FormatError(f"{where}: found a number, expected a message")
    return dict(_fields(value, where))


def _fields(raw: bytes, where: str) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field: an integer (wire type 0), or bytes (1, 2, 5)."""
    at = 0
    while at < len(raw):
        key, at = _varint(raw, at, where)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(raw, at, where)
            yield number, value
            continue
        if wire == 2:
            length, at = _varint(raw, at, where)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise FormatError(f"{where}: offset {at}: wire type {wire}, expected 0, 1, 2 or 5")
        if length > len(raw) - at:
            raise FormatError(f"{where}: offset {at}: a field of {length} bytes, found {len(raw) - at}")
        yield number, raw[at : at + length]
        at += length


def _varint(raw: bytes, at: int, where: str) -> tuple[int, int]:
    value = 0
    for i, byte in enumerate(raw[at : at + 10]):
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, at + i + 1
    raise FormatError(f"{where}: offset {at}: an integer without an end")
