"""What a person at a terminal sees, and what is left in a pipe."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CLARION = [sys.executable, "-m", "clarion"]
SENTENCE = "There was once a miller who had three sons. "


def on_a_terminal(*arguments: str, stdout: Path | None = None, typed: bytes = b"") -> tuple[int, str]:
    """Exit code, and what stands on a terminal that is all three streams; but for `stdout`, if given."""
    child, terminal = pty.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if stdout is not None:
            os.dup2(os.open(stdout, os.O_WRONLY | os.O_CREAT), 1)
        os.execve(sys.executable, [*CLARION, *arguments], {**os.environ, "TERM": "xterm", "COLUMNS": "100"})
    if typed:
        os.write(terminal, typed)
    seen = b""
    try:
        while data := os.read(terminal, 65536):
            seen += data
    except OSError:  # Linux says so when the other end is closed
        pass
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), seen.decode()


@pytest.fixture
def long_prompt(tmp_path: Path) -> str:
    path = tmp_path / "long.txt"
    path.write_text(SENTENCE * 150)
    return str(path)


def test_a_long_prompt_shows_how_far_it_is(long_prompt: str, tmp_path: Path) -> None:
    code, seen = on_a_terminal(
        "run", "-f", long_prompt, "-n", "5", "--greedy", "-b", "64", stdout=tmp_path / "out"
    )
    assert code == 0
    assert re.search(r"prompt .*\d+/\d+", seen)
    text = (tmp_path / "out").read_text()
    assert "\x1b" not in text
    piped = subprocess.run(
        [*CLARION, "run", "-f", long_prompt, "-n", "5", "--greedy", "-b", "64"],
        capture_output=True,
        text=True,
    )
    assert (piped.stdout, piped.stderr) == (text, "")


def test_a_short_prompt_shows_none() -> None:
    code, seen = on_a_terminal("run", "Once upon a time", "-n", "5")
    assert code == 0
    assert "\x1b" not in seen
    assert "prompt 5 tokens" in seen.splitlines()[-1]


@pytest.mark.parametrize("arguments", [["run"], ["run", "-m", "MODEL"], ["-m", "MODEL"]])
def test_without_a_prompt_it_points_to_chat(arguments: list[str]) -> None:
    from tests.end_to_end.files import BUILT_IN

    code, seen = on_a_terminal(*(str(BUILT_IN) if word == "MODEL" else word for word in arguments))
    assert code == 2
    (line,) = seen.splitlines()
    assert "no prompt" in line
    assert "clarion chat MODEL is for conversations" in line


def test_a_dash_reads_what_is_typed(tmp_path: Path) -> None:
    code, seen = on_a_terminal(
        "run", "-", "-n", "5", stdout=tmp_path / "out", typed=b"Once upon a time\n\x04"
    )
    assert code == 0
    assert "Ctrl-D ends the text" in seen
    assert (tmp_path / "out").read_text().strip()


@pytest.mark.parametrize("stats", [["--json"], ["--stats"]])
def test_an_interrupt_in_a_prompt_counts_what_was_computed(stats: list[str], tmp_path: Path) -> None:
    path = tmp_path / "ids"
    path.write_text("341 " * 60_000)
    arguments = ["run", "--ids-file", str(path), "-c", "60100", "-b", "64", *stats]
    with subprocess.Popen(
        [*CLARION, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stderr is not None
        assert "60100" in process.stderr.readline()  # it warns once the model is loaded
        time.sleep(0.7)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    if stats == ["--json"]:
        report = json.loads(out)
        assert report["finish_reason"] == "cancelled"
        n, rate = report["prompt_tokens"], report["prompt_tokens_per_second"]
        assert report["generated_tokens"] == report["generated_tokens_per_second"] == 0
    else:
        (line,) = err.splitlines()
        assert "first token" not in line
        assert "generation 0 tokens · seed" in line
        n, rate = map(float, re.findall(r"prompt (\d+) tokens, ([\d.]+) tokens/s", line)[0])
    assert 0 < n < 60_000
    assert 0.2 < n / rate < 30  # the seconds that it says
