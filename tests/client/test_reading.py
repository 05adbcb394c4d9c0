"""Events from bytes, and options as a server reads them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import clarion
from clarion.client.events import Events
from clarion.client.fields import Target, address, chat, completion
from clarion.runtime.sampling import Parameters
from clarion.server.openai.chat import ChatRequest
from clarion.server.openai.completions import CompletionRequest
from clarion.server.sampling import options as read_by_the_server

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"))


@given(st.lists(WORDS), st.sampled_from(["\n", "\r\n", "\r"]), st.data())
def test_events_are_the_same_however_they_are_cut(texts: list[str], end: str, data: st.DataObject) -> None:
    """Texts may hold all that Python takes for an end of a line."""
    parts = [f": a comment{end}data: {text}{end}{end}" for text in texts]
    content = f"{end}".join(["event: x", "".join(parts), ": the end", "", ""]).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=8)))
    events = Events()
    found = []
    for start, stop in zip([0, *cuts], [*cuts, len(content)], strict=True):
        found += events.feed(content[start:stop])
    assert found == texts


def test_data_of_several_lines() -> None:
    assert Events().feed(b"data: a\ndata:b\n\ndata: c\n") == ["a\nb"]


OPTIONS: Any = st.fixed_dictionaries(
    {},
    optional={
        "max_tokens": st.none() | st.integers(0, 2**31 - 1),
        "stop": st.none()
        | st.integers(0, 4095)
        | st.text(min_size=1)
        | st.lists(st.integers(0, 4095) | st.text(min_size=1), max_size=3),
        "ignore_eos": st.booleans(),
        "logprobs": st.none() | st.integers(0, 100),
        "greedy": st.booleans(),
        "temperature": st.floats(0, 1000),
        "top_k": st.integers(0, 2**31 - 1),
        "top_p": st.floats(0, 1),
        "min_p": st.floats(0, 1),
        "typical_p": st.floats(0, 1),
        "repeat_penalty": st.floats(1e-6, 1000),
        "presence_penalty": st.floats(-1000, 1000),
        "frequency_penalty": st.floats(-1000, 1000),
        "penalty_window": st.integers(-1, 2**31 - 1),
        "dry_multiplier": st.floats(0, 1000),
        "dry_base": st.floats(1, 1000),
        "dry_allowed_length": st.integers(1, 2**31 - 1),
        "dry_window": st.integers(-1, 2**31 - 1),
        "dry_breakers": st.lists(st.text(min_size=1), max_size=3),
        "logit_bias": st.dictionaries(
            st.integers(0, 4095), st.just(float("-inf")) | st.floats(-1e30, 1e30), max_size=4
        ),
        "seed": st.none() | st.integers(0, 2**64 - 1),
    },
)


@given(OPTIONS)
def test_a_server_reads_the_options_that_were_given(model: clarion.Model, options: Any) -> None:
    target = Target("tale", True, model.n_vocab)
    asked = completion(target, "a", options)
    expected = replace(Parameters.parse(options), seed=asked.seed)
    if expected.greedy:
        expected = replace(expected, greedy=False, temperature=0.0)
    # The order of stops has no meaning.
    expected = replace(expected, stop=tuple(sorted(expected.stop, key=lambda stop: isinstance(stop, int))))
    request = msgspec.convert(json.loads(json.dumps(asked.fields)), CompletionRequest)
    found = read_by_the_server(request, model, {}, logprobs=request.logprobs)
    assert Parameters.parse(found) == expected
    said = chat(target, [{"role": "user", "content": "a"}], {**options, "seed": asked.seed})
    answer = msgspec.convert(json.loads(json.dumps(said.fields)), ChatRequest)
    more: Any = {"logprobs": answer.top_logprobs} if answer.logprobs else {}
    assert Parameters.parse(read_by_the_server(answer, model, {}, **more)) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("localhost", "http://localhost"),
        ("http://a/v1", "http://a"),
        ("http://a:80/v1/", "http://a:80"),
        ("https://a.b/api/v1", "https://a.b/api"),
        (" https://[::1]:8080/ ", "https://[::1]:8080"),
    ],
)
def test_addresses(given: str, expected: str) -> None:
    assert address(given) == expected
