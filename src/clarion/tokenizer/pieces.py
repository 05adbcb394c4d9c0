"""From a token to the bytes that it stands for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, overload

from clarion.tokenizer.settings import Settings
from clarion.tokenizer.vocabulary import BYTE, NORMAL, SPACE, SPECIAL, USER_DEFINED, Vocabulary

# GPT-2's alphabet: printable bytes are themselves, the others the characters from U+0100 on, in order.
_PRINTABLE: Final = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS: Final = [byte for byte in range(0x100) if byte not in _PRINTABLE]
ALPHABET: Final = "".join(
    chr(byte) if byte in _PRINTABLE else chr(0x100 + _OTHERS.index(byte)) for byte in range(0x100)
)
_BYTE_OF: Final = {character: bytes((byte,)) for byte, character in enumerate(ALPHABET)}
_BYTE_TOKEN: Final = re.compile("<0x([0-9A-Fa-f]{2})>")
_ESCAPE: Final = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_ESCAPED: Final = {b"t": b"\t", b"n": b"\n", b"r": b"\r"}


def unescape(text: str) -> bytes:
    """The bytes of a token that is written as the inside of a Python literal."""
    return _ESCAPE.sub(
        lambda match: bytes.fromhex(match[1].decode()) if match[1] else _ESCAPED.get(match[2], match[2]),
        text.encode("utf-8", "surrogateescape"),
    )


class Pieces(Sequence[bytes]):
    """The bytes of every token; each is worked out when it is asked for."""

    def __init__(self, vocabulary: Vocabulary, settings: Settings) -> None:
        self._texts = vocabulary.texts
        self._attributes = vocabulary.attributes
        self._escaped = settings.model == "rwkv"
        rules = settings.pretokenizer
        self._byte_level = rules is not None and rules.byte_level

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        text, bits = self._texts[index], self._attributes[index]
        if self._escaped:
            return unescape(text)
        if bits & (SPECIAL | USER_DEFINED):
            return text.encode("utf-8", "surrogateescape")
        if bits & NORMAL:
            if self._byte_level:
                return b"".join(
                    _BYTE_OF.get(character) or character.encode("utf-8", "surrogateescape")
                    for character in text
                )
            return text.replace(SPACE, " ").encode("utf-8", "surrogateescape")
        if bits & BYTE and (byte := _BYTE_TOKEN.fullmatch(text)):
            return bytes.fromhex(byte[1])
        return b""
