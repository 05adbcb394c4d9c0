"""Fields of requests: what is checked, refused, accepted, and ignored."""

from __future__ import annotations

from typing import Any

import pytest

from clarion.server.run import Running
from tests.server.servers import client, events

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
HELLO = [{"role": "user", "content": "Hello"}]


def asked(path: str, **fields: Any) -> dict[str, Any]:
    first = {"messages": HELLO} if path == CHAT else {"prompt": "Once"}
    return {**first, "max_tokens": 2, **fields}


@pytest.mark.parametrize(
    ("path", "fields", "param", "said"),
    [
        (TEXT, {"max_tokens": "many"}, "max_tokens", "found str, expected int"),
        (TEXT, {"max_tokens": -2}, "max_tokens", "found -2, expected"),
        (TEXT, {"n_predict": 1.5}, "n_predict", "expected int"),
        (TEXT, {"temperature": 1e9}, "temperature", "expected a number from 0"),
        (TEXT, {"repeat_last_n": -5}, "repeat_last_n", "found -5, expected an integer from -1"),
        (TEXT, {"stop": 5}, "stop", "found int"),
        (TEXT, {"stop": [""]}, "stop", "not empty"),
        (TEXT, {"stop_token_ids": [10**9]}, "stop", "found token 1000000000"),
        (TEXT, {"logit_bias": {"a": 1}}, "logit_bias", "the id of a token"),
        (TEXT, {"logit_bias": {"99999999": 1}}, "logit_bias", "found token 99999999"),
        (TEXT, {"logit_bias": {"5": "x"}}, "logit_bias[...]", "expected float"),
        (TEXT, {"prompt": None}, "prompt", "found none"),
        (TEXT, {"prompt": []}, "prompt", "expected a text, token ids"),
        (TEXT, {"prompt": ["a", 1]}, "prompt[1]", "found 1"),
        (TEXT, {"prompt": [-1]}, "prompt", "found token -1"),
        (TEXT, {"prompt": [[]]}, "prompt", "no tokens"),
        (TEXT, {"n": 0}, "n", "expected 1 to"),
        (TEXT, {"best_of": 1, "n": 2}, "best_of", "expected n (2)"),
        (TEXT, {"best_of": 2, "stream": True}, "best_of", "with stream"),
        (TEXT, {"logprobs": -1}, "logprobs", "expected 0 to"),
        (TEXT, {"suffix": "end"}, "suffix", "cannot fill in the middle"),
        (TEXT, {"grammar": "root ::= x"}, "grammar", "not implemented"),
        (TEXT, {"json_schema": {"type": "object"}}, "json_schema", "not implemented"),
        (TEXT, {"mirostat": 2}, "mirostat", "not implemented"),
        (CHAT, {"messages": []}, "messages", "found none"),
        (CHAT, {"messages": "Hello"}, "messages", "found str, expected array"),
        (CHAT, {"messages": [5]}, "messages[0]", "an object"),
        (CHAT, {"messages": [{"content": "x"}]}, "messages[0].role", "expected a role"),
        (CHAT, {"messages": [{"role": "user"}]}, "messages[0].content", "found none"),
        (CHAT, {"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "found 5"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0]",
            "not implemented: found a part of type 'image_url'",
        ),
        (CHAT, {"top_logprobs": 3}, "top_logprobs", "logprobs is not true"),
        (CHAT, {"tool_choice": "required"}, "tool_choice", "not implemented"),
        (CHAT, {"tool_choice": {"type": "function"}}, "tool_choice", "not implemented"),
        (CHAT, {"tools": [5]}, "tools[0]", "found 5"),
        (CHAT, {"response_format": {"type": "json_schema"}}, "response_format", "not implemented"),
        (CHAT, {"functions": [{}]}, "functions", "not implemented"),
        (CHAT, {"modalities": ["audio"]}, "modalities", "not implemented"),
        (CHAT, {"chat_template_kwargs": 5}, "chat_template_kwargs", "expected an object"),
        (CHAT, {"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages", "cannot be set"),
        (CHAT, {"enable_thinking": "yes"}, "enable_thinking", "expected true or false"),
        (CHAT, {"thinking_budget": "x"}, "thinking_budget", "a number of tokens"),
        (CHAT, {"reasoning": {"max_tokens": -7}}, "reasoning.max_tokens", "a number of tokens"),
        ("/v1/embeddings", {"input": None}, "input", "found none"),
        ("/v1/embeddings", {"input": [1, "a"]}, "input[0]", "found 1"),
        ("/v1/embeddings", {"input": "a", "encoding_format": "int8"}, "encoding_format", "int8"),
        ("/v1/embeddings", {"input": "a", "dimensions": 10**6}, "dimensions", "expected an integer"),
        ("/v1/rerank", {"documents": ["a"]}, "query", "it is missing"),
        ("/v1/rerank", {"query": "a", "documents": []}, "documents", "found 0"),
        ("/v1/rerank", {"query": "a", "documents": [5]}, "documents[0]", "found 5"),
        ("/v1/rerank", {"query": "a", "documents": ["b"], "top_n": 0}, "top_n", "1 or more"),
    ],
)
def test_a_wrong_field_is_named(
    server: Running, path: str, fields: dict[str, Any], param: str, said: str
) -> None:
    body = asked(path, **fields) if path in (CHAT, TEXT) else fields
    with client(server) as http:
        answer = http.post(path, json=body)
        assert answer.status_code == 400, answer.text
        found = answer.json()["error"]
        assert (found["param"], found["type"]) == (param, "invalid_request_error")
        assert said in found["message"]


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "u", "store": True, "metadata": {"a": 1}, "service_tier": "flex", "cache_prompt": False},
        {"response_format": {"type": "text"}, "grammar": "", "mirostat": 0, "xtc_probability": 0.0},
        {"temperature": None, "seed": None, "stop": None, "n": None, "logit_bias": None},
        {"seed": -1, "max_tokens": -1, "stop": "a"},
        {"seed": -5},
        {"seed": 2**70},
        {"logit_bias": {"5": -100}},
        {"logit_bias": [[5, False], [6, 1.5]]},
        {"top_k": 1, "min_p": 0.1, "typical_p": 0.9, "repeat_penalty": 1.1, "repeat_last_n": 64},
        {"dry_multiplier": 0.8, "dry_base": 1.75, "dry_allowed_length": 2, "dry_sequence_breakers": ["x"]},
        {"repetition_penalty": 1.1, "n_predict": 3},
    ],
)
@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_what_is_accepted(server: Running, path: str, fields: dict[str, Any]) -> None:
    with client(server) as http:
        answer = http.post(path, json=asked(path, **fields))
        assert answer.status_code == 200, answer.text
        assert "x-clarion-ignored" not in answer.headers


