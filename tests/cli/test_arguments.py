"""What a command line means, before any model is opened."""

from __future__ import annotations

import io
from pathlib import Path

import click
import pytest

from clarion.cli.prompt import model_and_prompt, read_ids, read_text
from clarion.errors import ParameterError


@pytest.mark.parametrize(
    ("words", "model", "others", "expected"),
    [
        ([], None, [], (None, None)),
        (["Once upon"], None, [], (None, "Once upon")),
        (["a.gguf"], None, [], ("a.gguf", None)),
        (["a.gguf", "Once"], None, [], ("a.gguf", "Once")),
        (["whatever", "Once"], None, [], ("whatever", "Once")),
        (["whatever"], None, ["Once"], ("whatever", None)),
        (["Once"], "a.gguf", [], ("a.gguf", "Once")),
        (["b.gguf"], "a.gguf", [], ("a.gguf", "b.gguf")),
        ([__file__], None, [], (__file__, None)),
    ],
)
def test_words(
    words: list[str], model: str | None, others: list[str], expected: tuple[str | None, str | None]
) -> None:
    assert model_and_prompt(words, model, None, *others) == expected


@pytest.mark.parametrize(
    ("words", "model", "others"),
    [(["a", "b", "c"], None, []), (["a", "b"], "m", []), (["a"], "m", ["b"]), ([], None, ["a", "b"])],
)
def test_too_many_prompts(words: list[str], model: str | None, others: list[str]) -> None:
    with pytest.raises(click.UsageError, match="more than once"):
        model_and_prompt(words, model, *others)


def test_prompts_lose_one_last_newline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "prompt"
    file.write_bytes("è un\n\r\n".encode())
    assert read_text(None, str(file)) == "è un\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"from a pipe\n")))
    assert read_text(None, None) == "from a pipe"
    assert read_text("as it is\n", None) == "as it is\n"


def test_prompts_are_utf8(tmp_path: Path) -> None:
    file = tmp_path / "prompt"
    file.write_bytes(b"ab\xff")
    with pytest.raises(ParameterError, match="prompt: found byte 0xff at offset 2, expected UTF-8"):
        read_text(None, str(file))


@pytest.mark.parametrize("text", ["1 2 3", "1,2,3\n", "[1, 2, 3]", " 1\n2\n3\n", "[1,2,3,]"])
def test_ids(tmp_path: Path, text: str) -> None:
    file = tmp_path / "ids"
    file.write_text(text)
    assert read_ids(str(file)) == [1, 2, 3]


@pytest.mark.parametrize("text", ["1 two", "1.5", "[[1]]", "1;2", "0x1"])
def test_what_is_no_id(tmp_path: Path, text: str) -> None:
    file = tmp_path / "ids"
    file.write_text(text)
    with pytest.raises(ParameterError, match="expected token ids"):
        read_ids(str(file))


def test_texts_have_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clarion.cli.prompt.MAX_TEXT_BYTES", 1000)
    for source in ("/dev/zero", "/dev/full"):
        with pytest.raises(ParameterError, match=f"{source}: found more than 1000 bytes"):
            read_text(None, source)
        with pytest.raises(ParameterError, match="found more than 1000 bytes"):
            read_ids(source)
    file = tmp_path / "prompt"
    file.write_text("x" * 1000)
    assert read_text(None, str(file)) == "x" * 1000
