"""The tests' own ways: `tests/conftest.py`, `tests/sampling.py` and `scripts/progress.py`."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sampling import sample, seed_of_commit

ROOT = Path(__file__).parents[2]

GRID = """
import signal, subprocess, sys
import pytest

@pytest.fixture(params=["avx2", "generic"])
def isa(request):
    return request.param

@pytest.mark.sample
@pytest.mark.parametrize("number", range(40))
@pytest.mark.parametrize("kind", ["a", "b", "c"])
def test_grid(isa, number, kind):
    pass

@pytest.mark.sample(100)
@pytest.mark.parametrize("number", range(300))
def test_list(number):
    pass

@pytest.mark.parametrize("number", range(7))
def test_whole(number):
    pass

@pytest.mark.full
def test_long():
    pass
"""

INTERRUPTED = """
import signal, subprocess, sys

def test_a_child_can_be_interrupted():
    signal.raise_signal(signal.SIGINT)  # the tests themselves go on, as they were told
    program = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    assert subprocess.check_output([sys.executable, "-c", program]) == b"True\\n"
"""


def run(folder: Path, *arguments: str, before: tuple[str, ...] = ()) -> str:
    """Run pytest in a folder, with our conftest.py as a plugin."""
    command = [*before, sys.executable, "-m", "pytest", "-p", "tests.conftest", f"--rootdir={folder}"]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*command, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def collected(tmp_path: Path):
    (tmp_path / "test_grid.py").write_text(GRID)

    def collect(*arguments: str) -> list[str]:
        return re.findall(r"^\S*::(.*)$", run(tmp_path, "-q", "--collect-only", *arguments), re.MULTILINE)

    return collect


def test_a_sample_holds_each_value_of_each_parameter(collected) -> None:
    cases = collected("--sample-seed=x")
    grid = [re.findall(r"\w+", case.partition("[")[2]) for case in cases if case.startswith("test_grid")]
    values = [set(column) for column in zip(*grid, strict=True)]
    assert {"avx2", "generic"} in values
    assert {"a", "b", "c"} in values
    assert {str(number) for number in range(40)} in values
    assert len(grid) == 40
    assert sum(case.startswith("test_list") for case in cases) == 100
    assert sum(case.startswith("test_whole") for case in cases) == 7
    assert "test_long" not in cases


def test_what_is_asked_for_by_a_word_is_whole(collected) -> None:
    assert len(collected("-k", "test")) == 240 + 300 + 7 + 1


def test_a_case_that_is_named_runs(collected, tmp_path: Path) -> None:
    left_out = set(collected("--all")) - set(collected("--sample-seed=x"))
    named = [f"test_grid.py::{case}" for case in itertools.islice(left_out, 2)]
    assert "2 passed" in run(tmp_path, *named)


def test_samples_of_samples() -> None:
    cases = [{"a": a, "b": b} for a in range(9) for b in range(4)]
    for number in (1, 3, 9, 20, 36, 99, None):
        chosen = sample(cases, number, "seed")
        assert chosen == sorted(set(chosen))
        assert len(chosen) == min(36, number or 9)
        assert len({cases[index]["a"] for index in chosen}) == min(9, len(chosen))
        assert len({cases[index]["b"] for index in chosen}) == min(4, len(chosen))
    assert sample([{}], 1, "seed") == [0]
    assert {index for seed in range(99) for index in sample(cases, 9, str(seed))} == set(range(36))


def test_the_seed_is_the_commit(tmp_path: Path) -> None:
    assert seed_of_commit(tmp_path) == "0"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    seeds = []
    for _ in range(2):
        subprocess.run([*git, "commit", "--quiet", "--allow-empty", f"-mcommit {len(seeds)}"], check=True)
        seeds.append(seed_of_commit(tmp_path))
    assert len({*seeds, "0"}) == 3


def test_what_tests_start_can_be_interrupted_though_they_cannot(tmp_path: Path) -> None:
    (tmp_path / "test_child.py").write_text(INTERRUPTED)
    run(tmp_path, before=("sh", "-c", "trap '' INT; exec \"$@\"", "sh"))


def progress(tmp_path: Path, command: str) -> subprocess.CompletedProcess[str]:
    program = "import progress, pathlib, sys; progress.SECONDS = 0.1; _, log, *command = sys.argv; "
    program += "sys.exit(progress.main(pathlib.Path(log), command))"
    return subprocess.run(
        [sys.executable, "-c", program, tmp_path / "log", "sh", "-c", command],
        cwd=ROOT / "scripts",
        capture_output=True,
        text=True,
        check=False,
    )


def test_progress_is_the_last_line(tmp_path: Path) -> None:
    done = progress(tmp_path, "echo '[1/2] one'; sleep 1; echo '[2/2] two' >&2; sleep 1; echo three")
    assert done.returncode == 0
    lines = [line.split(" s  ")[1] for line in done.stdout.splitlines()]
    assert [line for line in dict.fromkeys(lines) if line != "starting"] == ["[1/2] one", "[2/2] two"]
    assert (tmp_path / "log").read_text() == "[1/2] one\n[2/2] two\nthree\n"


def test_a_failure_shows_the_end_of_what_was_printed(tmp_path: Path) -> None:
    done = progress(tmp_path, "seq 1000; exit 3")
    assert done.returncode == 3
    lines = done.stdout.splitlines()
    assert lines[-41:-1] == [str(number) for number in range(961, 1001)]
    assert f"exit status 3; all of its output is in {tmp_path / 'log'}" in lines[-1]
    assert progress(tmp_path, "kill -TERM $$").returncode == 128 + 15
