"""`gpt2`: byte-pair encoding by a list of merges, within the words of a pre-tokenizer."""

from __future__ import annotations

from clarion.tokenizer import characters
from clarion.tokenizer.encoder import WordCache
from clarion.tokenizer.pieces import ALPHABET
from clarion.tokenizer.pretokenizer import Pretokenizer
from clarion.tokenizer.settings import Settings
from clarion.tokenizer.vocabulary import SPACE, Vocabulary


class RankedMerges:
    """Merges the neighbours that come first in the list of merges, the leftmost first, until none is left.

    Symbols that are no tokens are merged like others, since files do not promise that every merge gives a
    token. What is none in the end, a character or more, is written byte by byte.
    """

    def __init__(self, vocabulary: Vocabulary, settings: Settings, rules: Pretokenizer) -> None:
        self._vocabulary = vocabulary
        self._ids = vocabulary.ids
        self._rules = rules
        self._unmerged = frozenset(settings.unmerged_tokens)
        self._lowercase = settings.lowercase
        self._merging = settings.fields.merging("tokenizer.ggml.merges", "tokenizer.ggml.tokens")
        self._encode_word: WordCache[str] = WordCache(self._merge)

    def encode(self, text: str, after_special: bool) -> list[int]:
        if self._rules.escape_spaces:
            text = text.replace(" ", SPACE)
        if self._lowercase:
            text = "".join(map(characters.lower, text))
        words = self._rules.split(text)
        if self._rules.drop_spaces:
            words = [word for word in words if characters.blank(word[0]) not in characters.ASCII_SPACES]
        return [token for word in words for token in self._encode_word(word)]

    def _merge(self, word: str) -> list[int]:
        if self._rules.byte_level:
            word = word.encode().decode("latin-1").translate(ALPHABET)
        if self._rules.ignore_merges or (self._rules.ignore_merges_of_newlines and not word.strip("\n")):
            token = self._ids.get(word)
            if token is not None and token not in self._unmerged:
                return [token]
        found = [
            token if token >= 0 else self._byte_token(-1 - token) for token in self._merging.encode(word)
        ]
        return [token for token in found if token is not None]

    def _byte_token(self, byte: int) -> int | None:
        """The token of a single byte; those that the vocabulary lacks are dropped, as llama.cpp does."""
        if self._rules.byte_level:
            return self._vocabulary.character_token(byte)
        return self._vocabulary.byte_token(byte)