def test_what_is_ignored_is_named(server: Running) -> None:
    with client(server) as http:
        for stream in (False, True):
            more = {"temprature": 2, "ü": 1, "a\r\nb: c": 1, "x" * 99: 1}
            answer = http.post(CHAT, json=asked(CHAT, stream=stream, **more))
            assert answer.headers["x-clarion-ignored"] == rf"temprature, \xfc, a\r\nb: c, {'x' * 40}"
            many = http.post(CHAT, json=asked(CHAT, **{f"f{i}": 1 for i in range(1000)}))
            assert many.headers["x-clarion-ignored"].count(",") == 19


def test_fields_reach_the_model(server: Running) -> None:
    model = server.server.pool.find("tale").model
    assert model is not None
    with client(server) as http:
        for fields, options in (
            ({"temperature": 0}, {"temperature": 0.0}),
            ({"top_k": 1, "temperature": 1.9}, {"greedy": True}),
            ({"seed": 5, "temperature": 2, "min_p": 0.0}, {"seed": 5, "temperature": 2.0, "min_p": 0.0}),
            ({"logit_bias": {"13": 100}, "temperature": 0}, {"logit_bias": {13: 100.0}, "greedy": True}),
            (
                {"seed": 2, "repeat_penalty": 1.9, "repeat_last_n": -1},
                {"seed": 2, "repeat_penalty": 1.9, "penalty_window": -1},
            ),
        ):
            expected = model.generate("Once", max_tokens=20, **options).text  # type: ignore[arg-type]
            answer = http.post(TEXT, json={"prompt": "Once", "max_tokens": 20, **fields})
            assert answer.json()["choices"][0]["text"] == expected


def test_rerank_needs_a_classifier(server: Running) -> None:
    with client(server) as http:
        for path in ("/v1/rerank", "/rerank"):
            answer = http.post(path, json={"query": "a", "documents": ["b", {"text": "c"}]})
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported")


def test_usage_comes_only_where_it_is_asked_for(server: Running) -> None:
    with client(server) as http:
        for include in (False, True):
            more = {"stream": True, "stream_options": {"include_usage": include}}
            found = events(http.post(TEXT, json=asked(TEXT, **more)).text)
            assert [bool(event.get("usage")) for event in found] == [False] * (len(found) - 1) + [include]


def test_names_of_fields_may_hold_anything(server: Running) -> None:
    """The header that names the ignored ones stays a header, and short."""
    asked = {
        "prompt": "Once",
        "max_tokens": 1,
        "a\r\nb: c": 1,
        "\x00é": 1,
        **{f"f{i}": 1 for i in range(999)},
    }
    with client(server) as http:
        answer = http.post("/v1/completions", json=asked)
    assert answer.status_code == 200
    named = answer.headers["x-clarion-ignored"].split(", ")
    assert named[:3] == [r"a\r\nb: c", r"\x00\xe9", "f0"]
    assert (len(named), "b" in answer.headers) == (20, False)
