"""What the documents show is what happens."""

from __future__ import annotations

import io
import re
import shlex
import shutil
from pathlib import Path

import pytest

import clarion
from clarion.cli.main import execute

DOCS = Path(__file__).parents[2] / "docs"
COMMANDS = re.findall(r"^    (.*\bclarion .*)$", (DOCS / "cli.md").read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    with clarion.load(context=64) as model:
        shutil.copy(model.path, folder / "model.gguf")
    (folder / "prompt.txt").write_text("Once upon a time\n")
    (folder / "text.txt").write_text("There was once a miller who had three sons.\n" * 120)
    return folder


@pytest.mark.sample(5)
@pytest.mark.parametrize("command", COMMANDS)
def test_commands(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CLARION_HOME", str(folder))  # whose model is one of this machine's
    before, _, after = command.partition("clarion ")
    if before:
        text = shlex.split(before)[1]
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{text}\n".encode())))
    words = shlex.split(after)
    if words[0] == "run" and "-n" not in words:
        words += ["-n", "50"]
    assert execute(words) == 0
    assert capsys.readouterr().out.strip()


def test_python_examples(capsys: pytest.CaptureFixture[str]) -> None:
    examples = re.findall(r"```python\n(.*?)```", (DOCS / "python.md").read_text(), re.DOTALL)
    assert examples
    for code in examples:
        exec(compile(code, "docs/python.md", "exec"), {})
        assert len(capsys.readouterr().out) > 20


def test_every_option_is_documented() -> None:
    text = (DOCS / "sampling.md").read_text() + (DOCS / "python.md").read_text()
    for option in (*clarion.Options.__annotations__, *clarion.ChatOptions.__annotations__):
        assert f"`{option}" in text
