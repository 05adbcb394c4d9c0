"""`rwkv`: the longest token first, over bytes."""

from __future__ import annotations

from clarion.errors import TokenizerError
from clarion.tokenizer.pieces import unescape
from clarion.tokenizer.settings import Settings
from clarion.tokenizer.vocabulary import Vocabulary


class LongestBytes:
    """Takes the longest token at each place. The trie is a table: first two bytes → lengths that occur."""

    def __init__(self, vocabulary: Vocabulary, settings: Settings) -> None:
        self._unknown = settings.unknown
        self._ids: dict[bytes, int] = {}
        lengths: dict[bytes, set[int]] = {}
        for token, text in enumerate(vocabulary.texts):
            piece = unescape(text)
            self._ids[piece] = token
            lengths.setdefault(piece[:2], set()).add(len(piece))
        self._lengths = {start: sorted(found, reverse=True) for start, found in lengths.items()}

    def encode(self, text: str, after_special: bool) -> list[int]:
        data = text.encode()
        tokens = []
        begin = 0
        while begin < len(data):
            for length in self._lengths.get(data[begin : begin + 2], (1,)):
                token = self._ids.get(data[begin : begin + length])
                if token is not None:
                    break
            else:
                length, token = 1, self._ids.get(data[begin : begin + 1], self._unknown)
            if token is None:
                raise TokenizerError(
                    f"the vocabulary has no token for the byte 0x{data[begin]:02X} and no unknown token"
                )
            tokens.append(token)
            begin += length
        return tokens
