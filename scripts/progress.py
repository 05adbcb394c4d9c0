"""Runs a command of minutes, and says how far it is: every few seconds, the last line that it has printed.

    python scripts/progress.py LOG COMMAND...

LOG has all that the command prints. If it fails, the end of that is shown. The exit status is the command's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

SECONDS = 10  # between two lines where no terminal can overwrite the last one
END = 40  # lines of a failure's log


def main(log: Path, command: list[str]) -> int:
    on_terminal = sys.stdout.isatty()
    width = os.get_terminal_size().columns - 1 if on_terminal else 110
    began = time.monotonic()
    last, done = "starting", threading.Event()

    def tell() -> None:
        while not done.wait(0.5 if on_terminal else SECONDS):
            line = f"  {time.monotonic() - began:4.0f} s  {last}"[:width]
            print(f"\r\x1b[K{line}" if on_terminal else line, end="" if on_terminal else "\n", flush=True)

    teller = threading.Thread(target=tell)
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("w", encoding="utf-8") as file,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process,
    ):
        assert process.stdout is not None
        teller.start()
        try:
            for line in process.stdout:
                file.write(line)
                if line.strip() and not line.startswith("WARNING"):
                    last = line.strip()
        finally:
            done.set()
            teller.join()
            if on_terminal:
                print("\r\x1b[K", end="", flush=True)
    if process.returncode:
        lines = log.read_text(encoding="utf-8").splitlines()
        print(*lines[-END:], sep="\n")
        print(f"{' '.join(command)}: exit status {process.returncode}; all of its output is in {log}")
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
    except KeyboardInterrupt:
        sys.exit(130)
