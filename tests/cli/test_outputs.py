"""Outputs that cannot be written are found before the work that makes them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from clarion.cli.main import execute
from tests.end_to_end.files import BUILT_IN

COMMANDS: dict[str, Callable[[Path, str], list[str]]] = {
    "eval": lambda folder, out: ["eval", "--text", f"{folder}/text.txt", "--report", out],
    "imatrix": lambda folder, out: ["imatrix", str(BUILT_IN), f"{folder}/text.txt", "-o", out],
    "convert": lambda folder, out: ["convert", "owner/name", out],
    "convert parts": lambda folder, out: ["convert", "owner/name", out, "--split-max-size", "2G"],
    "quantize": lambda folder, out: ["quantize", str(BUILT_IN), out, "Q4_0", "--allow-requantize"],
    "budget": lambda folder, out: ["quantize", str(BUILT_IN), out, "--budget", "5MB", "--allow-requantize"],
    "split": lambda folder, out: ["split", str(BUILT_IN), out],
    "embed": lambda folder, out: ["embed", str(BUILT_IN), "a cat", "-o", out],
    "merge": lambda folder, out: ["merge", str(BUILT_IN), out],
}
PLACES = {
    "missing folder": "no/such/out",
    "a folder": "sub",
    "below a file": "text.txt/out",
    "a pipe": "pipe",
    "a long name": "x" * 300,
    "empty": "",
}


@pytest.mark.parametrize("command", ["eval", "imatrix", "embed"])
def test_what_is_read_is_not_replaced(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model.gguf"
    shutil.copy(BUILT_IN, model)
    (tmp_path / "text.txt").write_text("There was once a miller who had three sons.\n" * 120)
    (tmp_path / "link").symlink_to(model)
    for out in (model, tmp_path / "text.txt", tmp_path / "link"):
        given = {
            "eval": ["eval", str(model), "--text", f"{tmp_path}/text.txt", "--report", str(out)],
            "imatrix": ["imatrix", str(model), f"{tmp_path}/text.txt", "-o", str(out)],
            "embed": ["embed", str(model), "-f", f"{tmp_path}/text.txt", "-o", str(out)],
        }[command]
        assert execute(given) == 2
        assert "it is what is read; write to another file" in capsys.readouterr().err
    assert model.read_bytes() == BUILT_IN.read_bytes()


def refuse(*_: object, **__: object) -> object:
    raise AssertionError("the work began")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("command", COMMANDS)
def test_before_the_work(
    command: str,
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import clarion
    import clarion.convert.hub
    import clarion.convert.splitting
    import clarion.evaluate.collect
    import clarion.evaluate.request

    monkeypatch.setattr(clarion.convert.hub.Repository, "download", refuse)
    monkeypatch.setattr(clarion.convert.splitting, "write", refuse)
    monkeypatch.setattr(clarion.evaluate.request, "run", refuse)
    monkeypatch.setattr(clarion.evaluate.collect, "collect", refuse)
    monkeypatch.setattr(clarion, "load", refuse)
    (tmp_path / "text.txt").write_text("There was once a miller who had three sons.\n" * 120)
    (tmp_path / "sub").mkdir()
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.rglob("*"))
    out = PLACES[place] and f"{tmp_path}/{PLACES[place]}"
    assert execute(COMMANDS[command](tmp_path, out)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "internal error" not in line
    assert "cannot be written: " in line or "the output's name is empty" in line
    assert sorted(tmp_path.rglob("*")) == before
