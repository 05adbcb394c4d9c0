"""Servers that know nothing of Clarion, by a stand-in that says what they would."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import clarion
from clarion.errors import (
    AccessError,
    ContextError,
    ParameterError,
    ServerError,
    UnreachableError,
    UnsupportedError,
)
from tests.client.standin import StandIn, events, standing_in, whole

ASK: list[dict[str, Any]] = [{"role": "user", "content": "Who is at the door?"}]
TEXT, CHAT = "/v1/completions", "/v1/chat/completions"
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}


@pytest.fixture
def other() -> Iterator[StandIn]:
    with standing_in() as found:
        yield found


@pytest.fixture
def connection(other: StandIn) -> Iterator[clarion.Connection]:
    with clarion.connect(other.url, api_key="secret") as found:
        yield found


def delta(reason: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": reason}]}


def message(reason: str | None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": fields, "finish_reason": reason}], "usage": USAGE}


def test_a_text(other: StandIn, connection: clarion.Connection) -> None:
    choice = {"index": 0, "text": " a king", "finish_reason": "length"}
    other.says(TEXT, whole({"choices": [choice], "usage": USAGE}))
    found = connection.generate("Once", max_tokens=3, top_k=5, penalty_window=8, seed=4, greedy=True)
    assert (found.text, found.tokens, found.finish_reason, found.seed) == (" a king", (), "length", 4)
    assert (found.timings.prompt_tokens, found.timings.reused_tokens) == (7, 2)
    assert found.timings.generated_tokens == 3
    (asked,) = other.fields(TEXT)
    # Nothing that was not asked for: others refuse fields that they do not know.
    assert asked == {
        "model": "other",
        "prompt": "Once",
        "max_tokens": 3,
        "seed": 4,
        "top_k": 5,
        "repeat_last_n": 8,
        "temperature": 0.0,
    }
    assert other.asked[-1][1]["authorization"] == "Bearer secret"


def test_options_in_openais_form(other: StandIn, connection: clarion.Connection) -> None:
    other.says(TEXT, whole({"choices": [{"index": 0, "text": "a", "finish_reason": "stop"}]}))
    found = connection.generate([5, 6], stop=["x", 9], logit_bias={3: float("-inf"), 4: 2.0})
    (asked,) = other.fields(TEXT)
    assert asked["prompt"] == [5, 6]
    assert (asked["stop"], asked["stop_token_ids"]) == (["x"], [9])
    assert asked["logit_bias"] == {"3": -100.0, "4": 2.0}
    assert 0 <= asked["seed"] == found.seed < 2**31
    with pytest.raises(UnsupportedError, match="logprobs"):
        connection.generate("a", logprobs=2)
    with pytest.raises(UnsupportedError, match="score"):
        connection.score([5, 6])


def test_several_texts(other: StandIn, connection: clarion.Connection) -> None:
    choices = [{"index": i, "text": f"text {i}", "finish_reason": "stop"} for i in (1, 0)]
    other.says(TEXT, whole({"choices": choices, "usage": USAGE}))
    found = connection.generate(["a", "b"], max_tokens=3)
    assert [each.text for each in found] == ["text 0", "text 1"]
    assert {each.seed for each in found} == {-1}
    assert "seed" not in other.fields(TEXT)[0]


def test_a_stream(other: StandIn, connection: clarion.Connection) -> None:
    chunks = [{"choices": [{"index": 0, "text": text, "finish_reason": None}]} for text in "a b"]
    end = {"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}
    other.says(TEXT, events(*chunks, end, {"choices": [], "usage": USAGE}))
    stream = connection.stream("Once")
    assert list(stream) == ["a", " ", "b"]
    found = stream.completion
    assert found is not None
    assert (found.text, found.finish_reason) == ("a b", "stop")
    assert found.timings.generated_tokens == 3
    assert other.fields(TEXT)[0]["stream_options"] == {"include_usage": True}
    other.says(TEXT, events(*chunks))  # nothing says why it ended
    with pytest.raises(UnreachableError, match="ends in its middle"):
        list(connection.stream("Once"))


def test_reasoning_stands_where_models_write_it(other: StandIn, connection: clarion.Connection) -> None:
    expected = "<think>\nwho knows\n</think>\n\na cat"
    other.says(CHAT, whole(message("stop", content="a cat", reasoning_content="who knows")))
    assert connection.chat(ASK).text == expected
    parts = [{"role": "assistant"}, {"reasoning": "who "}, {"reasoning": "knows"}, {"content": "a "}]
    other.says(CHAT, events(*(delta(**part) for part in parts), delta("stop", content="cat")))
    assert "".join(connection.chat_stream(ASK)) == expected
    asked = other.fields(CHAT)[0]
    assert asked["messages"] == ASK
    assert "clarion" not in asked


def test_what_is_no_text(other: StandIn, connection: clarion.Connection) -> None:
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    tools = [{"type": "function", "function": {"name": "f"}}]
    other.says(CHAT, whole(message("tool_calls", content=None, tool_calls=calls)))
    with pytest.raises(UnsupportedError, match="calls of tools"):
        connection.chat(ASK, tools=tools)
    assert other.fields(CHAT)[0]["tools"] == tools
    other.says(CHAT, whole(message("content_filter", content="a")))
    with pytest.raises(ServerError, match="withholds"):
        connection.chat(ASK)


@pytest.mark.parametrize("in_base64", [False, True])
def test_vectors(other: StandIn, connection: clarion.Connection, in_base64: bool) -> None:
    import base64

    rows = np.array([[3, 4], [0, 2]], np.float32)

    def written(row: Any) -> object:
        return base64.b64encode(row.tobytes()).decode() if in_base64 else row.tolist()

    data = [{"index": i, "embedding": written(row)} for i, row in enumerate(rows)][::-1]
    other.says("/v1/embeddings", *[whole({"data": data})] * 3)
    assert np.array_equal(connection.embed(["a", "b"], normalize=False), rows)
    assert np.allclose(connection.embed(["a", "b"]), [[0.6, 0.8], [0, 1]])
    with pytest.raises(ServerError, match="2 vectors of 1 texts"):
        connection.embed("a")


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (401, {"message": "Incorrect API key"}, AccessError),
        (403, {"message": "no"}, AccessError),
        (400, {"message": "too long", "code": "context_length_exceeded"}, ContextError),
        (400, {"message": "too long", "type": "exceed_context_size_error"}, ContextError),
        (400, {"message": "temperature"}, ParameterError),
        (422, "temperature", ParameterError),
        (404, {"message": "no such model"}, ServerError),
        (500, {"message": "failed"}, ServerError),
    ],
)
def test_errors(
    other: StandIn, connection: clarion.Connection, status: int, error: Any, kind: type[Exception]
) -> None:
    text = error["message"] if isinstance(error, dict) else error
    other.says(TEXT, whole({"error": error}, status=status))
    with pytest.raises(kind, match=f"{other.url}: {text}") as found:
        connection.generate("a")
    assert type(found.value) is kind


def test_models(other: StandIn) -> None:
    with clarion.connect(other.url) as connection:
        assert (connection.name, connection.context, connection.n_vocab) == ("other", None, None)
        for call in (lambda: connection.tokenize("a"), lambda: connection.rerank("a", ["b"])):
            with pytest.raises(UnsupportedError, match="has nothing at"):
                call()
    listed = {"data": [{"id": "a"}, {"id": "b", "max_model_len": 4096}]}
    other.says("/v1/models", whole(listed), whole({"data": []}), whole({}, status=404))
    with clarion.connect(other.url, model="b") as connection:
        assert (connection.name, connection.context) == ("b", 4096)
    with pytest.raises(ParameterError, match="model: found none"):
        clarion.connect(other.url)
    with clarion.connect(other.url, model="unlisted") as connection:
        assert connection.name == "unlisted"
