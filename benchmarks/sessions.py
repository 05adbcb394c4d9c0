"""Measure how fast sessions are saved and loaded beside the disk.

    python benchmarks/sessions.py MODEL.gguf [MODEL.gguf ...] [--tokens 8192] [--folder /tmp] [--rounds 3]

Of each model: tokens are computed once; then their state is saved and, by a model that was loaded anew,
loaded again. Beside it, as many bytes are written by a loop that does nothing else, from memory and with
fsync, and read; before each reading the system's copy of the file is dropped. The rounds of all take turns,
and figures are the best of them. What is beyond the disk's time is what saving and loading add: the sum of
all bytes (CRC-32), and pages that are touched for the first time.
"""

from __future__ import annotations

import argparse
import os
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import clarion

PIECE = 1 << 20


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def write(path: Path, data: memoryview) -> None:
    with path.open("wb", buffering=0) as file:
        for at in range(0, len(data), PIECE):
            file.write(data[at : at + PIECE])
        os.fsync(file.fileno())


def read(path: Path, into: memoryview) -> None:
    with path.open("rb", buffering=0) as file:
        at = 0
        while n := file.readinto(into[at : at + PIECE]):
            at += n


def drop(path: Path) -> None:
    """The system forgets its copy of a file."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(model_path: Path, n_tokens: int, folder: Path, rounds: int) -> None:
    path, plain = folder / "measure.session", folder / "measure.plain"
    saves, loads, writes, reads, sums = [], [], [], [], []
    with clarion.load(model_path, context="most", cache_bytes=4 << 30) as model:
        n = min(n_tokens, model.context)
        tokens = [(7 * i) % (model.n_vocab - 3) for i in range(n)]
        computing = seconds(lambda: model.generate(tokens, max_tokens=0))
        for _ in range(rounds):
            path.unlink(missing_ok=True)  # what a file replaces takes time to be given back
            plain.unlink(missing_ok=True)
            saves.append(seconds(lambda: model.save_session(path, tokens)))
            n_bytes = path.stat().st_size
            data = memoryview(bytearray(os.urandom(PIECE)) * -(-n_bytes // PIECE))[:n_bytes]
            writes.append(seconds(lambda data=data: write(plain, data)))  # type: ignore[misc]
            sums.append(seconds(lambda data=data: zlib.crc32(data)))  # type: ignore[misc]
    for _ in range(rounds):
        drop(plain)
        reads.append(seconds(lambda: read(plain, data)))
        with clarion.load(model_path, context="most", cache_bytes=4 << 30) as model:
            model.tokenize("")
            drop(path)
            loads.append(seconds(lambda: model.load_session(path)))
            more = [*tokens, 5][: model.context - 1]
            reused = model.generate(more, max_tokens=1).timings.reused_tokens
    path.unlink()
    plain.unlink()
    print(
        f"{model_path.name}: {n} tokens, computed in {computing:.2f} s, {n_bytes / 1e6:.1f} MB, "
        f"CRC-32 {min(sums) * 1e3:.0f} ms"
    )
    for name, ours, disk in (("saved", min(saves), min(writes)), ("loaded", min(loads), min(reads))):
        print(
            f"  {name:6} in {ours * 1e3:4.0f} ms; the disk alone {disk * 1e3:4.0f} ms "
            f"({n_bytes / disk / 1e9:.2f} GB/s): {(ours - disk) * 1e3:+.0f} ms"
        )
    print(f"  then {reused} of {len(more)} tokens were reused")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--folder", type=Path, default=Path("/tmp"))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    for model_path in options.models:
        measure(model_path, options.tokens, options.folder, options.rounds)


if __name__ == "__main__":
    main()
