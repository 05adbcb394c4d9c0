"""Messages of clients as templates take them, and what requests say of reasoning."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarion.server.changing_lines import without_changing_lines
from clarion.server.errors import RefusedError
from clarion.server.messages import for_template
from clarion.server.openai.thinking import thinking
from clarion.server.pool import Served
from clarion.server.run import Running
from clarion.server.writing import closing
from tests.server.servers import TEMPLATE, client, events, running, with_template
from tests.server.test_answers import THINK

LINE = "x-anthropic-billing-header: cc_version=2.1; cc_entrypoint=cli; cch={};\n"
SYSTEM, USER = {"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"}
CHAT = "/v1/chat/completions"


def read(*messages: dict[str, Any], template: str = TEMPLATE) -> list[dict[str, Any]]:
    return for_template(messages, template)


def test_a_line_that_changes_is_left_out() -> None:
    assert without_changing_lines(LINE.format("a1") + "You are ...") == "You are ..."
    assert without_changing_lines(LINE.format("a1").strip()) == ""
    assert without_changing_lines("Hello\n" + LINE) == "Hello\n" + LINE  # only at the head
    changed = [{"role": "system", "content": LINE.format("0a")}, SYSTEM, USER]
    parts = [{"type": "text", "text": LINE.format("0b").strip()}, {"type": "text", "text": "Be brief"}]
    assert read(*changed) == read({"role": "system", "content": parts}, USER) == [SYSTEM, USER]
    assert read({"role": "system", "content": LINE}, USER) == [USER]
    assert read({"role": "user", "content": LINE})[0]["content"] == LINE  # what a user says stays


@given(st.text(), st.text(alphabet=st.characters(exclude_characters="\n")))
def test_nothing_else_is_left_out(text: str, value: str) -> None:
    found = without_changing_lines(text)
    assert text.endswith(found)
    assert found == text or text.lower().startswith("x-anthropic-billing-header:")
    rest = without_changing_lines(f"x-anthropic-billing-header: {value}\n{text}")
    assert rest == without_changing_lines(text.lstrip("\n"))


def test_roles() -> None:
    developer = {"role": "developer", "content": "Say it in verse"}
    joined = {"role": "system", "content": "Be brief\n\nSay it in verse"}
    assert read(SYSTEM, developer, USER) == [joined, USER]
    assert read(developer, USER)[0] == {"role": "system", "content": "Say it in verse"}
    assert read(developer, USER, template="{% if role == 'developer' %}")[0] == developer
    assert read(USER, SYSTEM) == [USER, SYSTEM]  # one that comes later is the template's matter


def test_contents() -> None:
    parts = ["a", {"type": "text", "text": "b"}, {"type": "input_text", "text": "c"}]
    assert read({"role": "user", "content": parts})[0]["content"] == "a\nb\nc"
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    assert read(USER, call)[1] == call
    assert read(USER, {"role": "assistant", "content": None})[1]["content"] == ""
    for part in ({"type": "image_url"}, {"type": "text"}, {}, 5):
        with pytest.raises(RefusedError, match=r"messages\[0\].content\[0\]"):
            read({"role": "user", "content": [part]})


def test_reasoning_comes_back_where_the_template_looks() -> None:
    for name in ("reasoning_content", "reasoning", "thinking"):
        said = {"role": "assistant", "content": "Yes", name: "hm"}
        assert read(USER, said)[1] == {"role": "assistant", "content": "Yes", "reasoning_content": "hm"}
        assert read(USER, said, template="{{ m.thinking }}")[1]["thinking"] == "hm"
        assert read(USER, said, template="{{ m.content }}")[1] == {"role": "assistant", "content": "Yes"}


@pytest.mark.parametrize(
    ("fields", "variables", "budget"),
    [
        ({}, {}, None),
        ({"enable_thinking": False}, {"enable_thinking": False}, None),
        (
            {"chat_template_kwargs": {"enable_thinking": False, "a": 1}},
            {"enable_thinking": False, "a": 1},
            None,
        ),
        ({"reasoning_effort": "high"}, {"reasoning_effort": "high"}, None),
        ({"reasoning_effort": "none"}, {"enable_thinking": False}, None),
        ({"reasoning": {"effort": "low", "max_tokens": 9}}, {"reasoning_effort": "low"}, 9),
        ({"reasoning": {"enabled": True}}, {"enable_thinking": True}, None),
        ({"thinking": {"type": "disabled"}}, {"enable_thinking": False}, None),
        ({"thinking": {"type": "enabled", "budget_tokens": 5}}, {"enable_thinking": True}, 5),
        ({"thinking_budget": 0}, {}, 0),
        ({"thinking_budget": -1}, {}, None),
    ],
)
def test_what_is_said_of_reasoning(
    fields: dict[str, Any], variables: dict[str, Any], budget: int | None
) -> None:
    found = thinking(fields, TEMPLATE, THINK)
    assert (found.variables, found.budget) == (variables, budget)


def test_where_a_template_cannot_be_told() -> None:
    assert thinking({"reasoning_effort": "none"}, "<think></think>", THINK).budget == 0
    assert thinking({"reasoning_effort": "none"}, "", None).budget is None


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server whose log shows what the model is asked."""
    path = with_template(tmp_path_factory.mktemp("shown") / "tale.gguf")
    with running([Served("tale", path)], log_text=True) as server:
        yield server


