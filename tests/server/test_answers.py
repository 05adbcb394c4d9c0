"""Texts as they become answers: however they are cut, the sum of the deltas is the text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarion.conversation.reasoning import Markers, Splitter, markers
from clarion.model import Model
from clarion.runtime.completion import Completion, Timings, TokenLogprob
from clarion.runtime.pieces import Piece
from clarion.server.openai.answers import Answer
from clarion.server.tally import Tally
from clarion.server.writing import Budget, Job, closing, merge

THINK = Markers("<think>", "</think>")
TEXTS = st.lists(
    st.sampled_from(["<think>", "</think>", "<th", "ink>", "\n", " ", "a", "né", "日本", "🦊", "<", "</"]),
    max_size=12,
).map("".join)


def completion(text: str = "", tokens: tuple[int, ...] = (), reused: int = 0) -> Completion:
    return Completion(
        text=text,
        tokens=tokens,
        finish_reason="stop",
        stopped_by=None,
        logprobs=None,
        seed=1,
        timings=Timings(3, reused, len(tokens) + 1, 0.0, 0.0, 0.0),
    )


def cut(text: str, places: list[int]) -> list[str]:
    ends = sorted({place % (len(text) + 1) for place in places} | {len(text)})
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False) if end > start]


@given(TEXTS, st.lists(st.integers(0, 200)), st.booleans())
def test_deltas_are_the_answer(text: str, places: list[int], inside: bool) -> None:
    splitter = Splitter(THINK, begins_inside=inside)
    parts = [*splitter.feed(text), *splitter.finish()]
    answer = Answer(THINK, inside)
    tokens = [Piece(piece, (i,), (TokenLogprob(i, -1.0, ()),)) for i, piece in enumerate(cut(text, places))]
    said = [*map(answer.feed, tokens), answer.end(completion())]
    assert "".join(each.reasoning for each in said) == answer.reasoning
    assert "".join(each.content for each in said) == answer.content
    assert answer.reasoning == "".join(part.text for part in parts if part.kind == "reasoning")
    assert answer.content == "".join(part.text for part in parts if part.kind == "answer")
    given_out = [logprob.token for each in said for logprob in each.logprobs]
    assert given_out == [logprob.token for logprob in answer.logprobs] == sorted(given_out)


@given(TEXTS, st.lists(st.integers(0, 200)))
def test_without_reasoning_all_is_content(text: str, places: list[int]) -> None:
    answer = Answer(None, False)
    for piece in cut(text, places):
        assert answer.feed(Piece(piece, (1,))).content == piece
    assert (answer.content, answer.reasoning, answer.n_reasoning) == (text, "", 0)


class FakeStream:
    """Gives pieces with pauses as they are told, then the completion."""

    def __init__(self, pieces: list[Piece], pauses: list[int], progress: Any) -> None:
        self._pieces, self._pauses, self._progress = pieces, pauses, progress
        self.completion: Completion | None = None
        self.is_closed = False
        self._iterated = self._all()

    async def some(self) -> list[Piece]:
        piece = await anext(self._iterated, None)
        return [] if piece is None else [piece]

    async def _all(self) -> AsyncGenerator[Piece]:
        if self._progress is not None:
            self._progress(1, 1)
        for i, piece in enumerate(self._pieces):
            for _ in range(self._pauses[i % len(self._pauses)] if self._pauses else 0):
                await asyncio.sleep(0)
            yield piece
        text = "".join(self._pieces)
        self.completion = completion(text, tuple(token for piece in self._pieces for token in piece.tokens))

    async def aclose(self) -> None:
        self.is_closed = True


class FakeModel:
    """Writes a text for each prompt; tokens are characters."""

    context = 1000

    def __init__(self, texts: dict[tuple[int, ...], list[str]], pauses: list[int]) -> None:
        self.texts, self.pauses = texts, pauses
        self.streams: list[FakeStream] = []
        self.asked: list[tuple[int, ...]] = []

    def astream(self, ids: list[int], progress: Any = None, **options: Any) -> FakeStream:
        self.asked.append(tuple(ids))
        texts = self.texts.get(tuple(ids), [])
        most = options.get("max_tokens")
        pieces = [Piece(text, tuple(map(ord, text))) for text in texts][:most]
        self.streams.append(FakeStream(pieces, self.pauses, progress))
        return self.streams[-1]

    def tokenize(self, text: str, **_: object) -> list[int]:
        return list(map(ord, text))


async def merged(model: FakeModel, jobs: list[Job], same: bool) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {number: [] for number in range(len(jobs))}
    count = Tally().request(0.0, None)
    async with aclosing(merge(cast(Model, model), jobs, count, same_prompt=same)) as batches:
        async for batch in batches:
            for number, item in batch:
                found[number].append(item)
    assert all(stream.is_closed for stream in model.streams)
    return found


@given(
    st.lists(st.lists(st.text(min_size=1, max_size=3), max_size=6), min_size=1, max_size=4),
    st.lists(st.integers(0, 3), max_size=5),
    st.booleans(),
)
def test_merged_texts_stay_whole(texts: list[list[str]], pauses: list[int], same: bool) -> None:
    model = FakeModel({(number,): text for number, text in enumerate(texts)}, pauses)
    found = asyncio.run(merged(model, [Job([number], {}) for number in range(len(texts))], same))
    for number, text in enumerate(texts):
        *pieces, end = found[number]
        assert isinstance(end, Completion)
        assert all(pieces), "an empty delta"
        assert "".join(pieces) == "".join(text) == end.text
        assert [token for piece in pieces for token in piece.tokens] == list(map(ord, "".join(text)))


def test_the_first_error_ends_all() -> None:
    class Broken(FakeModel):
        def astream(self, ids: list[int], progress: Any = None, **options: Any) -> FakeStream:
            if ids == [1]:
                raise ValueError("broken")
            return super().astream(ids, progress, **options)

    model = Broken({(0,): ["a"] * 1000}, [1])
    with pytest.raises(ValueError, match="broken"):
        asyncio.run(merged(model, [Job([0], {}), Job([1], {})], False))
    assert all(stream.is_closed for stream in model.streams)


@given(
    st.integers(0, 6),
    st.booleans(),
    st.integers(1, 40) | st.none(),
    st.lists(st.integers(0, 2), max_size=3),
)
def test_a_budget_closes_the_reasoning(
    budget: int, inside: bool, most: int | None, pauses: list[int]
) -> None:
    """What comes out is at most so much reasoning, then the answer; the prompt of the rest begins with all
    that was written."""
    thoughts = ["one ", "two ", "three ", "four ", "five ", "six ", "seven "]
    opening = [] if inside else ["<think>"]
    prompt = (7, 8)
    texts = {prompt: [*opening, *thoughts, "</think>", "free"]}
    mark = closing(THINK)
    for n in range(len(thoughts) + 1):
        before = "".join([*opening, *thoughts[:n]]) + mark
        texts[(*prompt, *map(ord, before))] = ["answer"]
    if not inside:
        texts[(*prompt, *map(ord, mark))] = ["answer"]
    model = FakeModel(texts, pauses)
    options: Any = {} if most is None else {"max_tokens": most}
    job = Job(prompt, options, budget=Budget(budget, THINK, inside))
    answer = Answer(THINK, inside)
    (found,) = asyncio.run(merged(model, [job], True)).values()
    for item in found:
        answer.end(item) if isinstance(item, Completion) else answer.feed(item)
    end = found[-1]
    if most is None:
        assert answer.content == "answer"
        n_pieces = len(answer.reasoning.split())
        first = len(model.asked[0]) == 2
        assert n_pieces <= max(budget, 1) if first else n_pieces == 0
        assert end.timings.prompt_tokens == 2
    else:
        assert end.timings.generated_tokens - 1 <= max(most, 0) + sum(map(len, texts[prompt]))
    assert model.asked[-1][:2] == prompt


def test_marks_of_a_template() -> None:
    assert markers("a<think>b</think>") == THINK
    harmony = markers("<|channel|>x<|message|>")
    assert harmony is not None
    assert "final" in closing(harmony)
