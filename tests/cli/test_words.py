"""What the first word of a command line means."""

from __future__ import annotations

import shutil
from pathlib import Path

import click
import pytest

import clarion
from clarion.cli.main import _HOMES, _OPTIONS, execute
from clarion.cli.words import ELSEWHERE, command_line
from tests.end_to_end.files import BUILT_IN

END = ["-n", "3", "--greedy"]


def words(*given: str) -> list[str]:
    return command_line(given, _HOMES, _OPTIONS)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ([], []),
        (["run", "x"], ["run", "x"]),
        (["doctor"], ["doctor"]),
        (["--help"], ["--help"]),
        (["-h"], ["-h"]),
        (["--version"], ["--version"]),
        (["-V"], ["--version"]),
        (["-v"], ["--version"]),
        (["-v", "-p", "x"], ["run", "-v", "-p", "x"]),
        (["version"], ["--version"]),
        (["help"], ["--help"]),
        (["help", "run"], ["run", "--help"]),
        (["help", "help"], ["--help"]),
        (["help", "version"], ["--help"]),
        (["help", "--help"], ["--help"]),
        (["x.gguf"], ["run", "x.gguf"]),
        (["X.GGUF", "-p", "y"], ["run", "X.GGUF", "-p", "y"]),
        (["./x.gguf", "-p", "y"], ["run", "./x.gguf", "-p", "y"]),
        ([__file__, "y"], ["run", __file__, "y"]),
        (["-m", "x.gguf", "-p", "y"], ["run", "-m", "x.gguf", "-p", "y"]),
        (["-p", "y"], ["run", "-p", "y"]),
        (["-hf", "x"], ["run", "-hf", "x"]),
        (["Once upon a time"], ["run", "Once upon a time"]),
        (["Once upon a time", "-n", "5"], ["run", "Once upon a time", "-n", "5"]),
        (["--debug", "doctor"], ["doctor", "--debug"]),
        (["--debug", "run", "x"], ["run", "--debug", "x"]),
    ],
)
def test_what_is_meant(given: list[str], meant: list[str]) -> None:
    assert words(*given) == meant


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("rum", "did you mean run?"),
        ("Run", "did you mean run?"),
        ("tokenise", "clarion tokenize"),
        ("quantise", "did you mean quantize?"),
        ("server", "use clarion serve MODEL"),
        ("download", "use clarion pull NAME"),
        ("ls", "use clarion list"),
        ("stop", "clarion serve ends with Ctrl-C"),
        ("metadata", "clarion inspect"),
        ("perplexity", "clarion eval"),
        ("Hello", "clarion run Hello"),
        ("llama3.2", "clarion pull llama3.2"),
        ("owner/name", "clarion convert owner/name out.gguf"),
        ("https://hf.co/owner/name", "an address"),
        ("help", None),
        ("", "it is empty"),
        ("/", "this is a folder, not a model"),
        ("\udcff", "\\xff"),
    ],
)
@pytest.mark.parametrize("before", [[], ["help"]])
def test_commands_that_are_not_there(
    before: list[str], given: str, said: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if said is None:
        return
    assert execute([*before, given]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("clarion: No such command ")
    assert said in line
    for command in _HOMES:
        assert command in line.rpartition("commands: ")[2]


def test_no_hint_is_a_command_that_is_there() -> None:
    assert not set(ELSEWHERE) & set(_HOMES)
    with pytest.raises(click.UsageError, match="use clarion serve MODEL"):
        words("server", "--port", "80")


def test_a_file_does_not_hide_the_command_of_another_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dump").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(click.UsageError, match="clarion inspect"):
        words("dump")


def test_a_model_runs_without_the_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(BUILT_IN, "model.gguf")
    assert execute(["run", "Once upon a time", *END]) == 0
    expected = capsys.readouterr().out
    for arguments in (
        ["model.gguf", "Once upon a time"],
        ["model.gguf", "-p", "Once upon a time"],
        ["-m", "model.gguf", "-p", "Once upon a time"],
        ["-p", "Once upon a time", "-m", "model.gguf"],
        ["Once upon a time"],
        ["run", "-m", "model.gguf", "Once upon a time"],
    ):
        assert execute([*arguments, *END]) == 0
        assert capsys.readouterr().out == expected


def test_help_and_version_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    for command in _HOMES:
        assert execute([command, "--help"]) == 0
        expected = capsys.readouterr().out
        assert execute(["help", command]) == 0
        assert capsys.readouterr().out == expected
    for arguments in (["version"], ["--version"], ["-V"]):
        assert execute(arguments) == 0
        assert capsys.readouterr().out == f"clarion {clarion.__version__}\n"
    assert execute(["help"]) == 0
    assert "Commands:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "llama3.2"], ["llama3.2: no such file", "clarion pull", "-p llama3.2"]),
        (["run", "mistral"], ["mistral: no such file", "clarion pull", "-p mistral"]),
        (["run", "llama3.2:1b"], ["Ollama", "clarion pull"]),
        (["run", "llama3.2", "Why?"], ["llama3.2: no such file", "clarion pull"]),
        (["run", "-m", "llama3.2", "-p", "Why?"], ["llama3.2: no such file", "clarion pull"]),
        (["run", "owner/name"], ["hub", "clarion convert owner/name out.gguf"]),
        (["run", "owner/name:Q4_K_M", "Why?"], ["hub", "clarion convert owner/name out.gguf"]),
        (["run", "hf.co/owner/name"], ["an address"]),
        (["run", "https://example.org/x.gguf", "Why?"], ["an address", "clarion pull"]),
        (["run", "./x.gguf"], ["./x.gguf: no such file"]),
        (["run", "x.gguf", "Why?"], ["x.gguf: no such file"]),
        (["run", "/nowhere/x"], ["/nowhere/x: no such file"]),
        (["run", "Hello", "world"], ["Hello: no such file", "in quotes"]),
        (["run", "Once", "upon", "a", "time"], ["more than once", "in quotes"]),
        (["run", "99"], ["99: no such file", "-p 99"]),
        (["run", "C:\\models\\x"], ["C:\\models\\x: no such file", "-p C:"]),
        (["run", ".\\x"], [".\\x: no such file"]),
        (["quantize", "-", "x.gguf", "Q8_0"], ["a model cannot be read from standard input"]),
        (["convert", "-", "x.gguf"], ["a checkpoint cannot be read from standard input"]),
        (["run", "/"], ["/: this is a folder, not a model"]),
        (["run", "-m", "-", "-p", "x"], ["a model cannot be read from standard input"]),
        (["tokenize", "llama3.2"], ["llama3.2: no such file", "-p llama3.2"]),
        (["inspect", "llama3.2"], ["llama3.2: no such file", "clarion pull"]),
        (["bench", "owner/name"], ["hub"]),
    ],
)
def test_names_of_models_are_no_texts(
    arguments: list[str], said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    for words in said:
        assert words in line


@pytest.mark.parametrize("text", ["Hello", "Once upon a time", "Wait...", "2+2="])
def test_ordinary_words_are_texts(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["run", text, *END]) == 0
    assert capsys.readouterr().out
    assert execute(["run", "-p", "llama3.2", *END]) == 0


@pytest.mark.parametrize("command", [[], ["run"], ["tokenize"]])
@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        (
            "notes.txt",
            b"Once upon a time\nthere was a king.\n",
            "not a model; if it holds the prompt: -f notes.txt",
        ),
        ("page.gguf", b"<!doctype html><html>\n</html>\n", "an HTML page, not a model: download"),
    ],
)
def test_one_file_that_is_no_model_is_named_before_a_prompt_is_wanted(
    command: list[str],
    name: str,
    data: bytes,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(data)
    assert execute([*command, name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"clarion: {name}: this is ")
    assert said in line
