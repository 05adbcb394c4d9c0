"""Tools of a real server, which a model calls."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import clarion
from clarion.cli.chatting.app import Chat
from clarion.cli.chatting.calling import Calling
from clarion.cli.chatting.screen import Screen
from clarion.cli.chatting.servers import Server, Tools, servers
from clarion.cli.chatting.settings import Settings
from clarion.cli.chatting.talk import Talk
from clarion.conversation.history import History
from clarion.errors import ClarionError, TemplateError
from tests.cli.chats import CLARION, SECONDS, TEMPLATE, Terminal
from tests.cli.scripted import Scripted
from tests.end_to_end.files import BUILT_IN
from tests.real_models import smollm2

pytest.importorskip("mcp")
SERVER = """\
import sys

from mcp.server import MCPServer

print("the server of sums starts", file=sys.stderr)
app = MCPServer("sums")


@app.tool()
def add(a: float, b: float) -> str:
    "Adds two numbers."
    return str(a + b)


@app.tool()
def leave() -> str:
    "Ends the server."
    import os

    os._exit(3)


app.run()
"""
# Teaches calls, and repeats the one that it wants so often that any model goes on with it.
TEACHES = """\
{%- if tools -%}{%- endif -%}
{%- if messages[-1].role == 'tool' -%}
{% for i in range(4) %}The sum is {{ messages[-1].content }}.
{% endfor %}
{%- else -%}
{% for i in range(6) %}<tool_call>{"name": "add", "arguments": {"a": 17, "b": 25}}</tool_call>
{% endfor %}
{%- endif -%}
"""
TAGS = "{% if tools %}{{ '<tool_call>' }}{% endif %}" + TEMPLATE
ADD = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>'


class Typist:
    """Answers questions as it was told; "\\x03" is Ctrl-C."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def read(self) -> str | None:
        return None

    def edit(self, text: str) -> str | None:
        return None

    def ask(self, question: str) -> str:
        self.asked.append(question)
        answer = self.answers.pop(0)
        if answer == "\x03":
            raise KeyboardInterrupt
        return answer


@pytest.fixture(scope="module")
def model() -> Iterator[clarion.Model]:
    with clarion.load(context=600) as model:
        yield model


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("server") / "sums.py"
    path.write_text(SERVER)
    return path


@pytest.fixture
def tools(script: Path) -> Iterator[Tools]:
    with Tools([Server("sums", sys.executable, (str(script),))]) as tools:
        yield tools


def talk(
    model: clarion.Model, tools: Tools, typist: Typist, *texts: str, **more: Any
) -> tuple[Chat, Scripted]:
    """A chat in which the model writes these texts."""
    scripted = Scripted(model, *texts)
    talk = Talk(scripted, History(), Settings({}, {}), template=TAGS)  # type: ignore[arg-type]
    calling = Calling(tools, without_asking=more.pop("without_asking", False))
    return Chat(talk, typist, Screen("hide"), watched=True, calling=calling), scripted


def said(chat: Chat) -> list[tuple[str, str]]:
    return [(m["role"], m["content"]) for m in chat.talk.history.as_json()]


def test_a_call_and_its_result(
    model: clarion.Model, tools: Tools, capsys: pytest.CaptureFixture[str]
) -> None:
    typist = Typist("y")
    chat, scripted = talk(model, tools, typist, f"I add.\n{ADD}", "It is 3.")
    chat.say("1 + 2?")
    assert typist.asked == ["call add(a=1, b=2)? yes, no or always: "]
    assert said(chat) == [
        ("user", "1 + 2?"),
        ("assistant", "I add."),
        ("tool", "3.0"),
        ("assistant", "It is 3."),
    ]
    assert "tool: 3.0\nassistant:" in scripted.prompts[1]
    assert capsys.readouterr().out == "I add.\nIt is 3.\n"  # the question says what is called
    chat.talk.history.undo()
    assert said(chat) == []


def test_asking_ends_with_always(model: clarion.Model, tools: Tools) -> None:
    typist = Typist("no", "always")
    chat, _ = talk(model, tools, typist, ADD + ADD, ADD, "Done.")
    chat.say("Add")
    assert len(typist.asked) == 2
    assert [text for role, text in said(chat) if role == "tool"] == [
        "error: the user does not allow this call",
        "3.0",
        "3.0",
    ]
    chat, _ = talk(model, tools, Typist(), ADD, "Done.", without_asking=True)
    chat.say("Add")
    assert ("tool", "3.0") in said(chat)


