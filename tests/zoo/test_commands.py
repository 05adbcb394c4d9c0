"""The command line: what zoo/README.md shows, and a whole way from a text to a card."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

import clarion
from tests.zoo.files import write_corpus
from zoo import config
from zoo.__main__ import main

README = Path(config.__file__).parent / "README.md"
SHOWN = re.findall(r"python -m zoo ([^#`\n]+)", README.read_text())

SMALL = """
[recipe]
seed = 1
context = 64
batch = 256
micro_batch = 128
warmup = 2
cooldown = 0.5
matrix_rate = 0.02
table_rate = 0.005
vector_rate = 0.005
weight_decay = 0.01
balance = 0.01

[tale-moe]
about = "a small one"
family = "qwen3moe"

[tale-moe.cpu]
shape = { n_layer = 1, n_embd = 64, n_head = 2, n_head_kv = 1, n_ff = 32, n_expert = 4, n_expert_used = 2 }
recipe = { steps = 10 }
"""


@pytest.mark.parametrize("shown", SHOWN)
def test_commands_of_the_readme_are_understood(shown, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "DIR").mkdir()
    for name in ("tale-q8_0.gguf", "other.gguf"):
        (tmp_path / name).touch()
    name, *arguments = shlex.split(shown)
    main.commands[name].make_context(name, arguments)


def test_the_readme_shows_every_command():
    assert {shown.split()[0] for shown in SHOWN} == set(main.commands)


def test_help_needs_no_torch(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    assert "train" in result.output


def test_text_prints_a_split(tmp_path):
    write_corpus(tmp_path)
    result = CliRunner().invoke(main, ["text", "valid", "--corpus", str(tmp_path)])
    assert result.exit_code == 0
    assert result.output.count("\n\n") == 29  # 10 documents of 3 paragraphs
    assert "<|endoftext|>" not in result.output


def test_from_a_text_to_a_card(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    (tmp_path / "models.toml").write_text(SMALL)
    monkeypatch.setattr(config, "_FILE", tmp_path / "models.toml")
    write_corpus(tmp_path, 80)
    common = ["--corpus", str(tmp_path), "--runs", str(tmp_path / "runs")]
    model = str(tmp_path / "model.gguf")

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(main, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    assert "step 10" in run("train", "tale-moe", *common, "-t", "1")
    assert "step 12  tokens 3072" in run("train", "tale-moe", *common, "-t", "1", "--end", "12")
    run("export", "tale-moe", model, *common[2:])
    run("card", "tale-moe", str(tmp_path / "cards"), model, *common, "-t", "1", "--machine", "a test")
    with clarion.load(model, threads=1) as loaded:
        assert loaded.generate("Once", max_tokens=4, greedy=True).text
    card = (tmp_path / "cards" / "tale-moe.md").read_text()
    assert "12 of 256 tokens" in card
    assert "minutes, a test" in card
    assert "| 0 | " in card
    assert (tmp_path / "cards" / "tale-moe.svg").read_text().startswith("<svg")
