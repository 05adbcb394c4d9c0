"""Pieces of text, as streams give them: each knows the tokens that it is made of."""

from __future__ import annotations

from collections import deque

from clarion.runtime.completion import TokenLogprob


class Piece(str):
    """Some text of a stream.

    Tokens and pieces rarely end at the same characters. A token belongs to the piece that completes its text;
    so the tokens of all pieces, one after the other, are the first tokens of the completion. A token that
    gives no text (half of a character) belongs to the next piece. What no piece completes, as the tokens of a
    stop string, is in the completion alone. A piece without tokens is the beginning of a token's text, the
    rest of which may begin a stop string.

    Attributes:
        tokens: whose text this piece completes.
        logprobs: one for each of them, where they were asked for.
    """

    __slots__ = ("logprobs", "tokens")

    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] | None

    def __new__(
        cls, text: str, tokens: tuple[int, ...] = (), logprobs: tuple[TokenLogprob, ...] | None = None
    ) -> Piece:
        piece = str.__new__(cls, text)
        piece.tokens = tokens
        piece.logprobs = logprobs
        return piece


class TokenEnds:
    """Where tokens end in a text of which only a part was given away.

    Attributes:
        waiting: (characters, tokens) from the beginning, of the tokens whose text was not given away as a
            whole. While it is empty, what is fed and given as a whole need not be told.
    """

    def __init__(self) -> None:
        self._n_fed = self._n_given = 0  # characters
        self.waiting: deque[tuple[int, int]] = deque()

    def feed(self, n_characters: int, n_tokens: int) -> None:
        """So many characters more end the text of the first `n_tokens` tokens."""
        self._n_fed += n_characters
        self.waiting.append((self._n_fed, n_tokens))

    def give(self, n_characters: int) -> int:
        """So many characters more are given away. Returns how many tokens, from the beginning, end there or
        before; 0 where none does that waited."""
        self._n_given += n_characters
        n_tokens = 0
        while self.waiting and self.waiting[0][0] <= self._n_given:
            _, n_tokens = self.waiting.popleft()
        return n_tokens
