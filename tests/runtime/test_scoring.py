"""How probable a text's own tokens are, and prompts to which nothing is added."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import clarion
from clarion.errors import ContextError, ModelError, ParameterError
from clarion.runtime.completion import Completion, TokenLogprob
from clarion.runtime.request import Generate, Request
from clarion.runtime.sampling import Parameters
from clarion.runtime.scoring import Scores
from clarion.runtime.streams import wait, wait_all
from tests.runtime.fakes import FakeMachine, V, greedy, next_logits
from tests.runtime.test_engine import generate, generation


@pytest.fixture(scope="module")
def model() -> Iterator[clarion.Model]:
    with clarion.load(context=512) as model:
        yield model


def log_softmax(logits: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    x = np.asarray(logits, np.float64)
    x = x - x.max()
    return cast("np.ndarray[tuple[int], np.dtype[np.float64]]", x - np.log(np.exp(x).sum()))


def expected_scores(tokens: list[int], first: int) -> list[float]:
    return [float(log_softmax(next_logits(tokens[:i]))[tokens[i]]) for i in range(first, len(tokens))]


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_scores_are_those_of_each_token_after_those_before_it(data: st.DataObject) -> None:
    """Also where others run, where some are computed again for want of memory, where prefixes are known."""
    machine = FakeMachine(context=256, n_pages=4)
    texts = data.draw(st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=150), min_size=1, max_size=5))
    texts += [[*text, 1, 2, 3] for text in texts]
    firsts = [data.draw(st.integers(1, len(text) - 1)) for text in texts]
    scores = [Scores(text, first, 0) for text, first in zip(texts, firsts, strict=True)]
    asked = [score.request for score in scores if score.request is not None]
    assert len(asked) == len(texts)
    wait_all(machine.engine, [*asked, generation([5] * 20, 30)], 6)
    for text, first, score in zip(texts, firsts, scores, strict=True):
        assert [found.token for found in score.found] == text[first:]
        np.testing.assert_allclose(
            [found.logprob for found in score.found], expected_scores(text, first), atol=1e-5
        )
    machine.engine.close()


def test_what_is_known_before_the_first_row_is_not_computed_again(machine: FakeMachine) -> None:
    tokens = [1, 2, 3, 4] * 25
    generate(machine, tokens, 1)
    before = machine.executor.computed
    scores = Scores([*tokens, 7, 8], 100, 2)
    assert scores.request is not None
    wait(machine.engine, scores.request)
    assert machine.executor.computed - before == 2  # the tokens that 7 and 8 stand behind
    for found, history in zip(scores.found, (tokens, [*tokens, 7]), strict=True):
        expected = log_softmax(next_logits(history))
        best = np.argsort(-expected)[:2]
        assert [token for token, _ in found.top] == best.tolist()
        np.testing.assert_allclose([logprob for _, logprob in found.top], expected[best], atol=1e-5)


def test_logits_that_are_no_numbers_are_an_error_of_the_model(machine: FakeMachine) -> None:
    scores = Scores([1, 2], 1, 0)
    with pytest.raises(ModelError, match="token 2 has no log-probability: the logit of token 3 is NaN"):
        scores._take(0, memoryview(np.where(np.arange(V) == 3, np.nan, 0.0).astype(np.float32)[None]))


def test_a_prompt_to_which_nothing_is_added(machine: FakeMachine) -> None:
    prompt = [1, 2, 3] * 20
    request = Request(tuple(prompt), Generate(Parameters(max_tokens=0), 0))
    completion = wait(machine.engine, request)
    assert isinstance(completion, Completion)
    assert (completion.text, completion.tokens, completion.finish_reason) == ("", (), "length")
    timings = completion.timings
    assert (timings.prompt_tokens, timings.reused_tokens, timings.generated_tokens) == (60, 0, 0)
    assert machine.executor.computed == 60
    again = generate(machine, [*prompt, 7], 3)
    assert again.timings.reused_tokens == 60
    assert list(again.tokens) == greedy([*prompt, 7], 3)
    for text in ([3], prompt):  # one token alone, and what is known but for the last token
        result = wait(machine.engine, Request(tuple(text), Generate(Parameters(max_tokens=0), 0)))
        assert isinstance(result, Completion)
        assert result.timings.prompt_tokens == len(text)


def test_prompts_alone_share_steps_with_texts(machine: FakeMachine) -> None:
    requests = [Request((i,) * 40, Generate(Parameters(max_tokens=0), 0)) for i in range(4)]
    *nothing, last = wait_all(machine.engine, [*requests, generation([9], 10)], 5)
    assert all(isinstance(found, Completion) and found.tokens == () for found in nothing)
    assert isinstance(last, Completion)
    assert list(last.tokens) == greedy([9], 10)


# ---- the model's -------------------------------------------------------------------------------------------


def test_the_scores_of_what_was_written_are_its_logprobs(model: clarion.Model) -> None:
    prompt = model.tokenize("Once upon a time")
    completion = model.generate(prompt, max_tokens=40, seed=1, logprobs=3)
    assert model.score([*prompt, *completion.tokens], first=len(prompt), top=3) == list(
        completion.logprobs or ()
    )


def test_scores_follow_from_logits(model: clarion.Model) -> None:
    tokens = model.tokenize("There was once a poor woman who had two children.")
    logits = model.logits(tokens)
    found = model.score(iter(tokens), top=2)
    assert len(found) == len(tokens) - 1
    for i, score in enumerate(found):
        expected = log_softmax(logits[i])
        assert isinstance(score, TokenLogprob)
        assert score.token == tokens[i + 1]
        assert score.logprob == pytest.approx(expected[tokens[i + 1]], abs=1e-4)
        assert [token for token, _ in score.top] == np.argsort(-expected)[:2].tolist()
    assert asyncio.run(model.ascore(tokens, top=2)) == found


def test_bad_scores(model: clarion.Model) -> None:
    assert model.score([]) == model.score([5]) == model.score([5, 6], first=2) == []
    for first in (0, 3, -1, "a"):
        with pytest.raises(ParameterError, match="first: found"):
            model.score([5, 6], first=first)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="top: found -1"):
        model.score([5, 6], top=-1)
    with pytest.raises(ParameterError, match="token 1: found 4096"):
        model.score([5, 4096])
    with pytest.raises(ContextError, match="513 tokens are more than the context of 512"):
        model.score([5] * 513)
    assert len(model.score([5] * 512)) == 511


def test_a_cancelled_score_ends(model: clarion.Model) -> None:
    async def run() -> None:
        task = asyncio.create_task(model.ascore([5] * 512))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(await model.ascore([5, 6, 7])) == 2

    asyncio.run(run())


def test_no_tokens_may_be_wanted(model: clarion.Model) -> None:
    completion = model.generate("Once upon a time", max_tokens=0, logprobs=2)
    assert (completion.text, completion.tokens, completion.logprobs) == ("", (), ())
    assert (completion.finish_reason, completion.stopped_by) == ("length", None)
    assert completion.timings.generated_tokens == 0
    assert list(model.stream("The king", max_tokens=0)) == []
    # Such a prompt may fill the context.
    full = model.generate([5] * 512, max_tokens=0)
    assert full.timings.prompt_tokens == 512
    with pytest.raises(ContextError, match="the prompt of 513 tokens leaves no room"):
        model.generate([5] * 513, max_tokens=0)
    with pytest.raises(ContextError, match="the prompt of 512 tokens leaves no room"):
        model.generate([5] * 512, max_tokens=1)
