"""Several prompts in one call, and what is taken for one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import clarion
from clarion.errors import ClarionError, ContextError, ModelError, ParameterError, TokenizerError
from clarion.runtime.prompts import look
from clarion.runtime.streams import wait_all
from tests.runtime.fakes import FakeMachine
from tests.runtime.test_engine import generation

PROMPTS = ["Once upon a time", "The king", "There was a poor woman who had two children", "x"]


@pytest.fixture(scope="module")
def model() -> Iterator[clarion.Model]:
    with clarion.load(context=256) as model:
        yield model


def test_each_prompt_gets_what_it_gets_alone(model: clarion.Model) -> None:
    together = model.generate(PROMPTS, max_tokens=20, seed=3, logprobs=1)
    assert isinstance(together, list)
    for prompt, completion in zip(PROMPTS, together, strict=True):
        alone = model.generate(prompt, max_tokens=20, seed=3, logprobs=1)
        assert (completion.text, completion.tokens) == (alone.text, alone.tokens)
        assert completion.logprobs == alone.logprobs
        assert completion.seed == 3


def test_they_share_steps() -> None:
    machine = FakeMachine(max_tokens=64, n_pages=8)
    wait_all(machine.engine, [generation([i] * 5, 10) for i in range(8)], 8)
    assert machine.executor.batches == [(40, 8)] + [(8, 8)] * 9
    machine.engine.close()


def test_more_prompts_than_are_computed_at_once(model: clarion.Model) -> None:
    prompts = [f"{i} and" for i in range(100)]
    completions = model.generate(prompts, max_tokens=3, greedy=True)
    for i in (0, 31, 32, 99):
        assert completions[i].tokens == model.generate(prompts[i], max_tokens=3, greedy=True).tokens


def test_without_a_seed_each_has_its_own(model: clarion.Model) -> None:
    completions = model.generate(["Once upon a time"] * 4, max_tokens=20)
    assert len({completion.seed for completion in completions}) == 4
    assert len({completion.tokens for completion in completions}) > 1
    for completion in completions:
        again = model.generate("Once upon a time", max_tokens=20, seed=completion.seed)
        assert again.tokens == completion.tokens
    for seed in (None, 0):
        same = model.generate(["Once upon a time"] * 2, max_tokens=20, seed=seed)
        assert (same[0].tokens == same[1].tokens) == (seed == 0)


@pytest.mark.parametrize(
    ("prompt", "n"),
    [
        ([5, 6, 7], None),
        (np.array([5, 6, 7]), None),
        ((5, 6), None),
        (iter([5, 6]), None),
        ([np.int64(5), 6], None),
        ([[5, 6, 7]], 1),
        (np.array([[5, 6], [7, 8]]), 2),
        (["a", [5, 6], np.array([7])], 3),
        (("a", "b"), 2),
        ((text for text in "abc"), 3),
        ([(token for token in (5, 6))], 1),
    ],
)
def test_what_is_one_prompt_and_what_is_several(model: clarion.Model, prompt: Any, n: int | None) -> None:
    found = model.generate(prompt, max_tokens=1)
    assert (len(found) if isinstance(found, list) else None) == n


@pytest.mark.parametrize(
    ("prompt", "kind", "message"),
    [
        ([], ParameterError, "prompt: found no tokens, expected at least one"),
        ([[]], ParameterError, "prompt 0: found no tokens, expected at least one"),
        (["a", []], ParameterError, "prompt 1: found no tokens"),
        (["a", 5], ParameterError, "prompt 1: found 5, expected a text or token ids"),
        (["a", b"b"], ParameterError, "prompt 1: found b'b', expected a text or token ids"),
        ([[5], None], ParameterError, "prompt 1: found None, expected a text or token ids"),
        (["a", [5, 4096]], ParameterError, "prompt 1: token 1: found 4096, expected 0 to 4095"),
        (["a", [5, "b"]], ParameterError, "prompt 1: token 1: found 'b', expected a token id"),
        (["a", "b", ["c", "d"]], ParameterError, "prompt 2: found 2 prompts, expected a text or token ids"),
        (["a", [5] * 256], ContextError, r"prompt 1: .*256 tokens .* context of 256"),
        (["a", "\ud800"], TokenizerError, "prompt 1: character 0"),
        ([{"role": "user"}], ParameterError, r"prompt 0: found \{'role': 'user'\}.*`chat` takes messages"),
    ],
)
def test_errors_name_the_prompt(
    model: clarion.Model, prompt: Any, kind: type[ClarionError], message: str
) -> None:
    with pytest.raises(kind, match=f"^{message}"):
        model.generate(prompt)
    with pytest.raises(kind, match=f"^{message}"):
        asyncio.run(model.agenerate(prompt))  # type: ignore[arg-type]


def test_an_error_while_it_is_computed_names_the_prompt() -> None:
    machine = FakeMachine()
    machine.executor.logits[:] = np.nan
    machine.executor.run = lambda *batch: machine.executor._draw(*batch[-1])  # type: ignore[method-assign]
    with pytest.raises(ModelError, match=r"^prompt 1: no token can be chosen for position 1"):
        wait_all(machine.engine, [generation([1], 5, name="prompt 1: ")], 1)
    machine.engine.close()


def test_an_option_that_is_refused_names_no_prompt(model: clarion.Model) -> None:
    with pytest.raises(ParameterError, match=r"^top_p"):
        model.generate(PROMPTS, top_p=2.0)


def test_streams_have_one_prompt(model: clarion.Model) -> None:
    with pytest.raises(ParameterError, match="prompt: found 4 prompts, expected a text or token ids"):
        model.stream(PROMPTS)  # type: ignore[arg-type]


def test_several_in_an_event_loop(model: clarion.Model) -> None:
    async def run() -> None:
        completions = await model.agenerate(PROMPTS, max_tokens=10, seed=1)
        expected = model.generate(PROMPTS, max_tokens=10, seed=1)
        assert [completion.tokens for completion in completions] == [other.tokens for other in expected]
        task = asyncio.create_task(model.agenerate(PROMPTS, ignore_eos=True))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await model.agenerate("x", max_tokens=1)).finish_reason == "length"

    asyncio.run(run())


def test_a_text_is_not_a_list_of_letters() -> None:
    assert look("abc") == ("abc", False)
    assert look(["abc"]) == (["abc"], True)
