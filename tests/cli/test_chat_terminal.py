"""`clarion chat` at a terminal: what a person types, sees and interrupts."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from tests.cli.chats import GREEDY, READY, TEMPLATE, THINKS, Terminal, model_with
from tests.real_models import smollm2

# An answer that lasts as long as the test needs.
ENDLESS = ["--greedy", "--ignore-eos", "-c", "60000"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return model_with(tmp_path_factory.mktemp("chat") / "chat.gguf", chat_template=TEMPLATE)


@pytest.fixture(scope="module")
def thinks(tmp_path_factory: pytest.TempPathFactory) -> str:
    return model_with(tmp_path_factory.mktemp("chat") / "thinks.gguf", chat_template=THINKS)


def saved(path: Path) -> list[tuple[str, str]]:
    return [(m["role"], m["content"]) for m in json.loads(path.read_text())["messages"]]


def test_talking_and_leaving(path: str, tmp_path: Path) -> None:
    with Terminal(tmp_path, path, *GREEDY) as terminal:
        terminal.expect(r"chat.gguf: llama, \d+M parameters, context 2048")
        terminal.expect("sampling: max-tokens 8, greedy on")
        terminal.expect("/help lists the commands, Ctrl-D or /quit leaves")
        terminal.say("Hello")
        terminal.expect("as max-tokens says")
        terminal.say("/help")
        terminal.expect("Alt-Enter")
        terminal.expect(READY)
        terminal.type("\x04")
        assert terminal.close() == 0
    with Terminal(tmp_path, path) as terminal:
        terminal.say("/quit")
        assert terminal.close() == 0


def test_ctrl_c_ends_the_answer_and_keeps_the_chat(path: str, tmp_path: Path) -> None:
    file = tmp_path / "saved"
    with Terminal(tmp_path, path, *ENDLESS) as terminal:
        terminal.say("Hello")
        terminal.expect(r"\w+ \w+ \w+ \w+")
        terminal.type("\x03")
        terminal.expect("interrupted: what was written stays")
        terminal.expect(READY)
        terminal.type("\x03")
        terminal.expect("Ctrl-D or /quit leaves")
        terminal.say("/set n 8")
        terminal.say("Bye")
        terminal.expect("as max-tokens says")
        terminal.say(f"/save {file}")
        terminal.expect("saved 2 exchanges")
        terminal.say("/quit")
        assert terminal.close() == 0
        shown = terminal.text
    said = saved(file)
    assert [said[0], said[2]] == [("user", "Hello"), ("user", "Bye")]
    assert said[1][1].split("\n")[0] in shown
    assert 10 < len(said[1][1]) < 100_000


def test_ctrl_c_drops_what_is_typed(path: str, tmp_path: Path) -> None:
    file = tmp_path / "saved"
    with Terminal(tmp_path, path, *GREEDY, "--session", str(file)) as terminal:
        terminal.expect(READY)
        terminal.type("not this")
        terminal.expect("not this")
        terminal.type("\x03")
        terminal.type("but this\r")
        terminal.expect("as max-tokens says")
        terminal.say("/quit")
        assert terminal.close() == 0
        assert "Ctrl-D or /quit leaves" not in terminal.text.partition("not this")[2]
    assert saved(file)[0] == ("user", "but this")


def test_ctrl_c_before_the_answer_takes_the_message_back(path: str, tmp_path: Path) -> None:
    file = tmp_path / "saved"
    text = "There was once a miller who had three sons. " * 600
    with Terminal(tmp_path, path, *ENDLESS, "-b", "16", "--session", str(file)) as terminal:
        terminal.expect(READY)
        terminal.type(f"\x1b[200~{text}\x1b[201~\r")
        terminal.expect(r"prompt .*\d+/\d+")
        terminal.type("\x03")
        terminal.expect("nothing was written; your message is taken back")
        terminal.say("/quit")
        assert terminal.close() == 0
    assert saved(file) == []


def test_several_lines(path: str, tmp_path: Path) -> None:
    file = tmp_path / "saved"
    with Terminal(tmp_path, path, *GREEDY, "--session", str(file)) as terminal:
        for typed in (
            "one\x1b\rtwo",
            "three\\\rfour",
            '"""five\rsix"""',
            "\x1b[200~seven\neight\\\n\x1b[201~9",
        ):
            terminal.say(typed)
            terminal.expect("as max-tokens says")
        terminal.say("/quit")
        assert terminal.close() == 0
    said = [text for role, text in saved(file) if role == "user"]
    assert said == ["one\ntwo", "three\nfour", "five\nsix", "seven\neight\\\n9"]


def test_editing_again_and_back(path: str, tmp_path: Path) -> None:
    file = tmp_path / "saved"
    with Terminal(tmp_path, path, *GREEDY, "--session", str(file)) as terminal:
        terminal.say("Helo")
        terminal.expect("as max-tokens says")
        terminal.say("/edit")
        terminal.expect("> Helo")
        terminal.type("\x7flo\r")  # Backspace
        terminal.expect("as max-tokens says")
        terminal.say("\x1b[A")  # Up: what was edited
        terminal.expect("as max-tokens says")
        terminal.say("/undo")
        terminal.expect("taken back: H")
        terminal.say("/regenerate")
        terminal.expect("the same options draw the same answer")
        terminal.expect("as max-tokens says")
        terminal.say("/undp")
        terminal.expect("did you mean /undo?")
        terminal.say("/quit")
        assert terminal.close() == 0
    assert [text for role, text in saved(file) if role == "user"] == ["Hello"]


def test_what_was_typed_is_there_in_the_next_chat(path: str, tmp_path: Path) -> None:
    with Terminal(tmp_path, path, *GREEDY) as terminal:
        terminal.say("Hello \U0001f98a")
        terminal.expect("as max-tokens says")
        terminal.say("/quit")
        terminal.close()
    history = tmp_path / "clarion" / "chat-history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert "+Hello \U0001f98a" in history.read_text()
    before = history.read_text()
    with Terminal(tmp_path, path, *GREEDY, "--no-history") as terminal:
        terminal.say("secret")
        terminal.expect("as max-tokens says")
        terminal.say("/quit")
        terminal.close()
    assert history.read_text() == before
    with Terminal(tmp_path, path, *GREEDY) as terminal:
        terminal.expect(READY)
        terminal.type("\x1b[A\x1b[A")
        terminal.expect("Hello \U0001f98a")
        terminal.type("\r")
        terminal.expect("as max-tokens says")


def test_a_history_that_cannot_be_kept_is_said(path: str, tmp_path: Path) -> None:
    (tmp_path / "clarion").touch()
    with Terminal(tmp_path, path, *GREEDY) as terminal:
        terminal.expect("inputs cannot be kept")
        terminal.say("Hello")
        terminal.expect("as max-tokens says")


def test_tab_completes(path: str, tmp_path: Path) -> None:
    with Terminal(tmp_path, path) as terminal:
        (tmp_path / "other.json").touch()
        for typed, completed, then in (
            ("/reg", "/regenerate", "/regenerate: nothing was said yet"),
            ("/set repeat-p", "repeat-penalty", "repeat-penalty 1\n"),
            (f"/load {tmp_path}/oth", "other.json", "other.json: no conversation that was saved"),
        ):
            terminal.expect(READY)
            terminal.type(f"{typed}\t")
            terminal.expect(completed)
            terminal.type("\r")
            terminal.expect(then)


def test_keys_pressed_during_an_answer_are_for_the_next_message(path: str, tmp_path: Path) -> None:
    file = tmp_path / "saved"
    with Terminal(tmp_path, path, *ENDLESS, "--session", str(file)) as terminal:
        terminal.say("Hello")
        terminal.expect(r"\w+ \w+")
        terminal.type("/set n 3\r")
        terminal.type("\x03")
        terminal.expect("interrupted")
        terminal.expect("max-tokens 3")
        terminal.say("/quit")
        assert terminal.close() == 0
    assert "/set" not in str(saved(file))


def test_reasoning_is_folded(thinks: str, tmp_path: Path) -> None:
    with Terminal(tmp_path, thinks, "--greedy", "--ignore-eos", "-n", "40") as terminal:
        terminal.say("Hello")
        terminal.expect(r"thought for \d+\.\d s, 40 tokens")
        assert "\x1b[2m" in terminal.raw.decode()
        terminal.say("/think show")
        terminal.say("/regenerate")
        terminal.expect("as max-tokens says")
        assert terminal.text.count("thought for") == 1
        terminal.say("/think hide")
        terminal.say("/regenerate")
        hidden = terminal.expect("another one\n(.*)the answer ends")
        assert hidden[1] == ""


def test_ctrl_c_while_the_model_thinks(thinks: str, tmp_path: Path) -> None:
    file = tmp_path / "saved"
    with Terminal(tmp_path, thinks, *ENDLESS, "--session", str(file)) as terminal:
        terminal.say("Hello")
        terminal.expect(r"\w+ \w+ \w+")
        terminal.resize(10, 40)
        terminal.type("\x03")
        terminal.expect(r"thought for \d+\.\d s, \d+ tokens")
        terminal.expect("interrupted: what was written stays")
        terminal.say("/quit")
        assert terminal.close() == 0
    assert len(json.loads(file.read_text())["messages"][1]["reasoning_content"]) > 5


def test_a_narrow_terminal_that_changes(path: str, tmp_path: Path) -> None:
    with Terminal(tmp_path, path, *GREEDY, rows=5, columns=20) as terminal:
        terminal.expect(READY)
        terminal.type("a very long line " * 20)
        terminal.resize(40, 200)
        terminal.type("\r")
        terminal.expect("as max-tokens says")
        terminal.expect(READY)
        terminal.resize(1, 1)
        terminal.resize(24, 80)
        terminal.type("/quit\r")
        assert terminal.close() == 0


def test_a_real_model(tmp_path: Path) -> None:
    with Terminal(tmp_path, str(smollm2()), "--greedy") as terminal:
        terminal.say("What is the capital of France?")
        terminal.expect("The capital of France is Paris")
        terminal.expect(READY)
        terminal.type("Tell me a very long story about a fox.\r")
        terminal.expect(r"about a fox\.\n.*\w+ \w+ \w+ \w+ \w+")
        terminal.type("\x03")
        terminal.expect("interrupted")
        terminal.say("/undo")
        terminal.expect("taken back: Tell me")
        terminal.say("/stats")
        terminal.expect(r"context \d+ of 4096 tokens, 1 exchange")
