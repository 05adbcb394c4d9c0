"""`clarion embed` and `clarion rerank`: texts, lines and what is printed."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest

import clarion
from clarion.cli.main import execute
from tests.end_to_end.files import BUILT_IN
from tests.models.files import unpack

BOTH = ["A cat", "A dog"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(unpack("encoders/bert", tmp_path_factory.mktemp("encoder")))


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(unpack("encoders/xlm-roberta-classifier", tmp_path_factory.mktemp("judge")))


class Ran:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def rows(self) -> list[list[float]]:
        assert self.code == 0, self.err
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    def run(*words: str, given: bytes | None = None) -> Ran:
        if given is not None:
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given)))
        code = execute(words)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


def test_the_model_that_comes_with_the_package(run) -> None:  # type: ignore[no-untyped-def]
    rows = run("embed", *BOTH).rows
    assert rows == run("embed", str(BUILT_IN), *BOTH).rows == run("embed", "-m", str(BUILT_IN), *BOTH).rows
    assert rows == run("embed", "-p", BOTH[0], "-p", BOTH[1]).rows
    with clarion.load() as model:
        np.testing.assert_allclose(rows, model.embed(BOTH), atol=1e-6)
    ran = run("embed", "llama3.2", *BOTH)
    assert ran.code == 2
    assert "no such file" in ran.err
    assert "if it is a text: -p llama3.2" in ran.err


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        (b"A cat\nA dog\n", ["A cat", "A dog"]),
        (b"A cat\r\nA dog", ["A cat", "A dog"]),
        (b"A cat\n\nA dog\n", ["A cat", "", "A dog"]),
        (b"\n\nA dog\n\n", ["", "", "A dog", ""]),
        (b"\n", [""]),
        (b"\xef\xbb\xbfA cat\n", ["A cat"]),
    ],
)
def test_each_line_is_a_text(data: bytes, texts: list[str], run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    wanted = run("embed", *(word for text in texts for word in ("-p", text))).rows
    assert len(wanted) == len(texts)
    (tmp_path / "texts.txt").write_bytes(data)
    assert run("embed", "-f", str(tmp_path / "texts.txt")).rows == wanted
    for words in (["embed"], ["embed", "-"], ["embed", str(BUILT_IN), "-"], ["embed", "-f", "-"]):
        assert run(*words, given=data).rows == wanted


def test_no_line_is_no_text(run) -> None:  # type: ignore[no-untyped-def]
    assert run("embed", given=b"").code == 2
    ran = run("embed", "A cat", "-f", "-", "-p", "A dog", given=b"x")
    assert ran.code == 2
    assert "more than once" in ran.err


def test_numbers_of_documents_are_those_of_lines(judge: str, run) -> None:  # type: ignore[no-untyped-def]
    ran = run("rerank", judge, "the cat", "--json", given=b"a hat\n\nthe cat\n")
    found = {entry["index"]: entry["document"] for entry in json.loads(ran.out)}
    assert found == {0: "a hat", 1: "", 2: "the cat"}
    assert run("rerank", judge, "the cat", "-", given=b"a\nb").out.count("\n") == 2


def test_documents_stand_on_one_line(judge: str, run) -> None:  # type: ignore[no-untyped-def]
    out = run("rerank", judge, "the cat", "a\nhat", "a\x1b[31mcat", "the\u202ehat").out
    assert len(out.splitlines()) == 3
    assert out.replace("\n", "").isprintable()
    assert {line.split("  ")[-1] for line in out.splitlines()} == {
        "a\\nhat",
        "a\\x1b[31mcat",
        "the\\u202ehat",
    }


def test_bytes_that_are_no_utf_8(judge: str, run) -> None:  # type: ignore[no-untyped-def]
    bad = os.fsdecode(b"caf\xe9")
    for words in (["embed", bad], ["rerank", judge, bad, "a"], ["rerank", judge, "a", bad]):
        ran = run(*words)
        assert ran.code == 2
        assert "found byte 0xe9 at offset 3, expected UTF-8" in ran.err


def test_nothing_left_of_a_text(encoder: str, tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "long.txt").write_text("the cat " * 200)
    ran = run("embed", encoder, "-f", str(tmp_path / "long.txt"), "--truncate")
    assert len(ran.rows) == 1
    assert "tokens are more than the context of 64" in run("embed", encoder, "the cat " * 200).err
    ran = run("embed", str(BUILT_IN), "the cat", "-c", "1", "--truncate")
    assert ran.code == 2
    assert "no token of the text fits into the context of 1: " in ran.err


def test_an_array_has_exactly_the_name(tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    ran = run("embed", *BOTH, "-o", str(tmp_path / "out"))
    assert (ran.code, ran.out) == (0, "")
    with open(tmp_path / "out", "rb") as file:
        assert np.load(file).shape == (2, 256)
    before = (tmp_path / "out").read_bytes()

    def save(stream: io.BytesIO, _: object) -> None:
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", save)
    ran = run("embed", *BOTH, "-o", str(tmp_path / "out"))
    assert ran.code == 2
    assert "cannot be written: No space" in ran.err
    assert (tmp_path / "out").read_bytes() == before
    assert os.listdir(tmp_path) == ["out"]
    ran = run("embed", *BOTH, "-o", "-")
    assert ran.code == 2
    assert "an array goes to a file" in ran.err


def test_poolings_of_others(run) -> None:  # type: ignore[no-untyped-def]
    assert "clarion rerank" in run("embed", "A cat", "--pooling", "rank").err
    assert "one vector" in run("embed", "A cat", "--pooling", "none").err


def test_what_needs_a_model_that_writes(encoder: str, tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "text.txt").write_text("the cat")
    ran = run("imatrix", encoder, str(tmp_path / "text.txt"), "-o", str(tmp_path / "out.gguf"))
    assert ran.code == 2
    assert "no model that writes text; importance is measured with one that does" in ran.err


@pytest.mark.parametrize("name", ["bert", "modern-bert-classifier", "jina-v3"])
def test_an_encoder_is_checked(name: str, tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    ran = run("check", str(unpack(f"encoders/{name}", tmp_path)), "--json")
    found = json.loads(ran.out)
    states = {check["check"]: check["state"] for check in found["checks"]}
    assert (ran.code, found["ok"]) == (0, True)
    assert states["vectors"] == states["fast"] == states["high"] == "ok"
    assert states["answer"] == "skipped"
