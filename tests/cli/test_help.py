"""What `--help` shows, and what shells complete."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from clarion import programs, residency
from clarion.cli import options
from clarion.cli.main import _HOMES, execute
from clarion.gguf.file_types import ALIASES, RECIPES
from clarion.plan.cache import FORMATS
from clarion.plan.ir import Activations

SECTIONS = ["Model", "Prompt", "Sampling", "Context and cache", "Speed", "Output", "Other"]


def test_run_has_sections(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["run", "--help"]) == 0
    text = capsys.readouterr().out
    assert re.findall(r"^(\w[\w ]*):$", text, re.MULTILINE) == SECTIONS
    within = dict(zip(SECTIONS, re.split(r"^\w[\w ]*:$", text, flags=re.MULTILINE)[1:], strict=True))
    for section, names in {
        "Model": ["-m, --model"],
        "Prompt": ["-p, --prompt", "--raw", "--system", "--parse-special", "--ids-file", "--chat-template"],
        "Sampling": ["--temp", "--seed", "--stop", "-n, --max-tokens"],
        "Context and cache": ["-c, --context", "--kv [f32|f16|bf16|q8_0|q4_0]"],
        "Speed": [
            "-t, --threads",
            "--weights [auto|mapped|copied|moving]",
            "--activations [fast|high|exact]",
        ],
        "Output": ["--json", "--stats"],
        "Other": ["--debug", "-h, --help"],
    }.items():
        for name in names:
            assert name in within[section]
    assert "up to 4096" in " ".join(within["Context and cache"].split())


def test_the_choices_shown_are_those_that_there_are() -> None:
    assert options.CACHE_FORMATS == FORMATS
    assert get_args(Activations) == options.ACTIVATIONS
    assert options.WEIGHTS == residency.WEIGHTS
    assert options.GREATEST_DEFAULT_CONTEXT == programs.DEFAULT_CONTEXT


def test_no_summary_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["--help"]) == 0
    text = capsys.readouterr().out
    assert "..." not in text.partition("Commands:")[2]
    for command in _HOMES:
        assert f"\n  {command} " in text


def complete(*words: str, shell: str = "bash") -> list[str]:
    """What a shell is told for a line whose last word is incomplete."""
    environment = {
        **os.environ,
        "_CLARION_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": " ".join(["clarion", *words]),
        "COMP_CWORD": str(len(words)),
    }
    done = subprocess.run(
        [sys.executable, "-m", "clarion"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_a_missing_argument_shows_what_the_command_takes(capsys: pytest.CaptureFixture[str]) -> None:
    for words, error in {
        "quantize": "Missing argument 'IN': clarion quantize [OPTIONS] IN OUT [TYPE]",
        "convert folder": "Missing argument 'OUT': clarion convert [OPTIONS] DIR_OR_REPO OUT",
        "imatrix -o x": "Missing argument 'MODEL': clarion imatrix [OPTIONS] MODEL TEXT",
        "imatrix -o x -m y": "Missing argument 'TEXT': clarion imatrix [OPTIONS] MODEL TEXT",
        "merge": "Missing argument 'PART': clarion merge [OPTIONS] PART OUT",
        "eval": "Missing option '--text': clarion eval [OPTIONS] [MODEL]...",
    }.items():
        assert execute(words.split()) == 2
        command = words.split()[0]
        assert capsys.readouterr().err == f"clarion: {error}; clarion {command} --help says more\n"


def test_the_help_of_quantize_lists_all_types(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["quantize", "--help"]) == 0
    assert capsys.readouterr().out.partition("Types:")[2].split() == [*RECIPES, *ALIASES]


def test_the_context_of_an_evaluation_is_a_chunk(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["eval", "--help"]) == 0
    assert "--context N Tokens in a chunk or window. [default: 512]" in " ".join(
        capsys.readouterr().out.split()
    )


def test_completion() -> None:
    assert {"plain,run", "plain,tokenize"} <= set(complete(""))
    assert complete("be") == ["plain,bench"]
    assert {"plain,--temp", "plain,--threads"} <= set(complete("run", "--t"))
    assert complete("run", "--weights", "m") == ["plain,mapped", "plain,moving"]
    assert complete("run", "--activations", "") == ["plain,fast", "plain,high", "plain,exact"]
    assert "plain,generic" in complete("run", "--isa", "gen")
    assert {"plain,Q4_K_M", "plain,Q4_K"} <= set(complete("quantize", "a.gguf", "b.gguf", "q4_k"))
    assert complete("convert", "--type", "f") == ["plain,f16", "plain,f32"]
    assert complete("run", "-m", "mod") == ["file,mod"]
    assert complete("run", "mod") == ["file,mod"]
    for command in (
        "bench",
        "inspect",
        "eval",
        "quantize",
        "imatrix",
        "split",
        "merge",
        "convert",
        "tokenize",
        "check",
    ):
        assert complete(command, "mod") == ["file,mod"]
    assert "plain,--max-tokens" in complete("model.gguf", "--max")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_for_shells(shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "clarion"],
        env={**os.environ, "_CLARION_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert "_clarion_completion" in done.stdout
    assert f"_CLARION_COMPLETE={shell}_complete" in done.stdout


def test_the_documented_line_switches_completion_on() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    (line,) = re.findall(r'^    (eval "\$\(_CLARION_COMPLETE=bash_source clarion\)")$', page, re.MULTILINE)
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", f"{line}; complete -p clarion"],
        env={**os.environ, "PATH": programs},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "-F _clarion_completion clarion" in done.stdout
