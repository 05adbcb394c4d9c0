"""A vocabulary on its way from a checkpoint to a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clarion.convert.config import whole
from clarion.convert.sentencepiece import NORMAL, UNUSED
from clarion.errors import FormatError

MAX_ID = 2**24
UNREACHABLE = -1e6  # score of what no merge gives


@dataclass(slots=True)
class Tokens:
    """A vocabulary under construction; ids are positions."""

    texts: list[str | None]
    kinds: list[int]
    scores: list[float]

    def put(self, token: int, text: str, kind: int, score: float | None = None) -> None:
        """Sets a token; without a score, it keeps the one that it has."""
        missing = token + 1 - len(self.texts)
        self.texts += [None] * missing
        self.kinds += [UNUSED] * missing
        self.scores += [UNREACHABLE] * missing
        if score is None:
            score = self.scores[token] if self.texts[token] == text else 0.0
        self.texts[token], self.kinds[token], self.scores[token] = text, kind, score

    def ids(self) -> dict[str, int]:
        return {text: token for token, text in enumerate(self.texts) if text is not None}


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a file of a vocabulary says: tokens, merges where the kind needs them, further metadata."""

    kind: str
    tokens: Tokens
    merges: list[str] | None
    metadata: dict[str, Any]
    known: Mapping[str, int]  # ids by role
    mergeable: frozenset[str] | None = None  # where not all texts are: those that merging may give


def ids_of(vocabulary: Any, where: str) -> Tokens:
    """The tokens of an object that gives ids of texts."""
    if not isinstance(vocabulary, dict) or not vocabulary:
        raise FormatError(f"{where}: vocab is {vocabulary!r:.80}, expected texts and ids")
    ids: dict[int, str] = {}
    for text, value in vocabulary.items():
        token = whole(value)
        if token is None or not 0 <= token < MAX_ID:
            raise FormatError(f"{where}: id of {text!r:.80} is {value!r:.80}, expected 0 to 2^24")
        if token in ids:
            raise FormatError(f"{where}: {ids[token]!r:.80} and {text!r:.80} of vocab have the same id")
        ids[token] = text
    tokens = Tokens([], [], [])
    for token in sorted(ids):
        tokens.put(token, ids[token], NORMAL, 0.0)
    return tokens
