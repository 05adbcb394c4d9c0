"""Ctrl-C where a shell has said who is to hear it."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from clarion.cli import main


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


def test_an_interrupt_that_became_another_error_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python 3.11 makes a RuntimeError of what is raised while the attributes of a class get their names."""

    class Interrupts:
        def __set_name__(self, owner: type, name: str) -> None:
            raise KeyboardInterrupt

    def invoke(_: object) -> int:
        type("Made", (), {"attribute": Interrupts()})
        return 0

    monkeypatch.setattr(main, "_invoke", invoke)
    assert main.execute(["run"]) == 130
    assert capsys.readouterr() == ("", "")
