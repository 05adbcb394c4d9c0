"""Clients that people use, unmodified, against `clarion serve` as a process.

None of them reaches anything but this machine; npm's registry alone is asked, once, for one package.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

import clarion
from tests.real_models import npm
from tests.server.processes import started

ASK: list[Any] = [{"role": "user", "content": "Who is at the door?"}]
TEXTS = ["a cat", "the king"]


@pytest.fixture(scope="module")
def url(chat_model: Path) -> Iterator[str]:
    with started(str(chat_model), "-c", "512", "-t", "1") as server:
        yield f"{server.url}/v1"


@pytest.fixture(scope="module")
def model(chat_model: Path) -> Iterator[clarion.Model]:
    with clarion.load(chat_model, context=512, threads=1) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def answer(model: clarion.Model) -> str:
    """What each client has to get."""
    return model.chat(ASK, max_tokens=12, seed=7).text


@pytest.fixture(scope="module")
def vectors(model: clarion.Model) -> Any:
    return model.embed(TEXTS)  # [2, width]


def text_of(stream: Any) -> str:
    """The content of OpenAI's chunks."""
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


# ---- openai -----------------------------------------------------------------------------------------------


def test_openai(url: str, answer: str, vectors: Any) -> None:
    ai = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
    asked: Any = {"model": "gpt-4o", "messages": ASK, "max_completion_tokens": 12, "seed": 7}
    found = ai.chat.completions.create(**asked)
    assert (found.model, found.choices[0].message.content) == ("tale", answer)
    assert text_of(ai.chat.completions.create(**asked, stream=True)) == answer
    stop = answer[8:12]
    with ai.chat.completions.stream(**asked, stop=stop) as stream:  # checks the order of the chunks
        assert stream.get_final_completion().choices[0].message.content == answer[: answer.index(stop)]
    raw = ai.chat.completions.with_raw_response.create(**asked, extra_body={"speed": "high"})
    assert raw.headers["x-clarion-ignored"] == "speed"
    for form in ("float", "base64"):
        data = ai.embeddings.create(model="tale", input=TEXTS, encoding_format=form).data  # type: ignore[arg-type]
        if form == "float":
            assert np.array_equal(np.array([each.embedding for each in data], np.float32), vectors)
    for wrong, kind in (
        ({"temperature": "hot"}, openai.BadRequestError),
        ({"messages": []}, openai.BadRequestError),
        ({"messages": [{"role": "user", "content": "cat " * 600}]}, openai.BadRequestError),
        ({"response_format": {"type": "json_object"}}, openai.BadRequestError),
    ):
        with pytest.raises(kind):
            ai.chat.completions.create(**{**asked, **wrong})  # type: ignore[dict-item]
    with pytest.raises(openai.NotFoundError):
        ai.models.retrieve("gpt-4o")
    with pytest.raises(openai.NotFoundError):
        ai.responses.create(model="tale", input="Hello")
    with pytest.raises(openai.APITimeoutError):
        ai.with_options(timeout=0.001).completions.create(model="tale", prompt="Once", max_tokens=400)


def test_openai_leaves_a_stream(url: str, answer: str) -> None:
    ai = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
    with ai.completions.create(
        model="tale", prompt="Once", max_tokens=400, stream=True, extra_body={"ignore_eos": True}
    ) as stream:
        assert next(iter(stream)).choices[0].text
    assert ai.chat.completions.create(model="tale", messages=ASK, max_tokens=12, seed=7).choices[
        0
    ].message.content == answer  # fmt: skip


def test_several_models_have_their_names(chat_model: Path) -> None:
    from tests.end_to_end.files import BUILT_IN

    with started(str(chat_model), str(BUILT_IN), "-c", "256", "-t", "1") as server:
        ai = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        names = [found.id for found in ai.models.list()]
        assert len(names) == 2
        for name in names:
            assert ai.completions.create(model=name, prompt="x", max_tokens=1).model == name
        with pytest.raises(openai.NotFoundError, match="is it tale"):
            ai.completions.create(model="tal", prompt="x", max_tokens=1)
        with pytest.raises(openai.NotFoundError, match="there are: tale"):
            ai.completions.create(model="gpt-4o", prompt="x", max_tokens=1)


# ---- how harnesses of evaluation ask ----------------------------------------------------------------------


@pytest.mark.parametrize("n_written", [0, 1])
def test_likelihoods(url: str, model: clarion.Model, n_written: int) -> None:
    """As lm-eval does: several prompts of ids in one request, scored by their echo."""
    begun = [model.tokenize(text) for text in ("Once upon a time", "There was a king")]
    rest = [model.tokenize(text, add_special=False) for text in (" there was a miller", " who had no sons")]
    prompts = [first + then for first, then in zip(begun, rest, strict=True)]
    asked = {
        "model": "tale",
        "prompt": prompts,
        "echo": True,
        "max_tokens": n_written,
        "logprobs": 1,
        "temperature": 0,
        "seed": 1234,
    }
    found = httpx.post(f"{url}/completions", json=asked, timeout=60).json()
    assert [choice["index"] for choice in found["choices"]] == [0, 1]
    for choice, ids, first in zip(found["choices"], prompts, begun, strict=True):
        said = choice["logprobs"]
        end = len(ids)
        assert len(said["token_logprobs"]) == end + n_written
        scores = model.score(ids, first=len(first), top=1)
        expected = sum(each.logprob for each in scores)
        assert sum(said["token_logprobs"][len(first) : end]) == pytest.approx(expected, rel=1e-6)
        is_greedy = all(
            max(top, key=top.__getitem__) == token
            for token, top in zip(
                said["tokens"][len(first) : end], said["top_logprobs"][len(first) : end], strict=True
            )
        )
        assert is_greedy == all(each.token == each.top[0][0] for each in scores)


