"""What every way from text to ids has in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

Word = TypeVar("Word", bound=str | bytes)

MAX_WORDS = 32_768
MAX_WORD_LENGTH = 64


class Encoder(Protocol):
    """Turns text without special tokens into ids."""

    def encode(self, text: str, after_special: bool) -> list[int]:
        """The ids of a text that is not empty and holds no special token.

        Args:
            text: the text.
            after_special: whether it stands at the start or after a special token.

        Raises:
            TokenizerError: the vocabulary cannot express the text.
        """


class WordCache(Generic[Word]):
    """Remembers the ids of short words: most of a text are words that came before."""

    def __init__(self, encode_word: Callable[[Word], list[int]]) -> None:
        self._encode_word = encode_word
        self._ids: dict[Word, list[int]] = {}

    def __call__(self, word: Word) -> list[int]:
        """The ids of a word; not to be changed."""
        ids = self._ids.get(word)
        if ids is None:
            ids = self._encode_word(word)
            if len(word) <= MAX_WORD_LENGTH:
                if len(self._ids) >= MAX_WORDS:
                    self._ids.clear()
                self._ids[word] = ids
        return ids
