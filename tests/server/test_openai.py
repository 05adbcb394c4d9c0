"""OpenAI's own client, unmodified, against a server."""

from __future__ import annotations

import base64
import struct
from typing import Any

import numpy as np
import openai
import pytest

import clarion
from clarion.server.pool import Served
from clarion.server.run import Running
from tests.real_models import smollm2
from tests.server.servers import is_idle, running, wait_until

ASK: list[Any] = [{"role": "user", "content": "Who is at the door?"}]


@pytest.fixture(scope="module")
def ai(server: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def model(server: Running) -> clarion.Model:
    found = server.server.pool.find("tale").model
    assert found is not None
    return found


def test_models(ai: openai.OpenAI) -> None:
    assert [found.id for found in ai.models.list()] == ["tale"]
    found = ai.models.retrieve("tale")
    assert (found.id, found.object, found.owned_by) == ("tale", "model", "clarion")
    with pytest.raises(openai.NotFoundError, match="is it tale"):
        ai.models.retrieve("tail")


def test_a_completion_is_what_python_writes(ai: openai.OpenAI, model: clarion.Model) -> None:
    expected = model.generate("Once upon a time", max_tokens=12, seed=7)
    found = ai.completions.create(model="tale", prompt="Once upon a time", max_tokens=12, seed=7)
    assert found.choices[0].text == expected.text
    assert found.choices[0].finish_reason == "length"
    assert found.usage is not None
    n = expected.timings.prompt_tokens
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (n, 12)
    assert found.usage.total_tokens == n + 12


def test_an_alias_means_the_model(ai: openai.OpenAI) -> None:
    assert ai.completions.create(model="gpt-x", prompt="Once", max_tokens=1).model == "tale"


def test_several_prompts(ai: openai.OpenAI, model: clarion.Model) -> None:
    ids = model.tokenize("There was")
    for prompts in (["Once upon", "There was"], [model.tokenize("Once upon"), ids]):
        found = ai.completions.create(model="tale", prompt=prompts, max_tokens=5, temperature=0, n=2)
        assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
        once, there = (
            model.generate(text, max_tokens=5, greedy=True).text for text in ("Once upon", "There was")
        )
        assert [choice.text for choice in found.choices] == [once, once, there, there]
    (alone,) = ai.completions.create(model="tale", prompt=ids, max_tokens=5, temperature=0).choices
    assert alone.text == there


def test_choices_differ_and_a_seed_repeats_them(ai: openai.OpenAI) -> None:
    def texts(**more: Any) -> list[str | None]:
        found = ai.chat.completions.create(
            model="tale", messages=ASK, n=4, max_tokens=12, temperature=1.5, **more
        )
        return [choice.message.content for choice in found.choices]

    first = texts(seed=3)
    assert len(set(first)) == 4
    assert texts(seed=3) == first
    assert texts(seed=4) != first
    assert texts() != texts()


def test_best_of(ai: openai.OpenAI) -> None:
    found = ai.completions.create(
        model="tale", prompt="Once", max_tokens=8, best_of=6, n=2, logprobs=0, temperature=1.5, seed=1
    )
    every = ai.completions.create(
        model="tale", prompt="Once", max_tokens=8, n=6, logprobs=0, temperature=1.5, seed=1
    )

    def mean(choice: Any) -> float:
        return float(np.mean(choice.logprobs.token_logprobs))

    best = sorted(every.choices, key=mean, reverse=True)[:2]
    assert [choice.text for choice in found.choices] == [choice.text for choice in best]
    assert found.usage is not None
    assert found.usage.completion_tokens == 48


def test_stop_strings(ai: openai.OpenAI, model: clarion.Model) -> None:
    whole = model.generate("Once upon a time", max_tokens=30, greedy=True).text
    stop = whole[20:26]
    for stream in (False, True):
        found: Any = ai.completions.create(
            model="tale", prompt="Once upon a time", max_tokens=30, temperature=0, stop=stop, stream=stream
        )
        chunks = list(found) if stream else [found]
        assert "".join(chunk.choices[0].text for chunk in chunks) == whole[: whole.index(stop)]
        assert chunks[-1].choices[0].finish_reason == "stop"


def test_a_chat_is_what_python_answers(ai: openai.OpenAI, model: clarion.Model) -> None:
    expected = model.chat(ASK, max_tokens=12, seed=7)
    found = ai.chat.completions.create(model="tale", messages=ASK, max_completion_tokens=12, seed=7)
    assert found.choices[0].message.content == expected.text
    assert found.choices[0].message.role == "assistant"


def test_what_was_computed_is_not_computed_again(ai: openai.OpenAI) -> None:
    said: Any = [{"role": "user", "content": "Tell of the miller and his three sons. " * 6}]
    first = ai.chat.completions.create(model="tale", messages=said, max_tokens=8)
    said += [
        {"role": "assistant", "content": first.choices[0].message.content},
        {"role": "user", "content": "More!"},
    ]
    second = ai.chat.completions.create(model="tale", messages=said, max_tokens=8)
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.prompt_tokens_details is not None
    cached = second.usage.prompt_tokens_details.cached_tokens
    assert cached is not None
    assert first.usage.prompt_tokens - 16 <= cached < second.usage.prompt_tokens


def test_a_stream(ai: openai.OpenAI, model: clarion.Model) -> None:
    expected = model.chat(ASK, max_tokens=12, seed=7).text
    chunks = list(
        ai.chat.completions.create(
            model="tale",
            messages=ASK,
            max_tokens=12,
            seed=7,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert len({chunk.id for chunk in chunks}) == 1
    *said, usage = chunks
    assert (usage.choices, usage.usage and usage.usage.completion_tokens) == ([], 12)
    assert said[0].choices[0].delta.role == "assistant"
    assert all(chunk.choices[0].delta.content for chunk in said[1:-1])
    assert "".join(chunk.choices[0].delta.content or "" for chunk in said) == expected
    assert [chunk.choices[0].finish_reason for chunk in said] == [None] * (len(said) - 1) + ["length"]
    assert all(chunk.usage is None for chunk in said)


def test_streams_of_several_choices(ai: openai.OpenAI) -> None:
    asked: Any = {"model": "tale", "messages": ASK, "max_tokens": 10, "seed": 5, "n": 3}
    whole = ai.chat.completions.create(**asked)
    texts = ["", "", ""]
    for chunk in ai.chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [choice.message.content for choice in whole.choices]


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_of_a_chat(ai: openai.OpenAI, model: clarion.Model, stream: bool) -> None:
    expected = model.chat(ASK, max_tokens=6, seed=7, logprobs=2)
    found: Any = ai.chat.completions.create(
        model="tale", messages=ASK, max_tokens=6, seed=7, logprobs=True, top_logprobs=2, stream=stream
    )
    choices = [chunk.choices[0] for chunk in found] if stream else found.choices
    tokens = [token for choice in choices if choice.logprobs for token in choice.logprobs.content]
    assert expected.logprobs is not None
    assert [token.logprob for token in tokens] == [each.logprob for each in expected.logprobs]
    for token, each in zip(tokens, expected.logprobs, strict=True):
        assert bytes(token.bytes) == model.tokenizer.piece(each.token)
        assert token.token == bytes(token.bytes).decode()
        assert [top.logprob for top in token.top_logprobs] == [logprob for _, logprob in each.top]


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_of_a_completion(ai: openai.OpenAI, stream: bool) -> None:
    found: Any = ai.completions.create(
        model="tale", prompt="Once upon", max_tokens=6, seed=7, logprobs=3, stream=stream
    )
    choices = [chunk.choices[0] for chunk in found] if stream else found.choices
    parts = [choice.logprobs for choice in choices if choice.logprobs]
    text = "".join(choice.text for choice in choices)
    tokens = [token for part in parts for token in part.tokens]
    assert "".join(tokens) == text
    offsets = [offset for part in parts for offset in part.text_offset]
    assert offsets == [len("".join(tokens[:i])) for i in range(6)]
    assert all(len(top) in (3, 4) for part in parts for top in part.top_logprobs)


def test_echo_scores_a_prompt(ai: openai.OpenAI, model: clarion.Model) -> None:
    """As harnesses of evaluation ask: the prompt's tokens, and nothing written."""
    ids = model.tokenize("Once upon a time there was")
    found = ai.completions.create(model="tale", prompt=[ids], max_tokens=0, echo=True, logprobs=1)
    (choice,) = found.choices
    assert choice.logprobs is not None
    assert choice.logprobs.token_logprobs is not None
    assert choice.logprobs.token_logprobs[0] is None
    scores = model.score(ids)
    assert choice.logprobs.token_logprobs[1:] == [each.logprob for each in scores]
    with_one = ai.completions.create(
        model="tale", prompt="Once upon a time", max_tokens=1, echo=True, logprobs=1, temperature=0
    ).choices[0]
    assert with_one.text.startswith("Once upon a time")
    assert with_one.logprobs is not None
    assert with_one.logprobs.tokens is not None
    assert len(with_one.logprobs.tokens) == len(model.tokenize("Once upon a time")) + 1
    streamed = list(
        ai.completions.create(model="tale", prompt="Once upon", max_tokens=2, echo=True, stream=True)
    )
    assert streamed[0].choices[0].text == "Once upon"


def test_embeddings(ai: openai.OpenAI, server: Running, model: clarion.Model) -> None:
    texts = ["a cat", "the king and his wife"]
    expected = model.embed(texts)
    found = ai.embeddings.create(model="tale", input=texts)  # which asks for base64
    assert np.array_equal(np.array([each.embedding for each in found.data], np.float32), expected)
    assert found.usage.prompt_tokens == sum(len(model.tokenize(text)) for text in texts)
    plain = ai.embeddings.create(model="tale", input=texts[0], encoding_format="float", dimensions=8)
    assert np.allclose(plain.data[0].embedding, model.embed(texts[0], dimensions=8))
    ids = ai.embeddings.create(model="tale", input=[model.tokenize(text) for text in texts])
    assert np.array_equal(np.array([each.embedding for each in ids.data], np.float32), expected)
    raw: Any = ai.embeddings.with_raw_response.create(
        model="tale", input=texts[0], encoding_format="base64"
    ).http_response.json()
    data = base64.b64decode(raw["data"][0]["embedding"])
    assert struct.unpack(f"<{len(data) // 4}f", data) == tuple(expected[0])


def test_errors_are_those_of_the_client(ai: openai.OpenAI, server: Running) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        ai.models.retrieve("tal")
    assert (missing.value.param, missing.value.code) == ("model", "model_not_found")
    assert "is it tale?" in str(missing.value)
    with pytest.raises(openai.BadRequestError) as long:
        ai.chat.completions.create(model="tale", messages=[{"role": "user", "content": "cat " * 600}])
    assert long.value.code == "context_length_exceeded"
    assert "maximum context length is 512" in str(long.value)
    with pytest.raises(openai.BadRequestError) as hot:
        ai.chat.completions.create(model="tale", messages=ASK, temperature=-1)
    assert hot.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as schema:
        ai.chat.completions.create(model="tale", messages=ASK, response_format={"type": "json_object"})
    assert (schema.value.param, schema.value.code) == ("response_format", "unsupported_parameter")
    wait_until(lambda: is_idle(server), "a refused request leaves nothing")


def test_many_at_once(ai: openai.OpenAI, model: clarion.Model) -> None:
    """Whoever shares steps gets what they would get alone."""
    import asyncio

    async def all_of_them() -> list[str]:
        async with openai.AsyncOpenAI(base_url=ai.base_url, api_key="none", max_retries=0) as many:

            async def one(seed: int) -> str:
                text = ""
                stream = await many.chat.completions.create(
                    model="tale", messages=ASK, max_tokens=10, seed=seed, stream=True
                )
                async for chunk in stream:
                    text += chunk.choices[0].delta.content or ""
                return text

            return list(await asyncio.gather(*map(one, range(24))))

    found = asyncio.run(all_of_them())
    assert found == [model.chat(ASK, max_tokens=10, seed=seed).text for seed in range(24)]


def test_a_trained_model() -> None:
    path = smollm2()
    with running([Served("smol", path)], context=2048) as started:
        ai = openai.OpenAI(base_url=f"{started.url}/v1", api_key="none", max_retries=0)
        found = ai.chat.completions.create(
            model="smol",
            messages=[{"role": "user", "content": "What is the capital of France?"}],
            max_tokens=20,
            temperature=0,
        )
        assert "Paris" in (found.choices[0].message.content or "")
        said: Any = [{"role": "user", "content": "Write: 日本語 ünïcödé 🦊🐻"}]
        asked: Any = {"model": "smol", "messages": said, "max_tokens": 60, "seed": 3, "temperature": 1.2}
        model = started.server.pool.find("smol").model
        assert model is not None
        expected = model.chat(said, max_tokens=60, seed=3, temperature=1.2, **model.defaults).text
        assert ai.chat.completions.create(**asked).choices[0].message.content == expected
        deltas = [
            chunk.choices[0].delta.content for chunk in ai.chat.completions.create(**asked, stream=True)
        ]
        assert "".join(delta or "" for delta in deltas) == expected
        assert not expected.isascii(), "the seed no longer makes the model write what the test is about"