def ask(server: Running, capfd: pytest.CaptureFixture[str], **fields: Any) -> tuple[str, dict[str, Any]]:
    """The prompt as the model got it, and the answer."""
    body = {"messages": [USER], "max_tokens": 4, "temperature": 0, **fields}
    with client(server) as http:
        answer = http.post(CHAT, json=body)
    assert answer.status_code == 200, answer.text
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("clarion: prompt: ")]
    prompt: str = eval(lines[-1].removeprefix("clarion: prompt: "))
    return prompt.removeprefix("<|endoftext|>"), answer.json()


def test_what_the_model_gets(shown: Running, capfd: pytest.CaptureFixture[str]) -> None:
    def prompt(**fields: Any) -> str:
        return ask(shown, capfd, **fields)[0]

    assert prompt() == "user: Hi\nassistant:"
    assert prompt(chat_template_kwargs={"name": "wolf"}) == "user: Hi\nwolf:"
    assert prompt(reasoning_effort="low") == "user: Hi\neffort: low\nassistant:"
    assert prompt(enable_thinking=True).endswith("assistant:<think>\n")
    tool = {"type": "function", "function": {"name": "add"}}
    for choice in (None, "auto"):
        assert f"tools: {json.dumps([tool])}" in prompt(tools=[tool, {"type": "custom"}], tool_choice=choice)
    assert "tools" not in prompt(tools=[tool], tool_choice="none")
    begun = [USER, {"role": "assistant", "content": "Once"}]
    assert prompt(messages=begun) == "user: Hi\nassistant:Once"


def test_an_answer_that_begins_with_reasoning(shown: Running, capfd: pytest.CaptureFixture[str]) -> None:
    """The tiny model never closes its reasoning; the budget does."""
    _, answer = ask(shown, capfd, enable_thinking=True, max_tokens=12)
    message = answer["choices"][0]["message"]
    assert message["content"] == ""
    assert message["reasoning_content"]
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 12
    n = 4
    asked = {"enable_thinking": True, "max_tokens": 60, "ignore_eos": True, "thinking_budget": n}
    _, limited = ask(shown, capfd, **asked)
    message, usage = limited["choices"][0]["message"], limited["usage"]
    assert answer["choices"][0]["message"]["reasoning_content"].startswith(message["reasoning_content"])
    assert usage["completion_tokens_details"]["reasoning_tokens"] == n
    assert usage["completion_tokens"] == 60
    assert message["content"]
    model = shown.server.pool.find("tale").model
    assert model is not None
    text = model.apply_chat_template([USER], enable_thinking=True)
    head = model.tokenize(text, add_special=False, parse_special=True)
    thought = model.generate(head, max_tokens=n, greedy=True, ignore_eos=True).tokens
    mark = model.tokenize(closing(THINK), add_special=False, parse_special=True)
    rest = 60 - n - len(mark)
    expected = model.generate([*head, *thought, *mark], max_tokens=rest, greedy=True, ignore_eos=True)
    assert message["content"] == expected.text.lstrip("\n")
    with client(shown) as http:
        body = {"messages": [USER], "temperature": 0, "stream": True, **asked}
        deltas = [event["choices"][0]["delta"] for event in events(http.post(CHAT, json=body).text)]
    assert "".join(delta.get("content", "") for delta in deltas) == message["content"]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == message["reasoning_content"]


def test_without_reasoning(shown: Running, capfd: pytest.CaptureFixture[str]) -> None:
    _, answer = ask(shown, capfd, enable_thinking=True, thinking_budget=0, max_tokens=40)
    assert "reasoning_content" not in answer["choices"][0]["message"]
    assert answer["choices"][0]["message"]["content"]


def test_texts_are_in_the_log_only_where_it_is_said(
    chat_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with running([Served("tale", chat_model)], quiet=False) as server, client(server) as http:
        http.post(CHAT, json={"messages": [{"role": "user", "content": "secret"}], "max_tokens": 2})
        http.post(CHAT, json={"messages": [{"role": "secret", "content": 5}]})
        http.post("/v1/completions", json={"prompt": "secret", "max_tokens": -7})
    said = capfd.readouterr().err
    assert "secret" not in said
    lines = [line for line in said.splitlines() if "POST" in line]
    assert [line.split()[1:4] for line in lines] == [
        ["POST", CHAT, "200"],
        ["POST", CHAT, "400"],
        ["POST", "/v1/completions", "400"],
    ]
    assert lines[0].endswith("+ 2 tokens")
