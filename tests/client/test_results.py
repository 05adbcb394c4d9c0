"""What a connection gives is what the model on the server gives."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clarion
from clarion.errors import ClarionError, UnsupportedError
from clarion.server.pool import Served
from clarion.server.run import Running
from tests.models.test_ranks import DOCUMENTS, unpacked
from tests.server.servers import running

ASK: list[dict[str, Any]] = [
    {"role": "system", "content": "You are a cat."},
    {"role": "user", "content": "Who is at the door? 🦊"},
]
PROMPT = "Once upon a time there was"
STOPPED = "Once upon a time"

OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {"greedy": True},
    "cold": {"temperature": 0},
    "seed": {"seed": 7},
    "greatest seed": {"seed": 2**64 - 1, "temperature": 1.5},
    "logprobs": {"seed": 3, "logprobs": 4},
    "no other logprobs": {"seed": 3, "logprobs": 0},
    "nothing": {"seed": 3, "max_tokens": 0},
    "stops": {"greedy": True, "stop": ["man", " and"], "max_tokens": 60},
    "stop of logprobs": {"greedy": True, "stop": "ter", "max_tokens": 60, "logprobs": 1},
    "a stop that is a token": {"greedy": True, "stop": 440},
    "both": {"greedy": True, "stop": [863, "king"], "max_tokens": 60},
    "no text": {"seed": 3, "detokenize": False, "stop": " a"},
    "to the end": {"seed": 11, "max_tokens": None, "ignore_eos": False},
    "beyond the end": {"seed": 11, "max_tokens": 200, "ignore_eos": True},
    "filters": {"seed": 5, "temperature": 1.7, "top_k": 9, "top_p": 0.8, "min_p": 0.1, "typical_p": 0.9},
    "penalties": {
        "seed": 5,
        "repeat_penalty": 1.4,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.25,
        "penalty_window": 9,
    },
    "dry": {
        "seed": 5,
        "dry_multiplier": 2.0,
        "dry_base": 1.5,
        "dry_allowed_length": 1,
        "dry_window": 40,
        "dry_breakers": ["a", "\n"],
    },
    "bias": {"greedy": True, "logit_bias": {440: float("-inf"), 259: -3.5, 12: 1.0}},
    "None": {"seed": 5, "stop": None, "logprobs": None, "temperature": None},
}


def told(completion: clarion.Completion) -> dict[str, Any]:
    """All but the times, which no two texts have in common."""
    timings = replace(completion.timings, waiting=0, prompt=0, generation=0, reused_tokens=0)
    return {
        **{name: getattr(completion, name) for name in completion.__slots__ if name != "timings"},
        "timings": timings,
    }


@pytest.fixture(params=OPTIONS)
def options(request: pytest.FixtureRequest) -> Any:
    return {"max_tokens": 24, "seed": 1, **OPTIONS[request.param]}


def test_a_text(connection: clarion.Connection, model: clarion.Model, options: Any) -> None:
    expected = told(model.generate(PROMPT, **options))
    assert told(connection.generate(PROMPT, **options)) == expected
    assert told(asyncio.run(connection.agenerate(PROMPT, **options))) == expected
    assert told(connection.generate(model.tokenize(PROMPT), **options)) == expected


def test_a_stream(connection: clarion.Connection, model: clarion.Model, options: Any) -> None:
    expected = model.generate(PROMPT, **options)

    async def written() -> tuple[list[clarion.Piece], Any]:
        stream = connection.astream(PROMPT, **options)
        return [piece async for piece in stream], stream

    stream = connection.stream(PROMPT, **options)
    assert isinstance(stream, clarion.TextStream)
    for pieces, ended in ((list(stream), stream), asyncio.run(written())):
        assert told(ended.completion) == told(expected)
        assert "".join(pieces) == expected.text
        tokens = [token for piece in pieces for token in piece.tokens]
        assert tokens == list(expected.tokens[: len(tokens)])
        if options.get("logprobs") is not None:
            assert expected.logprobs is not None
            found = [each for piece in pieces for each in piece.logprobs or ()]
            assert found == list(expected.logprobs[: len(tokens)])
        else:
            assert all(piece.logprobs is None for piece in pieces)


def test_a_conversation(connection: clarion.Connection, model: clarion.Model, options: Any) -> None:
    expected = model.chat(ASK, **options)
    assert told(connection.chat(ASK, **options)) == told(expected)
    assert told(asyncio.run(connection.achat(ASK, **options))) == told(expected)
    with connection.chat(ASK, stream=True, **options) as stream:
        assert "".join(stream) == expected.text
    assert stream.completion is not None
    assert told(stream.completion) == told(expected)


def test_streams_of_an_event_loop(connection: clarion.Connection, model: clarion.Model) -> None:
    expected = model.chat(ASK, max_tokens=9, seed=2)

    async def answers() -> None:
        plain = connection.achat_stream(ASK, max_tokens=9, seed=2)
        other = await connection.achat(ASK, stream=True, max_tokens=9, seed=2)
        for stream in (plain, other):
            assert "".join([piece async for piece in stream]) == expected.text
            assert stream.completion is not None
            assert told(stream.completion) == told(expected)

    asyncio.run(answers())
    asyncio.run(answers())  # another loop, the same connection


def test_what_the_template_knows(connection: clarion.Connection, model: clarion.Model) -> None:
    """Reasoning that the prompt opens is a part of the text, as the model writes it."""
    tools = [{"type": "function", "function": {"name": "meow", "parameters": {"type": "object"}}}]
    for more in (
        {"tools": tools},
        {"variables": {"enable_thinking": True, "name": "Tom"}},
        {"tools": tools, "variables": {"reasoning_effort": "high"}},
    ):
        options: Any = {"max_tokens": 16, "seed": 4, **more}
        expected = model.chat(ASK, **options)
        assert told(connection.chat(ASK, **options)) == told(expected)
        assert "".join(connection.chat_stream(ASK, **options)) == expected.text


def test_several_prompts(connection: clarion.Connection, model: clarion.Model) -> None:
    prompts = [PROMPT, model.tokenize("The king"), "🦊", PROMPT]
    options: Any = {"max_tokens": 8, "seed": 9, "logprobs": 1}
    expected = [told(each) for each in model.generate(prompts, **options)]
    assert [told(each) for each in connection.generate(prompts, **options)] == expected
    assert [told(each) for each in asyncio.run(connection.agenerate(prompts, **options))] == expected
    (alone,) = connection.generate([PROMPT], **options)
    assert told(alone) == expected[0]


def test_without_a_seed_each_text_has_its_own(connection: clarion.Connection, model: clarion.Model) -> None:
    found = connection.generate([PROMPT] * 4, max_tokens=12, temperature=2.0)
    found.append(connection.generate(PROMPT, max_tokens=12, temperature=2.0))
    assert len({each.seed for each in found}) == 5
    for each in found:
        again = model.generate(PROMPT, max_tokens=12, temperature=2.0, seed=each.seed)
        assert again.tokens == each.tokens


def test_progress_is_told_once(connection: clarion.Connection, model: clarion.Model) -> None:
    n = len(model.tokenize(PROMPT))
    heard: list[tuple[int, int]] = []
    options: Any = {"max_tokens": 2, "progress": lambda *news: heard.append(news)}

    async def twins() -> None:
        await connection.agenerate(PROMPT, **options)
        async for _ in connection.astream(PROMPT, **options):
            assert len(heard) == 4

    connection.generate(PROMPT, **options)
    list(connection.stream(PROMPT, **options))
    asyncio.run(twins())
    assert heard == [(n, n)] * 4
    connection.generate([PROMPT] * 3, **options)
    assert heard[4:] == [(3 * n, 3 * n)]


def test_scores(connection: clarion.Connection, model: clarion.Model) -> None:
    ids = model.tokenize("Once upon a time there was a king")
    assert connection.score(ids) == model.score(ids)
    assert connection.score(ids, first=4, top=3) == model.score(ids, first=4, top=3)
    assert asyncio.run(connection.ascore(ids, top=1)) == model.score(ids, top=1)
    assert connection.score(ids[:1]) == connection.score([]) == []


def test_tokens(connection: clarion.Connection, model: clarion.Model) -> None:
    for text in ("Once upon a time", "", "日本 🦊\n", "<|endoftext|>a"):
        for add in (True, False):
            for parse in (True, False):
                ids = model.tokenize(text, add_special=add, parse_special=parse)
                assert connection.tokenize(text, add_special=add, parse_special=parse) == ids
                for skip in (True, False):
                    expected = model.detokenize(ids, skip_special=skip)
                    assert connection.detokenize(ids, skip_special=skip) == expected
    assert connection.apply_chat_template(ASK) == model.apply_chat_template(ASK)
    assert connection.tokenize_chat(ASK, name="Tom") == model.tokenize_chat(ASK, name="Tom")
    with pytest.raises(UnsupportedError, match="template"):
        connection.chat(ASK, template="{{ messages }}")


def test_vectors(connection: clarion.Connection, model: clarion.Model) -> None:
    many = [f"the cat number {i}" for i in range(70)]
    cases: list[tuple[Any, dict[str, Any]]] = [
        ("a cat", {}),
        (model.tokenize("a cat"), {}),
        (["a cat", model.tokenize("the king")], {}),
        ([], {}),
        (many, {"normalize": False, "pooling": "mean"}),
        ("a cat", {"dimensions": 7, "pooling": "cls"}),
        (["a cat", "cat " * 600], {"truncate": True, "prompt": ""}),
    ]
    for texts, options in cases:
        expected = model.embed(texts, **options)
        found = connection.embed(texts, **options)
        assert (found.shape, found.dtype) == (expected.shape, np.float32)
        assert np.array_equal(found, expected)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    path: Path = unpacked("xlm-roberta-classifier", tmp_path_factory.mktemp("judge"))
    with running([Served("judge", path)]) as started:
        yield started


def test_documents_are_ranked(judge: Running) -> None:
    with clarion.connect(judge.url) as connection:
        scores = connection.rerank("where is the cat", DOCUMENTS)
        model = judge.server.pool.find("judge").model
        assert model is not None
        assert np.array_equal(scores, model.rerank("where is the cat", DOCUMENTS))
        assert scores.dtype == np.float32
        assert connection.rerank("where is the cat", []).shape == (0,)
        long = ["a", "the cat " * 100]
        assert np.array_equal(
            connection.rerank("q", long, truncate=True), model.rerank("q", long, truncate=True)
        )
        with pytest.raises(ClarionError) as there:
            model.rerank("q", long)
        with pytest.raises(type(there.value)) as here:
            connection.rerank("q", long)
        assert str(here.value) == str(there.value)
        with pytest.raises(UnsupportedError, match="no model that writes text"):
            connection.generate("a")


def test_what_is_known(connection: clarion.Connection, server: Running, model: clarion.Model) -> None:
    assert (connection.name, connection.path.name, connection.url) == ("tale", "tale", server.url)
    assert (connection.context, connection.n_vocab) == (model.context, model.n_vocab)
    assert repr(connection) == f"<Connection tale at {server.url}>"
    assert connection.defaults == {}
    with clarion.connect(f"{server.url}/v1/", model="gpt-x") as other:
        assert (other.name, other.url, other.context) == ("gpt-x", server.url, 512)
        assert other.generate(PROMPT, max_tokens=3, seed=1).tokens
    assert repr(other) == f"<Connection gpt-x at {server.url}, closed>"


def test_a_model_that_is_loaded_later(chat_model: Path) -> None:
    models = [Served("first", chat_model), Served("second", chat_model)]
    with running(models, context=256) as started, clarion.connect(started.url, model="second") as connection:
        assert connection.context is connection.n_vocab is None
        connection.generate("Once", max_tokens=1)
        assert (connection.context, connection.n_vocab) == (256, 4096)
