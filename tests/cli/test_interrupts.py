"""Ctrl-C where a shell has said who is to hear it."""

from __future__ import annotations

import signal
import subprocess
import sys


def test_what_was_started_to_ignore_interrupts_goes_on() -> None:
    """As the background jobs of a script are, whose terminal's Ctrl-C is not meant for them."""
    command = [sys.executable, "-m", "clarion", "run", "Once upon a time"]
    command += ["--ignore-eos", "--greedy", "-n", "1000", "-c", "1100"]
    ignoring = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", *command]
    with subprocess.Popen(ignoring, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        text = process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        text += process.stdout.read()
    assert process.returncode == 0
    assert text == subprocess.check_output(command)
