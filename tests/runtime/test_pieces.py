"""Pieces of a stream know the tokens whose text they complete, wherever the text is cut."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import clarion
from clarion.runtime.completion import Completion, TokenLogprob
from clarion.runtime.pieces import Piece
from clarion.runtime.request import Generate
from clarion.runtime.sampling import Parameters
from clarion.runtime.speaker import Speech
from clarion.runtime.streams import AsyncTextStream, TextStream
from tests.runtime.fakes import FakeMachine, greedy
from tests.runtime.test_engine import generation, text

# What the decoder says at each token: half characters give nothing, and others may give several.
TEXTS = ("", "a", "b", "ab", "ba", "abba", "c")


class Table:
    """Token i is TEXTS[i]; what ends with a half character ends with a question mark."""

    def __init__(self) -> None:
        self._is_half = False

    def stream(self) -> Table:
        return Table()

    def feed(self, token: int) -> str:
        self._is_half = not TEXTS[token]
        return TEXTS[token]

    def finish(self) -> str:
        return "?" if self._is_half else ""


def speak(tokens: Sequence[int], stops: tuple[str, ...] = (), logprobs: int | None = None) -> list[Any]:
    """What a caller hears of a text of these tokens."""
    heard: list[Any] = []
    wanted = Generate(Parameters(stop=stops, logprobs=logprobs), 100, detokenizer=Table(), streams=True)
    speech = Speech(0, wanted, 1, heard.append, 0.0)
    for i, token in enumerate(tokens):
        if speech.end is None:
            speech.speak(1.0, token, None if logprobs is None else TokenLogprob(token, -float(i), ()))
    if speech.end is None:
        speech.finish(2.0, "length", None)
    return [*heard, speech.end]


@given(
    st.lists(st.integers(0, len(TEXTS) - 1), max_size=12),
    st.lists(st.text("abc?", min_size=1, max_size=4), max_size=2),
    st.sampled_from([None, 0]),
)
def test_each_piece_has_the_tokens_whose_text_it_completes(
    tokens: list[int], stops: list[str], logprobs: int | None
) -> None:
    *pieces, end = speak(tokens, tuple(stops), logprobs)
    assert isinstance(end, Completion)
    assert "".join(pieces) == end.text
    assert all(pieces)
    said, given_ = "", 0
    for piece in pieces:
        said += piece
        assert piece.tokens == end.tokens[given_ : given_ + len(piece.tokens)]
        given_ += len(piece.tokens)
        assert (piece.logprobs is None) == (logprobs is None)
        if piece.logprobs is not None:
            assert piece.logprobs == tuple(
                TokenLogprob(token, -float(i), ())
                for i, token in enumerate(end.tokens[:given_])
                if i >= given_ - len(piece.tokens)
            )
        # All of the tokens' text is said, and not all of the next one's.
        assert said.startswith("".join(TEXTS[token] for token in end.tokens[:given_]))
        following = next((i for i in range(given_, len(end.tokens)) if TEXTS[end.tokens[i]]), None)
        if following is not None:
            texts = "".join(TEXTS[token] for token in end.tokens[: following + 1])
            assert len(said) < len(texts)
    if end.stopped_by is None:
        # Only half a character at the end could be without text, and that is said too.
        assert given_ == len(end.tokens)


@pytest.mark.parametrize(
    ("tokens", "stops", "expected"),
    [
        ([1, 2, 6], (), [("a", (1,)), ("b", (2,)), ("c", (6,))]),
        ([0, 0, 1, 2], (), [("a", (0, 0, 1)), ("b", (2,))]),
        ([1, 0], (), [("a", (1,)), ("?", (0,))]),
        # The beginning of "ba" is held back; the piece before has no whole token yet.
        ([3, 6], ("ba",), [("a", ()), ("bc", (3, 6))]),
        ([1, 3, 6], ("bb",), [("a", (1,)), ("a", ()), ("bc", (3, 6))]),
        # Tokens of a stop string, also one that begins before it, are in the completion alone.
        ([6, 3, 4], ("bb",), [("c", (6,)), ("a", ())]),
        ([6, 5], ("bb",), [("c", (6,)), ("a", ())]),
        ([5, 6], ("bac",), [("ab", ())]),
        ([1, 1], ("ab",), [("a", (1,)), ("a", (1,))]),
    ],
)
def test_pieces(tokens: list[int], stops: tuple[str, ...], expected: list[Any]) -> None:
    *pieces, end = speak(tokens, stops)
    assert [(str(piece), piece.tokens) for piece in pieces] == expected
    assert end.tokens == tuple(tokens)


def test_a_piece_is_a_text() -> None:
    logprobs = (TokenLogprob(3, -1.0, ()),)
    piece = Piece("and", (3,), logprobs)
    assert piece == "and"
    assert {"and": 1}[piece] == 1
    assert type(piece + "") is str
    for twin in (copy.copy(piece), copy.deepcopy(piece), pickle.loads(pickle.dumps(piece))):
        assert (twin, twin.tokens, twin.logprobs) == ("and", (3,), logprobs)
    assert (Piece("x").tokens, Piece("x").logprobs) == ((), None)


# ---- through streams ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("logprobs", [None, 2])
def test_streams_give_pieces(machine: FakeMachine, logprobs: int | None) -> None:
    request = generation([1, 2], 20, streams=True, logprobs=logprobs)
    stream = TextStream(machine.engine, request)
    pieces = list(stream)

    async def read() -> list[Piece]:
        return [piece async for piece in AsyncTextStream(machine.engine, lambda: request)]

    expected = greedy([1, 2], 20)
    for found in (pieces, asyncio.run(read())):
        assert [piece.tokens for piece in found] == [(token,) for token in expected]
        assert "".join(found) == text(expected)
    assert stream.completion is not None
    if logprobs is None:
        assert all(piece.logprobs is None for piece in pieces)
    else:
        assert tuple(logprob for piece in pieces for logprob in piece.logprobs or ()) == (
            stream.completion.logprobs
        )


def test_the_model_streams_pieces() -> None:
    with clarion.load(context=128) as model:
        stream = model.stream("Once upon a time", max_tokens=30, seed=3, logprobs=1)
        pieces = list(stream)
        assert stream.completion is not None
        tokens = tuple(token for piece in pieces for token in piece.tokens)
        assert tokens == stream.completion.tokens
        logprobs = tuple(logprob for piece in pieces for logprob in piece.logprobs or ())
        assert logprobs == stream.completion.logprobs
        assert all(isinstance(piece, clarion.Piece) for piece in pieces)