def test_what_goes_wrong_is_told_to_the_model(
    model: clarion.Model, tools: Tools, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = [
        ADD.replace('"add"', '"nothing"'),
        ADD.replace('"a": 1', '"a": "x"'),
        "<tool_call>{</tool_call>",
        '<tool_call>{"name": "leave"}</tool_call>',
        ADD,
    ]
    chat, _ = talk(model, tools, Typist(), *calls, "So be it.", without_asking=True)
    chat.say("Add")
    results = [text for role, text in said(chat) if role == "tool"]
    assert "there is no tool 'nothing'; there are: add, leave" in results[0]
    assert "valid number" in results[1]
    assert "cannot be read: it is no JSON" in results[2]
    assert all(result.startswith("error: ") for result in results)
    assert said(chat)[-1] == ("assistant", "So be it.")
    assert "result: " not in capsys.readouterr().err


def test_ctrl_c_keeps_what_there_is(model: clarion.Model, tools: Tools) -> None:
    chat, _ = talk(model, tools, Typist("y", "\x03"), ADD + ADD + ADD, "Never said.")
    chat.say("Add")
    results = [text for role, text in said(chat) if role == "tool"]
    assert results == ["3.0", "error: the user interrupted the call", "error: the user interrupted the calls"]
    chat, _ = talk(model, tools, Typist("y"), ADD, "It\x03")
    chat.say("Add")
    assert said(chat)[-1] == ("assistant", "It")
    chat, _ = talk(model, tools, Typist("y"), ADD, "\x03")
    chat.say("Add")
    assert [role for role, _ in said(chat)] == ["user", "assistant", "tool", "assistant"]
    chat, _ = talk(model, tools, Typist(), f"{ADD}\x03")
    chat.say("Add")
    assert [role for role, _ in said(chat)] == ["user", "assistant"]
    assert "tool_calls" not in chat.talk.history.as_json()[1]


def test_tools_are_listed(model: clarion.Model, tools: Tools, capsys: pytest.CaptureFixture[str]) -> None:
    chat, _ = talk(model, tools, Typist())
    chat._take("/tools")
    assert "add (sums, asks first): Adds two numbers.\n" in capsys.readouterr().out
    assert chat.talk.tools == tools.descriptions
    assert tools.descriptions[0]["function"]["parameters"]["properties"].keys() == {"a", "b"}


def test_a_template_that_teaches_no_calls(model: clarion.Model, tools: Tools) -> None:
    of = Talk(model, History(), Settings({}, {}), template=TEMPLATE)
    with pytest.raises(TemplateError, match="teaches no calls"):
        Chat(of, Typist(), Screen("hide"), watched=True, calling=Calling(tools, without_asking=False))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "no JSON"),
        ("[]", 'found no object "mcpServers"'),
        ('{"mcpServers": {"a": 1}}', "mcpServers.a: found 1"),
        ('{"mcpServers": {"a": {}}}', "mcpServers.a.command: found None"),
        ('{"mcpServers": {"a": {"url": "http://x"}}}', "only commands"),
        ('{"mcpServers": {"a": {"command": "x", "args": [1]}}}', "mcpServers.a.args"),
        ('{"mcpServers": {"a": {"command": "x", "env": {"A": 1}}}}', "mcpServers.a.env"),
        ('{"mcpServers": {"a": {"command": "x", "cwd": 1}}}', "mcpServers.a.cwd"),
    ],
)
def test_files_of_servers_that_are_wrong(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "servers.json"
    path.write_text(content)
    with pytest.raises(ClarionError) as error:
        servers([str(path)])
    assert str(path) in str(error.value)
    assert said in str(error.value)


def test_servers_of_the_command_line_and_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "servers.json"
    listed = {"files": {"command": "x", "args": ["a b"], "env": {"A": "1"}, "cwd": "/tmp"}}
    path.write_text(json.dumps({"mcpServers": listed}))
    assert servers(["run 'a b' c", str(path)]) == [
        Server("run", "run", ("a b", "c")),
        Server("files", "x", ("a b",), {"A": "1"}, "/tmp"),
    ]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("no-such-command-here", "No such file or directory"),
        (f"{sys.executable} -c 'import no_such_module'", "No module named 'no_such_module'"),
        ("'", "no closing quotation"),
        ("nowhere.json", "nowhere.json: cannot be read"),
    ],
)
def test_servers_that_do_not_start(command: str, said: str) -> None:
    words = [*CLARION, "chat", str(BUILT_IN), "--chat-template", TAGS, "--mcp", command]
    done = subprocess.run(words, input="Hello\n", capture_output=True, text=True, timeout=SECONDS)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert said in line


def test_two_tools_of_one_name(script: Path) -> None:
    twice = [Server(name, sys.executable, (str(script),)) for name in ("one", "two")]
    with pytest.raises(ClarionError, match="two: its tool add has the name of one of one"):
        Tools(twice)


def test_a_real_model_calls(script: Path, tmp_path: Path) -> None:
    arguments = ["--greedy", "-n", "60", "--stop", "\n", "--chat-template", TEACHES]
    arguments += ["--mcp", f"{sys.executable} {script}"]
    with Terminal(tmp_path, str(smollm2()), *arguments) as terminal:
        terminal.say("What is 17 + 25?")
        terminal.expect(r"call add\(a=17, b=25\)\? yes, no or always: ")
        terminal.type("y\r")
        terminal.expect("result: 42.0\nThe sum is 42.0.")
        terminal.say("/quit")
        assert terminal.close() == 0
        assert "the server of sums starts" not in terminal.text
