"""Finding the texts of special tokens in a text, before the encoder sees the rest."""

from __future__ import annotations

import re
from collections.abc import Iterator

from clarion.tokenizer.characters import ASCII_SPACES
from clarion.tokenizer.vocabulary import Vocabulary


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
