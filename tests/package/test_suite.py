"""The tests' own ways: `tests/conftest.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

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


def test_what_tests_start_can_be_interrupted_though_they_cannot(tmp_path: Path) -> None:
    (tmp_path / "test_child.py").write_text(INTERRUPTED)
    run(tmp_path, before=("sh", "-c", "trap '' INT; exec \"$@\"", "sh"))
