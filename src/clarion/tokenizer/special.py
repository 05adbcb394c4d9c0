"""Finding the texts of special tokens in a text, before the encoder sees the rest."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import groupby
from typing import Final, Protocol

from clarion.tokenizer.characters import ASCII_SPACES
from clarion.tokenizer.settings import Settings
from clarion.tokenizer.vocabulary import SPACE, SPECIAL, Vocabulary

# Bits of `added_token_flags`.
STRIP_LEFT, STRIP_RIGHT, SINGLE_WORD, NORMALIZED = (1 << i for i in range(4))
# Unicode's property White_Space.
_SPACES: Final = (
    "".join(map(chr, (*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B))))
    + "\u2028\u2029\u202f\u205f\u3000"
)
_SPACES_AT: Final = re.compile(f"[{_SPACES}]*")
_NORMALIZERS: Final[dict[str, Callable[[str], str]]] = {
    "nfc": lambda text: unicodedata.normalize("NFC", text),
    "prepend_space": lambda text: SPACE + text if text else text,
    "escape_space": lambda text: text.replace(" ", SPACE),
}


class Splitter(Protocol):
    """Takes tokens out of a text."""

    def split(self, text: str, parse_special: bool) -> list[str | int]:
        """The text as texts, none of them empty, and tokens."""


def splitter(vocabulary: Vocabulary, settings: Settings) -> Splitter:
    """What a file asks for: by its own list of tokens, else as llama.cpp does."""
    if settings.added_tokens is None and not settings.normalizers:
        return SpecialTokens(vocabulary)
    return AddedTokens(vocabulary, settings)


class SpecialTokens:
    """Splits texts at special tokens: the longest first, and that in the whole text."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._texts = vocabulary.texts
        self._strip_left = vocabulary.strip_left
        self._strip_right = vocabulary.strip_right
        self._tokens = {wanted: vocabulary.special_tokens(wanted) for wanted in (False, True)}

    def split(self, text: str, parse_special: bool) -> list[str | int]:
        """The text as texts, none of them empty, and tokens."""
        parts: list[str | int] = [text] if text else []
        for token in self._tokens[parse_special]:
            if self._texts[token] in text:
                parts = [piece for part in parts for piece in self._split_at(token, part)]
        return parts

    def _split_at(self, token: int, part: str | int) -> Iterator[str | int]:
        if isinstance(part, int):
            yield part
            return
        if token in self._strip_right:  # before the next match: the token may be white space itself
            pieces = re.split(f"{re.escape(self._texts[token])}[{ASCII_SPACES}]*", part)
        else:
            pieces = part.split(self._texts[token])
        for index, piece in enumerate(pieces):
            if index:
                yield token
            if index < len(pieces) - 1 and token in self._strip_left:
                piece = piece.rstrip(ASCII_SPACES)
            if piece:
                yield piece


class AddedTokens:
    """Splits texts as the `tokenizers` library does at the tokens added to a vocabulary.

    The leftmost is taken, of several there the longest. Those that are not normalised are looked for first;
    what is left between them is normalised, and the others are looked for in it.
    """

    def __init__(self, vocabulary: Vocabulary, settings: Settings) -> None:
        added = settings.added_tokens
        if added is None:
            added = tuple((token, 0) for token in vocabulary.special_tokens(parse_special=True))
        self._steps = [_NORMALIZERS[name] for name in settings.normalizers]
        self._matchers = {}
        for parse_special in (False, True):
            wanted = [
                (vocabulary.texts[token], token, flags)
                for token, flags in added
                if parse_special or not vocabulary.attributes[token] & SPECIAL
            ]
            self._matchers[parse_special] = (
                _Matcher(entry for entry in wanted if not entry[2] & NORMALIZED),
                _Matcher((self._normalize(e[0]), *e[1:]) for e in wanted if e[2] & NORMALIZED),
            )

    def split(self, text: str, parse_special: bool) -> list[str | int]:
        """The text as texts, none of them empty, and tokens."""
        plain, normalized = self._matchers[parse_special]
        parts: list[str | int] = []
        for part in plain.split(text):
            if isinstance(part, int):
                parts.append(part)
            else:
                parts += normalized.split(self._normalize(part))
        return parts

    def _normalize(self, text: str) -> str:
        for step in self._steps:
            text = step(text)
        return text


class _Matcher:
    """Texts that are looked for together."""

    def __init__(self, entries: Iterable[tuple[str, int, int]]) -> None:
        self._tokens: dict[str, tuple[int, int]] = {}
        for text, token, flags in entries:
            if text:
                self._tokens.setdefault(text, (token, flags))

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        """Longer texts come before their beginnings. Those with the same first character stand together, so
        that few alternatives are tried at most characters of a text."""
        groups = []
        for first, texts in groupby(sorted(self._tokens), key=lambda text: text[0]):
            rests = "|".join(re.escape(text[1:]) for text in sorted(texts, key=len, reverse=True))
            groups.append(f"{re.escape(first)}(?:{rests})")
        return re.compile("|".join(groups))

    def split(self, text: str) -> list[str | int]:
        if not self._tokens:
            return [text] if text else []
        parts: list[str | int] = []
        begin = 0
        for match in self._pattern.finditer(text):
            start, end = match.span()
            token, flags = self._tokens[match[0]]
            if flags & SINGLE_WORD and (_is_word(text[start - 1 : start]) or _is_word(text[end : end + 1])):
                continue
            if flags & STRIP_LEFT:
                start = begin + len(text[begin:start].rstrip(_SPACES))
            if flags & STRIP_RIGHT and (spaces := _SPACES_AT.match(text, end)):
                end = spaces.end()
            if start >= end:  # the token before has swallowed it as white space
                begin = end
                continue
            if begin < start:
                parts.append(text[begin:start])
            parts.append(token)
            begin = end
        if begin < len(text):
            parts.append(text[begin:])
        return parts


def _is_word(character: str) -> bool:
    r"""Whether the character, or none, is one of Unicode's `\w`: letters, marks, digits, connectors."""
    if not character or character.isascii():
        return character.isalnum() or character == "_"
    return (
        unicodedata.category(character) in ("Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "Pc")
        or character in "\u200c\u200d"
        or "\u24b6" <= character <= "\u24e9"  # circled letters, and squared ones below
        or "\U0001f130" <= character <= "\U0001f149"
        or "\U0001f150" <= character <= "\U0001f169"
        or "\U0001f170" <= character <= "\U0001f189"
    )
