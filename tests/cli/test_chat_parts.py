"""What a chat is made of, by itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarion.cli.chatting.commands import COMMANDS, complete
from clarion.cli.chatting.lines import goes_on, message, next_line
from clarion.cli.chatting.screen import Screen, TerminalScreen, harmless
from clarion.cli.chatting.settings import Settings, names
from clarion.conversation.reasoning import Part
from clarion.errors import ParameterError


@given(st.text(alphabet='a"\\\n '))
def test_a_text_in_quotes_is_what_stands_in_them(text: str) -> None:
    if '"""' in text or text.endswith('"') or text.startswith('"'):
        return
    assert not goes_on(f'"""{text}"""')
    assert goes_on(f'"""{text}')
    assert message(f'"""\n{text}\n"""') == text


@pytest.mark.parametrize(
    ("text", "more", "then"),
    [
        ("a", False, "a\n"),
        ("a\\", True, "a\n"),
        ('"""a\\', True, '"""a\\\n'),
        ('"""', True, '"""\n'),
        ('""""""', False, '""""""\n'),
        ('say """x', False, 'say """x\n'),
    ],
)
def test_lines_that_go_on(text: str, more: bool, then: str) -> None:
    assert goes_on(text) == more
    assert next_line(text) == then


def test_no_two_commands_have_one_name() -> None:
    names = [name for command in COMMANDS for name in command.names]
    assert len(set(names)) == len(names)


def test_completion(tmp_path: Path) -> None:
    assert complete("/re") == ["/redo", "/regenerate"]
    assert complete("re") == []
    assert complete("/set TEM") == ["temp"]
    assert complete("/set temp 0") == []
    assert complete("/think ") == ["show", "fold", "hide"]
    (tmp_path / "x[1].json").touch()
    (tmp_path / "xs").mkdir()
    found = complete(f"/load {tmp_path}/x")
    assert found == [f"{tmp_path}/x[1].json", f"{tmp_path}/xs{os.sep}"]


def test_every_option_of_the_command_line_can_be_set() -> None:
    settings = Settings({}, {})
    values = {"stop": "x", "dry-breaker": "x", "logit-bias": "5+1", "greedy": "on", "ignore-eos": "on"}
    for name in names():
        settings.set(name, values.get(name, "1"))
        assert settings.show(name) != f"{name} "
        settings.set(name, "default")
    assert settings.options == {}


def test_an_option_that_is_refused_changes_nothing() -> None:
    settings = Settings({"top_k": 20}, {"temperature": 0.5})
    for name, value in (("temp", "-1"), ("top-k", "x"), ("nothing", "1"), ("top-p", "2")):
        with pytest.raises(ParameterError):
            settings.set(name, value)
    with pytest.raises(ParameterError):
        settings.replace({"temperature": 1.0, "top_p": 7})
    assert settings.options == {"top_k": 20, "temperature": 0.5}
    settings.replace({"logit_bias": {"5": -1.0}, "stop": ["x"]})
    assert settings.options["logit_bias"] == {5: -1.0}


def test_a_model_cannot_take_hold_of_the_terminal() -> None:
    assert (
        harmless("a\x1b[2Jb\x07\x9bc\r\n\td\u00e9\U0001f98a")
        == "a\ufffd[2Jb\ufffd\ufffdc\n\td\u00e9\U0001f98a"
    )


@pytest.mark.parametrize("kind", [Screen, TerminalScreen])
def test_reasoning_and_answer_are_apart(
    kind: type[Screen], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = kind("show")
    with screen.answering():
        for part in (
            Part("reasoning", "Hm"),
            Part("reasoning", "."),
            Part("answer", "Yes"),
            Part("answer", "."),
        ):
            screen.part(part)
    out = capsys.readouterr().out.replace("\x1b[2m", "").replace("\x1b[0m", "")
    assert out == "Hm.\n\nYes.\n"
    screen.think = "hide"
    with screen.answering():
        screen.part(Part("reasoning", "Hm"))
        screen.thought(1, 0.0)
        screen.part(Part("answer", "Yes.\n"))
    assert capsys.readouterr() == ("Yes.\n", "")


def test_no_colour_where_nobody_wants_any(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for expected in ("\x1b[2mx\x1b[0m", "x"):
        TerminalScreen("show").part(Part("reasoning", "x"))
        assert capsys.readouterr().out == expected
        monkeypatch.setenv("NO_COLOR", "1")


def test_reasoning_vanishes_where_it_is_folded(capsys: pytest.CaptureFixture[str]) -> None:
    screen = TerminalScreen("fold")
    with screen.answering():
        screen.part(Part("reasoning", "Hm"))
        screen.thought(212, 3.21)
        screen.part(Part("answer", "Yes."))
    out, err = capsys.readouterr()
    assert out.endswith("Yes.\n")
    assert "thought for 3.2 s, 212 tokens" in err
