"""`llama`: SentencePiece's byte-pair encoding by scores, with bytes for what the vocabulary lacks."""

from __future__ import annotations

import re
from heapq import heapify, heappop, heappush

from clarion.errors import TokenizerError
from clarion.tokenizer.encoder import WordCache
from clarion.tokenizer.settings import Settings
from clarion.tokenizer.vocabulary import SPACE, Vocabulary

_WORD = re.compile(f"{SPACE}*[^{SPACE}]+|{SPACE}+")
_WORD_OF_ONE_SPACE = re.compile(f"{SPACE}[^{SPACE}]*|[^{SPACE}]+")


class ScoredMerges:
    """Merges the neighbours whose joint token has the highest score, the leftmost first, until none is left.

    A space is written as U+2581. Unless a token has one after another character, no merge crosses the border
    before a run of them, and each word can be merged on its own.
    """

    def __init__(self, vocabulary: Vocabulary, settings: Settings) -> None:
        self._vocabulary = vocabulary
        self._ids = vocabulary.ids
        if settings.unmerged_tokens:
            unmerged = {vocabulary.texts[token] for token in settings.unmerged_tokens}
            self._ids = {text: token for text, token in vocabulary.ids.items() if text not in unmerged}
        self._costs = [-score for score in vocabulary.scores]
        self._prefix = settings.space_prefix
        self._split_at_spaces = settings.split_at_spaces
        self._one_word = any(SPACE in text.lstrip(SPACE) for text in self._ids)
        self._encode_word: WordCache[str] = WordCache(self._merge)

    def encode(self, text: str, after_special: bool) -> list[int]:
        text = text.replace(" ", SPACE)
        if after_special and (
            self._prefix == "always" or (self._prefix != "never" and not text.startswith(SPACE))
        ):
            text = SPACE + text
        if self._split_at_spaces:
            words = _WORD_OF_ONE_SPACE.findall(text)
        else:
            words = [text] if self._one_word else _WORD.findall(text)
        return [token for word in words for token in self._encode_word(word)]

    def _merge(self, word: str) -> list[int]:
        """O(n log n). A symbol is known by the index of its first character."""
        length = len(word)
        ends = list(range(1, length + 1))  # of the symbol that begins here; 0 where none does any more
        previous = list(range(-1, length - 1))  # beginning of the symbol before
        ids, costs = self._ids, self._costs
        queue = []
        for left in range(length - 1):
            token = ids.get(word[left : left + 2])
            if token is not None:
                queue.append((costs[token], left, left + 1, left + 2))
        heapify(queue)
        while queue:
            _, left, right, end = heappop(queue)
            if ends[left] != right or ends[right] != end:
                continue  # one of the two has been merged with another since
            ends[left], ends[right] = end, 0
            if end < length:
                previous[end] = left
                token = ids.get(word[left : ends[end]])
                if token is not None:
                    heappush(queue, (costs[token], left, end, ends[end]))
            before = previous[left]
            if before >= 0:
                token = ids.get(word[before:end])
                if token is not None:
                    heappush(queue, (costs[token], before, left, end))
        tokens: list[int] = []
        begin = 0
        while begin < length:
            symbol = word[begin : ends[begin]]
            token = ids.get(symbol)
            if token is None:
                tokens.extend(map(self._byte, symbol.encode()))
            else:
                tokens.append(token)
            begin = ends[begin]
        return tokens

    def _byte(self, byte: int) -> int:
        token = self._vocabulary.byte_token(byte)
        if token is None:
            token = self._vocabulary.character_token(byte)
        if token is None:
            raise TokenizerError(f"the vocabulary has no token <0x{byte:02X}>, which the text needs")
        return token