# ---- litellm ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def litellm() -> Any:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches its list of prices
    import litellm

    litellm.telemetry = False
    return litellm


def test_litellm(litellm: Any, url: str, answer: str, vectors: Any) -> None:
    to: dict[str, Any] = {"model": "openai/tale", "api_base": url, "api_key": "none", "num_retries": 0}
    asked = {**to, "messages": ASK, "max_tokens": 12, "seed": 7}
    found = litellm.completion(**asked)
    assert found.choices[0].message.content == answer
    assert found.usage.completion_tokens == 12
    assert text_of(litellm.completion(**asked, stream=True)) == answer

    async def streamed() -> str:
        return text_of([chunk async for chunk in await litellm.acompletion(**asked, stream=True)])

    assert asyncio.run(streamed()) == answer
    text = litellm.text_completion(
        **{**to, "model": "text-completion-openai/tale"}, prompt="Once", max_tokens=3
    )
    assert text.choices[0].text
    data = litellm.embedding(**to, input=TEXTS).data
    assert np.array_equal(np.array([each["embedding"] for each in data], np.float32), vectors)
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(**{**asked, "messages": [{"role": "user", "content": "cat " * 600}]})
    with pytest.raises(litellm.BadRequestError):
        litellm.completion(**asked, temperature=-1)


# ---- langchain --------------------------------------------------------------------------------------------


@pytest.fixture
def langchain(litellm: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Its clients count tokens by a vocabulary of OpenAI, which litellm carries."""
    carried = Path(litellm.__file__).parent / "litellm_core_utils" / "tokenizers"
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(carried))
    monkeypatch.setenv("LANGCHAIN_TRACING_V2", "false")
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    import langchain_openai

    return langchain_openai


def test_langchain(langchain: Any, url: str, model: clarion.Model, answer: str) -> None:
    to: dict[str, Any] = {"model": "tale", "base_url": url, "api_key": "none", "max_retries": 0}
    chat = langchain.ChatOpenAI(**to, max_tokens=12, seed=7, temperature=None)
    said = chat.invoke("Who is at the door?")
    assert said.content == answer
    assert said.usage_metadata["output_tokens"] == 12
    assert "".join(chunk.content for chunk in chat.stream("Who is at the door?")) == answer
    assert [each.content for each in chat.batch(["Who is at the door?"] * 3)] == [answer] * 3
    text = langchain.OpenAI(**to, max_tokens=8, temperature=0)
    assert text.invoke("Once upon") == model.generate("Once upon", max_tokens=8, greedy=True).text
    with pytest.raises(openai.BadRequestError):
        chat.invoke("cat " * 600)


def test_vectors_of_langchain(langchain: Any, url: str, model: clarion.Model, vectors: Any) -> None:
    """It sends ids of OpenAI's vocabulary, unless it is told not to: ids are ids of the model here."""
    to: dict[str, Any] = {"model": "tale", "base_url": url, "api_key": "none", "max_retries": 0}
    plain = langchain.OpenAIEmbeddings(**to, check_embedding_ctx_length=False)
    assert np.array_equal(np.array(plain.embed_documents(TEXTS), np.float32), vectors)
    import tiktoken

    ids = tiktoken.get_encoding("cl100k_base").encode("a b")
    assert max(ids) < model.n_vocab
    given = langchain.OpenAIEmbeddings(**to).embed_query("a b")
    assert np.array_equal(np.array(given, np.float32), model.embed([ids])[0])
    with pytest.raises(openai.BadRequestError, match="expected 0 to"):
        langchain.OpenAIEmbeddings(**to).embed_query("Nachtigallengesang")


# ---- llm --------------------------------------------------------------------------------------------------


def test_llm(url: str, answer: str, tmp_path: Path) -> None:
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: mine\n  model_name: gpt-4o\n  api_base: {url}\n", encoding="utf-8"
    )
    environment = {**os.environ, "LLM_USER_PATH": str(tmp_path), "NO_COLOR": "1"}

    def llm(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "llm", "prompt", "-m", "mine", *words],
            env=environment, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    asked = ("Who is at the door?", "-o", "max_tokens", "12", "-o", "seed", "7")
    done = llm(*asked)
    assert (done.returncode, done.stdout.strip("\n")) == (0, answer.strip("\n")), done.stderr
    done = llm("Hello", "-o", "temperature", "2", "-o", "json_object", "1")
    assert done.returncode == 1
    assert "response_format" in done.stderr


# ---- JavaScript -------------------------------------------------------------------------------------------


def test_javascript(url: str, model: clarion.Model, answer: str, vectors: Any) -> None:
    folder = npm("openai@6.49.0")
    done = subprocess.run(
        ["node", str(Path(__file__).with_name("client.cjs")), url],
        env={**os.environ, "NODE_PATH": str(folder / "node_modules")},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["chat"], found["streamed"], found["usage"]) == (answer, answer, 12)
    assert found["text"] == model.generate("Once", max_tokens=5, greedy=True).text
    assert np.array_equal(np.array(found["vectors"], np.float32), vectors)
    assert found["errors"] == [
        ["NotFoundError", 404, "model_not_found", "model"],
        ["BadRequestError", 400, "invalid_value", "temperature"],
    ]
    assert found["models"] == ["tale"]
