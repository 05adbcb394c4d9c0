"""What was said, taken back and brought back; what a template gets of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarion.conversation.history import History, reasoning_field
from clarion.errors import ParameterError
from clarion.tokenizer.template import render
from tests.conversation import templates

CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}


def spoken(*texts: str) -> History:
    history = History("Be brief.")
    for text in texts:
        history.ask(text)
        history.answer(text.upper(), f"about {text}")
    return history


@pytest.mark.parametrize(
    ("template", "field"),
    [
        (templates.PLAIN, None),
        (templates.STRIPS, None),
        (templates.BRACKETS, None),  # `thinking` is a variable there
        (templates.THINK, "reasoning_content"),
        (templates.HARMONY, "thinking"),
        ("{% if 'thinking' in m %}", "thinking"),
        ("{{ m['reasoning'] }}", "reasoning"),
        ("{{ m.get('reasoning_content') }}", "reasoning_content"),
        ("{% if enable_thinking %}{{ reasoning_effort }}", None),
    ],
)
def test_where_a_template_looks_for_reasoning(template: str, field: str | None) -> None:
    assert reasoning_field(template) == field


def test_a_prompt_begins_as_the_last_one_did() -> None:
    """Where a template keeps reasoning; so the prefix cache finds what it has."""
    history = spoken("a")
    template = templates.THINK.replace(" and loop.last", "")
    first = render(template, history.messages(template), add_generation_prompt=False)
    assert "<think>\nabout a\n</think>\n\nA<|im_end|>" in first
    history.ask("b")
    assert render(template, history.messages(template)).startswith(first)


def test_reasoning_is_given_where_it_is_looked_for() -> None:
    history = spoken("a")
    assert history.messages(templates.THINK)[2]["reasoning_content"] == "about a"
    assert history.messages(templates.HARMONY)[2] == {
        "role": "assistant",
        "content": "A",
        "thinking": "about a",
    }
    assert history.messages(templates.PLAIN)[2] == {"role": "assistant", "content": "A"}
    history.answer("I look.", "so", [CALL])
    assert history.messages(templates.HARMONY)[3]["content"] == ""
    assert history.messages(templates.THINK)[3]["content"] == "I look."


def test_undo_and_redo() -> None:
    history = spoken("a", "b")
    assert history.last_text == "b"
    assert [m["content"] for m in history.undo() or []] == ["b", "B"]
    assert history.last_text == "a"
    assert history.redo() is not None
    assert history.redo() is None
    assert history.as_json() == spoken("a", "b").as_json()
    history.undo()
    history.ask("c")
    assert history.redo() is None
    history.clear()
    assert (history.undo(), history.last_text, history.system) == (None, None, "Be brief.")


def test_the_oldest_is_dropped_but_never_the_last() -> None:
    history = spoken("a", "b")
    assert [m["content"] for m in history.drop_oldest() or []] == ["a", "A"]
    assert history.drop_oldest() is None
    assert [m["content"] for m in history.messages(templates.PLAIN)] == ["Be brief.", "b", "B"]


@settings(max_examples=100, derandomize=True)
@given(st.lists(st.tuples(st.text(), st.text(), st.text()), max_size=4), st.none() | st.text())
def test_what_is_saved_comes_back(said: list[tuple[str, str, str]], system: str | None) -> None:
    history = History(system)
    for text, content, reasoning in said:
        history.ask(text)
        history.answer("", reasoning, [CALL])
        history.result(CALL, content)
        history.answer(content, reasoning)
    again = History.from_json(json.loads(json.dumps(history.as_json())))
    assert again.as_json() == history.as_json()
    assert (again.system, again.exchanges) == (system, history.exchanges)


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ({}, "expected a list of messages"),
        (["x"], r"messages\[0\]"),
        ([{"role": "assistant", "content": "x"}], "found 'assistant', expected user"),
        ([{"role": "user", "content": "x"}, {"role": "system", "content": "y"}], "found 'system', expected"),
        ([{"role": "user"}], r"messages\[0\]\[\"content\"\]"),
        ([{"role": "user", "content": ["x"]}], "found a list, expected a text"),
    ],
)
def test_what_is_no_conversation(messages: object, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        History.from_json(messages)
