"""`gpt2`: byte-pair encoding by a list of merges, within the words of a pre-tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

from tokenizers.models import BPE

from clarion.tokenizer import characters
from clarion.tokenizer.encoder import WordCache
from clarion.tokenizer.pieces import ALPHABET
from clarion.tokenizer.pretokenizer import Pretokenizer
from clarion.tokenizer.settings import Settings
from clarion.tokenizer.vocabulary import SPACE, Vocabulary

_UNKNOWN = ""  # no token has this text


class RankedMerges:
    """Merges the neighbours that come first in the list of merges, the leftmost first, until none is left.

    The merging is the library's. It wants every merge to give a token, which files do not promise: what is
    missing gets ids past the vocabulary, and so do characters without a token. A symbol with such an id is
    written byte by byte in the end.
    """

    def __init__(self, vocabulary: Vocabulary, settings: Settings, rules: Pretokenizer) -> None:
        self._vocabulary = vocabulary
        self._ids = vocabulary.ids
        self._n_tokens = settings.n_tokens
        self._rules = rules
        self._lowercase = settings.lowercase
        self._model = _build(self._ids, settings)
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
            if token is not None:
                return [token]
        tokens: list[int] = []
        for symbol in self._model.tokenize(word):
            if symbol.id < self._n_tokens:
                tokens.append(symbol.id)
            else:
                begin, end = symbol.offsets
                tokens += self._spell(word.encode()[begin:end])
        return tokens

    def _spell(self, symbol: bytes) -> Iterator[int]:
        """The tokens of single bytes; those that the vocabulary lacks are dropped, as llama.cpp does."""
        for byte in symbol:
            if self._rules.byte_level:
                token = self._vocabulary.character_token(byte)
            else:
                token = self._vocabulary.byte_token(byte)
            if token is not None:
                yield token


def _build(ids: Mapping[str, int], settings: Settings) -> BPE:
    key = "tokenizer.ggml.merges"
    found = settings.fields.merges(key, "tokenizer.ggml.tokens")
    if found is None:
        raise settings.fields.error(key, "missing", "an array of strings")
    merges, needed = found
    known = dict(ids)
    for symbol in chain(needed, (_UNKNOWN,)):
        known.setdefault(symbol, settings.n_tokens + len(known))
    if not _is_utf8("".join(known)):  # then no text can hold it
        known = {text: token for text, token in known.items() if _is_utf8(text)}
        merges = [pair for pair in merges if all(map(_is_utf8, pair))]
    return BPE(known, merges, unk_token=_UNKNOWN, fuse_unk=True, cache_capacity=0)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
