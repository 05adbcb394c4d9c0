"""Calls of tools are found in the format that the template teaches; what is none stays text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarion.conversation.calls import Call, call_format, find_calls
from clarion.conversation.reasoning import Part
from tests.conversation import templates

ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "number"}, "b": {"type": "number"}, "note": {"type": "string"}},
        },
    },
}
ONE = ("add", {"a": 1, "b": [True, "x"]})
TWO = ("add", {})


def found(text: str, format: str, *parts: Part) -> tuple[str, list[tuple[str, dict[str, object]]]]:
    content, calls = find_calls(text, parts, format, [ADD])  # type: ignore[arg-type]
    assert all(call.error is None for call in calls)
    return content, [(call.name, call.arguments) for call in calls]


@pytest.mark.parametrize(
    ("template", "format"),
    [
        (templates.PLAIN, None),
        (templates.HARMONY, None),
        (templates.HARMONY + "{{ tools }}", "harmony"),
        ("{% if tools %}within <tool_call></tool_call> tags{% endif %}", "tag"),
        ("{% if tools %}{{ '[AVAILABLE_TOOLS]' }}{% endif %}{{ '[TOOL_CALLS]' }}", "brackets"),
        ('{% if tools %}{{- \'{"name": function name, "parameters": dictionary }\' }}{% endif %}', "json"),
        ("{% if tools %}{{ '<|python_tag|>' }}{% endif %}", "json"),
        ("{% if tools %}{{ tools }}{% endif %}", None),
        ("<tool_call>", None),
    ],
)
def test_the_template_says_which_format(template: str, format: str | None) -> None:
    assert call_format(template) == format


@pytest.mark.parametrize(
    ("format", "text", "expected"),
    [
        ("tag", "Hello", ("Hello", [])),
        (
            "tag",
            'I add.\n<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": [true, "x"]}}\n</tool_call>',
            ("I add.", [ONE]),
        ),
        (
            "tag",
            '<tool_call>{"name": "add"}</tool_call>\n<tool_call>{"name": "add", "arguments": "{}"}',
            ("", [TWO, TWO]),
        ),
        (
            "tag",
            "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n<parameter=note>\n1\n</parameter>\n"
            "</function>\n</tool_call>",
            ("", [("add", {"a": 1, "note": "1"})]),
        ),
        (
            "brackets",
            '[TOOL_CALLS][{"name": "add", "arguments": {"a": 1, "b": [true, "x"]}}, {"name": "add"}]',
            ("", [ONE, TWO]),
        ),
        ("brackets", 'So [TOOL_CALLS]add[ARGS]{"a": 1}', ("So", [("add", {"a": 1})])),
        ("brackets", "[TOOL_CALLS]add[CALL_ID]x1[ARGS]{}[TOOL_CALLS]add[ARGS]{}", ("", [TWO, TWO])),
        ("json", '{"name": "add", "parameters": {"a": 1, "b": [true, "x"]}}', ("", [ONE])),
        ("json", '<|python_tag|>{"name": "add", "parameters": {}}; {"name": "add"}', ("", [TWO, TWO])),
        ("json", '{"name": "Anna", "parameters": {}}', ('{"name": "Anna", "parameters": {}}', [])),
        ("json", 'Here: {"name": "add"}', ('Here: {"name": "add"}', [])),
        ("json", "", ("", [])),
    ],
)
def test_calls(format: str, text: str, expected: object) -> None:
    assert found(text, format) == expected


def test_calls_of_harmony() -> None:
    assert found("So.", "harmony", Part("call", '{"a": 1}', "functions.add")) == ("So.", [("add", {"a": 1})])


@pytest.mark.parametrize(
    ("format", "text", "said"),
    [
        ("tag", "<tool_call>{</tool_call>", "no JSON"),
        ("tag", "<tool_call>[1]</tool_call>", 'no object with a "name"'),
        ("tag", '<tool_call>{"name": "add", "arguments": 1}</tool_call>', "arguments are no object"),
        ("tag", "<tool_call>" + "[" * 100_000, "no JSON"),
        ("brackets", "[TOOL_CALLS]", "no name"),
        ("brackets", "[TOOL_CALLS][", "no JSON"),
        ("brackets", "[TOOL_CALLS]add[ARGS]{", "arguments are no JSON"),
    ],
)
def test_a_call_that_cannot_be_read_says_why(format: str, text: str, said: str) -> None:
    _, (call,) = find_calls(text, (), format, [ADD])  # type: ignore[arg-type]
    assert said in str(call.error)


def test_ids_are_such_as_the_strictest_templates_take() -> None:
    ids = {Call("add", {}).as_message()["id"] for _ in range(100)}
    assert len(ids) == 100
    assert all(len(id) == 9 and id.isalnum() for id in ids)


@settings(max_examples=200, derandomize=True)
@given(
    st.sampled_from(["tag", "brackets", "json"]),
    st.text(alphabet='<tool_call>[]{}/:", \n\\nameTOOL_CALLSARG1=functionparameter') | st.text(),
)
def test_any_text_is_taken_apart(format: str, text: str) -> None:
    content, calls = find_calls(text, (), format, [ADD])  # type: ignore[arg-type]
    assert isinstance(content, str)
    json.dumps([call.as_message() for call in calls])
