"""`clarion chat` where nobody watches: lines of a pipe in, answers out."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

import clarion
from tests.cli.chats import CLARION, GREEDY, SECONDS, TEMPLATE, THINKS, model_with, piped
from tests.end_to_end.files import BUILT_IN
from tests.real_models import smollm2

Said = list[tuple[str, str]]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return model_with(tmp_path_factory.mktemp("chat") / "chat.gguf", chat_template=TEMPLATE)


def answers(path: str, *texts: str, system: str | None = None, n: int = 8) -> list[str]:
    """What the model answers, one after the other."""
    messages = [] if system is None else [{"role": "system", "content": system}]
    found = []
    with clarion.load(path) as model:
        for text in texts:
            messages.append({"role": "user", "content": text})
            found.append(model.chat(messages, greedy=True, max_tokens=n).text)
            messages.append({"role": "assistant", "content": found[-1]})
    return found


def printed(texts: list[str]) -> str:
    return "".join(text if text.endswith("\n") else text + "\n" for text in texts)


def saved(path: Path) -> Said:
    return [(m["role"], m["content"]) for m in json.loads(path.read_text())["messages"]]


def test_each_line_is_answered_in_the_light_of_what_was_said(path: str) -> None:
    result = piped(path, "Hello\nBye\n", *GREEDY)
    assert (result.returncode, result.stdout) == (0, printed(answers(path, "Hello", "Bye")))
    lines = result.stderr.splitlines()
    assert lines[0] == "clarion: sampling: max-tokens 8, greedy on"
    assert lines[1:] == ["clarion: the answer ends after 8 tokens, as max-tokens says"] * 2


def test_the_system_speaks_first(path: str) -> None:
    expected = printed(answers(path, "Hello", system="Be brief"))
    assert piped(path, "Hello\n", *GREEDY, "-sys", "Be brief").stdout == expected
    assert piped(path, "/system Be brief\nHello", *GREEDY).stdout == expected
    assert piped(path, "/system Be brief\n/system\n", *GREEDY).stdout == "Be brief\n"


def test_messages_of_several_lines(path: str, tmp_path: Path) -> None:
    typed = 'one \\\ntwo\n\n   \n"""three\n\\\nfour"""\n """\nfive\n"""\n /six\nseven\\'
    file = tmp_path / "saved"
    result = piped(path, typed, *GREEDY, "--session", str(file))
    assert result.returncode == 0
    expected = ["one \ntwo", "three\n\\\nfour", "five", "/six", "seven\\"]
    assert [text for role, text in saved(file) if role == "user"] == expected


def test_unicode_and_very_long_lines(path: str, tmp_path: Path) -> None:
    file = tmp_path / "saved"
    text = "\U0001f98a caf\u00e9 \u4f60\u597d " + "x" * 3000
    result = piped(path, f"\ufeff{text}\r\n", *GREEDY, "--session", str(file), "-c", "8000")
    assert result.returncode == 0
    assert saved(file)[0] == ("user", text)


def test_take_back_bring_back_and_edit(path: str, tmp_path: Path) -> None:
    file = tmp_path / "saved"
    piped(path, "a\nb\n/undo\n/redo\n/undo\n/edit c\n/regenerate\n", *GREEDY, "--session", str(file))
    (answer,) = answers(path, "c")
    assert saved(file) == [("user", "c"), ("assistant", answer)]


def test_save_and_load(path: str, tmp_path: Path) -> None:
    file = tmp_path / "a b.json"
    first, second = answers(path, "Hello", "Bye")
    result = piped(path, f"/set temp 0.5\n/system none\nHello\n/save '{file}'\n", *GREEDY)
    assert f"saved 1 exchange: {file}" in result.stderr
    document = json.loads(file.read_text())
    assert document["settings"] == {"greedy": True, "max_tokens": 8, "temperature": 0.5}
    result = piped(path, f"/load '{file}'\n/set temp\nBye\n")
    assert result.stdout == "temp 0.5\n" + printed([second])
    assert "you said last: Hello" in result.stderr
    assert saved(file) == [("user", "Hello"), ("assistant", first)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        ("", "no conversation that was saved"),
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("{}", "no conversation that was saved"),
        ('{"kind": "clarion chat", "version": 2}', '"version": found 2, expected 1'),
        ('{"kind": "clarion chat", "version": 1, "settings": []}', '"settings": found []'),
        ('{"kind": "clarion chat", "version": 1, "settings": {}}', "messages: found None"),
        (
            '{"kind": "clarion chat", "version": 1, "settings": {"temp": 1}, "messages": []}',
            '"settings": temp: unknown option; did you mean temperature?',
        ),
        (
            '{"kind": "clarion chat", "version": 1, "settings": {}, "messages": [{"role": "assistant"}]}',
            'messages[0]["content"]',
        ),
    ],
)
def test_files_that_are_no_conversations(path: str, tmp_path: Path, content: str | None, said: str) -> None:
    file = tmp_path / "file"
    if content is not None:
        file.write_text(content)
    for typed, more in ((f"/load {file}\n", []), ("", ["--session", str(file)])):
        if content is None and more:
            continue
        result = piped(path, typed, *more)
        assert (result.returncode, result.stdout) == (2, "")
        assert said in result.stderr.splitlines()[-1]
    if content is not None:
        assert file.read_text() == content  # what is no conversation is not replaced
        result = piped(path, f"/save {file}\n")
        assert "another kind of file is there" in result.stderr or content.startswith('{"kind"')


def test_a_file_that_cannot_be_written_is_said(path: str, tmp_path: Path) -> None:
    result = piped(path, f"/save {tmp_path}/nowhere/file\n")
    assert result.returncode == 2
    assert "there is no folder" in result.stderr


def test_a_session_goes_on(path: str, tmp_path: Path) -> None:
    file = tmp_path / "session"
    first, second = answers(path, "Hello", "Bye")
    assert piped(path, "Hello\n", *GREEDY, "--session", str(file)).stdout == printed([first])
    assert piped(path, "Bye\n", "--session", str(file)).stdout == printed([second])
    assert [text for _, text in saved(file)] == ["Hello", first, "Bye", second]
    # Nothing of the first exchange was computed again.
    result = piped(path, "Once more\n/stats\n", "--session", str(file))
    reused, all = map(int, re.findall(r"of the last prompt, (\d+) of (\d+) reused", result.stdout)[0])
    assert 20 < reused < all < reused + 30
    # What the command line says goes before what was saved.
    result = piped(path, "/set n\n/set\n", "--session", str(file), "-n", "3")
    assert result.stdout.startswith("max-tokens 3\n")


def test_what_was_computed_is_saved_where_that_is_wished(path: str, tmp_path: Path) -> None:
    file, states = tmp_path / "a", tmp_path / "a.state"
    piped(path, f"Hello\n/save {file}\n", *GREEDY)
    assert not states.exists()
    result = piped(path, f"Hello\n/save --state {file}\n", *GREEDY)
    assert "saved what was computed, " in result.stderr
    assert states.stat().st_size > 1000
    (second,) = answers(path, "Hello", "Bye")[1:]
    result = piped(path, f"/load {file}\nBye\n/stats\n")
    assert result.stdout.startswith(printed([second]))
    assert not re.search(r"of the last prompt, 0 of", result.stdout)
    states.write_bytes(b"x")
    result = piped(path, f"/load {file}\nBye\n")
    assert result.stdout == printed([second])
    assert "what was computed is not used: " in result.stderr


def test_a_session_that_cannot_be_written_is_said_before_anything_is(path: str, tmp_path: Path) -> None:
    result = piped(path, "Hello\n", "--session", f"{tmp_path}/nowhere/session")
    assert (result.returncode, result.stdout) == (2, "")
    assert "there is no folder" in result.stderr


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("/hepl", "did you mean /help? /help lists them"),
        ("/etc/hosts what is this?", "a message that begins with / stands behind a space"),
        ("/", "no such command"),
        ("/undo", "/undo: nothing was said yet"),
        ("/redo", "nothing was taken back"),
        ("/regenerate", "nothing was said yet"),
        ("/edit x", "nothing was said yet"),
        ("/undo 2", "found '2', expected nothing behind it"),
        ("/save", "found 0 names, expected FILE"),
        ("/save a b", "found 2 names"),
        ("/save 'a", "no closing quotation"),
        ("/load", "expected FILE"),
        ("/think loud", "found 'loud', expected show, fold or hide"),
        ("/set temprature 1", "did you mean temp"),
        ("/set temp hot", "temp: found 'hot', expected a number"),
        ("/set temp -1", "temperature: found -1.0"),
        ("/set top-k 1.5", "top-k: found '1.5', expected an integer"),
        ("/set greedy maybe", "greedy: found 'maybe', expected on or off"),
        ("/set logit-bias x", "--logit-bias: found 'x'"),
        ("/set stop 'a", "stop: found"),
        ("/set n 0", "max_tokens: found 0"),
        (b"\xff", "standard input, line 1: found byte 0xff at offset 0, expected UTF-8"),
    ],
)
def test_what_is_refused(path: str, typed: str | bytes, said: str) -> None:
    result = piped(path, typed)
    assert (result.returncode, result.stdout) == (2, "")
    last = result.stderr.splitlines()[-1]
    assert last.startswith("clarion: ")
    assert said.lower() in last.lower()
    assert "internal error" not in last


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([str(BUILT_IN)], "no chat template (tokenizer.chat_template): clarion run --raw continues"),
        ([], "no chat template"),
        (["nowhere.gguf"], "nowhere.gguf"),
        (["CHAT", "CHAT"], "more than one model"),
        (["CHAT", "--temp", "-1"], "temperature: found -1.0"),
        (["CHAT", "-n", "0"], "max_tokens: found 0"),
        (["CHAT", "--think", "loud"], "expected one of show, fold, hide"),
        (["CHAT", "--chat-template", "nowhere"], "no chat template named 'nowhere'"),
        (["CHAT", "--chat-template-kwargs", "{"], "no JSON"),
        (["CHAT", "-p", "x"], "messages are typed"),
        (["CHAT", "--raw"], "No such option"),
        (["CHAT", "-no-cnv"], "clarion run --raw"),
    ],
)
def test_command_lines_that_are_refused(path: str, arguments: list[str], said: str) -> None:
    words = [path if word == "CHAT" else word for word in arguments]
    done = subprocess.run(
        [*CLARION, "chat", *words], input="Hello\n", capture_output=True, text=True, timeout=SECONDS
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_a_given_template_makes_a_chat_of_any_model() -> None:
    assert piped(str(BUILT_IN), "Hello\n", *GREEDY, "--chat-template", TEMPLATE).stdout.strip()
    assert piped(str(BUILT_IN), "Hello\n", *GREEDY, "-cnv", "--chat-template", TEMPLATE).stdout.strip()


def test_options_are_shown_and_changed(path: str) -> None:
    result = piped(path, "/set\n/set top_k 7\n/set TOP-K\n/set top-k default\n/set top-k\n/set greedy off\n")
    assert "clarion: sampling: temp 0.8, top-k 40, top-p 0.95, min-p 0.05" in result.stderr
    lines = result.stdout.splitlines()
    assert lines[-2:] == ["top-k 7", "top-k 40"]
    shown = {line.split()[0] for line in lines[:-2]}
    assert {"temp", "max-tokens", "logit-bias", "stop", "seed", "dry-multiplier"} <= shown
    for typed, expected in (
        ("/set stop 'a b' c\n/set stop", "stop 'a b' 'c'"),
        ("/set logit-bias 5-inf\n/set logit-bias", "logit-bias 5-inf"),
        ("/set seed 5\n/set seed -1\n/set seed", "seed random"),
        ("/set --temp 0.25\n/set temperature", "temp 0.25"),
    ):
        assert piped(path, typed).stdout.splitlines()[-1] == expected


def test_a_file_recommends_options(tmp_path: Path) -> None:
    import numpy as np

    path = model_with(
        tmp_path / "chat.gguf",
        chat_template=TEMPLATE,
        general__sampling__temp=np.float32(0.6),
        general__sampling__top_k=np.int32(20),
    )
    result = piped(path, "/set top-k 5\n/set top-k default\n/set top-k\n", "--min-p", "0")
    assert "sampling: temp 0.6 (file), top-k 20 (file), top-p 0.95, min-p 0" in result.stderr
    assert result.stdout == "top-k 20 (file)\n"
    assert "sampling: temp 1, top-k 20 (file)" in piped(path, "", "--temp", "1").stderr
    keys = {"chat_template": TEMPLATE, "general__sampling__top_p": np.float32(7)}
    result = piped(model_with(tmp_path / "bad.gguf", **keys), "Hello\n", *GREEDY)
    assert result.returncode == 0
    assert "general.sampling.top_p: found 7.0" in result.stderr


def test_reasoning_is_hidden_folded_or_shown(tmp_path: Path) -> None:
    path = model_with(tmp_path / "chat.gguf", chat_template=THINKS)
    session = tmp_path / "session"
    result = piped(path, "Hello\n", *GREEDY, "--session", str(session))
    assert result.stdout == ""
    message = json.loads(session.read_text())["messages"][1]
    assert message["content"] == ""
    assert message["reasoning_content"].strip()
    shown = piped(path, "Hello\n", *GREEDY, "--think", "show")
    assert shown.stdout.strip("\n") == message["reasoning_content"].strip("\n")
    folded = piped(path, "/think fold\nHello\n", *GREEDY)
    assert folded.stdout == ""
    assert ", 8 tokens" in folded.stderr


def test_a_context_that_is_full(path: str) -> None:
    result = piped(path, "Hello\nBye\n", "--greedy", "--ignore-eos", "-c", "64")
    assert result.returncode == 2
    assert "the context is full, 64 of 64 tokens: the answer ends here" in result.stderr
    last = result.stderr.splitlines()[-1]
    assert "leaves no room in the context of 64: /undo takes back the last exchange, /clear all" in last
    assert "made for 2048" in last
    result = piped(path, "one two three four five " * 20 + "\n", "-c", "16")
    assert "the message takes" in result.stderr
    assert "/undo" not in result.stderr


def test_the_oldest_is_dropped_where_that_is_wished(path: str, tmp_path: Path) -> None:
    file = tmp_path / "session"
    arguments = ["--greedy", "--ignore-eos", "-c", "64", "--drop-oldest", "-sys", "Be brief"]
    result = piped(path, "Hello\nBye\n", *arguments, "--session", str(file))
    assert result.returncode == 0
    assert "the context is full: forgot the oldest exchange (Hello)" in result.stderr
    said = saved(file)
    assert said[:2] == [("system", "Be brief"), ("user", "Bye")]
    with clarion.load(path, context=64) as model:
        messages = [{"role": role, "content": text} for role, text in said[:2]]
        assert said[2][1] == model.chat(messages, greedy=True, ignore_eos=True).text


def test_statistics(path: str) -> None:
    result = piped(path, "Hello\n/stats\n/model\n", *GREEDY, "--stats")
    assert "generation 8 tokens" in result.stderr
    assert "of 2048 tokens, 1 exchange" in result.stdout
    assert "0 of 12 reused" in result.stdout
    assert os.path.basename(path) in result.stdout


def test_names_of_control_tokens_are_said(path: str) -> None:
    result = piped(path, "What is <|endoftext|>?\n", *GREEDY)
    assert "the message holds <|endoftext|>, read as control tokens" in result.stderr


def test_a_pipe_that_closes(path: str) -> None:
    command = [*CLARION, "chat", path, "--greedy", "--ignore-eos", "-c", "2000"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"Hello\nBye\n")
        process.stdin.flush()
        assert process.stdout.read(1)
        process.stdout.close()
        assert process.wait(SECONDS) == 141


def test_an_interrupt_ends_a_script(path: str, tmp_path: Path) -> None:
    file = tmp_path / "session"
    command = [*CLARION, "chat", path, "--ignore-eos", "-c", "60000", "--session", str(file)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,  # what is read here and what communicate reads are all of it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"Hello\n")
        process.stdin.flush()
        text = process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert b"interrupted: what was written stays" in err
    (_, (role, content)) = saved(file)
    assert role == "assistant"
    assert content.rstrip("\n") == (text + rest).decode().rstrip("\n")


def test_a_real_model() -> None:
    path = str(smollm2())
    result = piped(path, "What is the capital of France?\nAnd of Italy?\n/stats\n", "--greedy", "-n", "30")
    assert result.returncode == 0
    assert "Paris" in result.stdout
    assert "Rome" in result.stdout
    reused = result.stdout.rpartition("of the last prompt, ")[2].split()[0]
    assert int(reused) > 30  # the first exchange is not computed again
