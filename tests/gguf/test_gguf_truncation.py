"""A file that is cut while it is mapped: the process lives and is told."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from gguf_bytes import ARCHITECTURE, gguf, row

from clarion._native import files
from clarion.errors import ClosedError, FileError
from clarion.gguf import File, part

PAGE = mmap.PAGESIZE
SIZE = 64 * PAGE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf([ARCHITECTURE], [row("t", [SIZE // 4])], b"\x01" * SIZE))
    return path


@pytest.mark.parametrize("keep", [0, 1, PAGE - 1, PAGE, 3 * PAGE + 17])
def test_cut_file_reads_as_zeros_and_is_reported(path: Path, keep: int) -> None:
    with File.open(path) as file:
        tensor = file.tensors["t"]
        assert int(tensor.data.sum()) == SIZE
        os.truncate(path, keep)
        kept = max(keep - tensor.offset, 0)
        assert int(tensor.data.sum()) == kept
        with pytest.raises(FileError, match=f"^{path}: cut, changed or unreadable since it was opened"):
            file.check()


def test_cut_file_is_reported_before_anybody_reads_it(path: Path) -> None:
    with File.open(path) as file:
        file.check()
        os.truncate(path, SIZE)
        with pytest.raises(FileError):
            file.check()


def test_file_that_was_restored_is_still_reported(path: Path) -> None:
    """The zeros that were read stay in the mapping."""
    times = os.stat(path)
    size = times.st_size
    with File.open(path) as file:
        os.truncate(path, PAGE)
        assert file.tensors["t"].data[-1] == 0
        os.truncate(path, size)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        with pytest.raises(FileError):
            file.check()


def test_file_that_is_cut_while_it_is_opened(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Cut:
        def __init__(self, path: Path) -> None:
            self.mapping = files.Mapping(path)
            os.truncate(path, 8)

        def __getattr__(self, name: str) -> object:
            return getattr(self.mapping, name)

    monkeypatch.setattr(part, "_map", Cut)
    with pytest.raises(FileError, match=f"^{path}: (changed while it was read|cut, changed or unreadable)"):
        File.open(path)


def test_other_mappings_are_not_touched(path: Path, tmp_path: Path) -> None:
    others = []
    for i in range(20):
        other = tmp_path / f"other{i}"
        other.write_bytes(path.read_bytes())
        others.append(File.open(other))
    with File.open(path) as file:
        os.truncate(path, PAGE)
        assert file.tensors["t"].data[-1] == 0
        for other in others:
            other.check()
            assert int(other.tensors["t"].data.sum()) == SIZE
            other.close()


def test_many_threads_meet_the_hole_at_once(path: Path) -> None:
    with File.open(path) as file:
        data = file.tensors["t"].data
        os.truncate(path, 2 * PAGE)
        start = threading.Barrier(8)
        sums: list[int] = []

        def read() -> None:
            start.wait()
            sums.append(int(np.add.reduce(data, dtype=np.int64)))

        threads = [threading.Thread(target=read) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sums == [2 * PAGE - file.tensors["t"].offset] * 8


def test_mappings_come_and_go_while_others_fault(tmp_path: Path) -> None:
    """The handler reads its table while it is being changed."""
    stop = threading.Event()

    def churn(name: str) -> None:
        path = tmp_path / name
        path.write_bytes(b"\x02" * SIZE)
        while not stop.is_set():
            mapping = files.Mapping(path)
            assert mapping.bytes[-1] == 2
            assert not mapping.damaged

    threads = [threading.Thread(target=churn, args=(f"churn{i}",)) for i in range(2)]
    for thread in threads:
        thread.start()
    path = tmp_path / "cut"
    for _ in range(30):
        path.write_bytes(b"\x01" * SIZE)
        mapping = files.Mapping(path)
        os.truncate(path, 0)
        assert not any(mapping.bytes)
        assert mapping.damaged
    stop.set()
    for thread in threads:
        thread.join()


def test_views_outlive_the_file(path: Path) -> None:
    file = File.open(path)
    data = file.tensors["t"].data
    names = file.metadata
    file.close()
    assert int(data.sum()) == SIZE
    assert names.str("general.architecture") == "llama"
    with pytest.raises(ClosedError, match="closed"):
        file.check()
    with pytest.raises(ClosedError, match="closed"):
        _ = file.tensors


def test_views_are_read_only(path: Path) -> None:
    with File.open(path) as file:
        data = file.tensors["t"].data
        with pytest.raises(ValueError, match="read-only"):
            data[0] = 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            data.flags.writeable = True


def test_mapping_is_given_back(path: Path) -> None:
    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count(str(path))

    file = File.open(path)
    assert mapped() == 1
    descriptors = len(os.listdir("/proc/self/fd"))
    file.close()
    del file
    assert mapped() == 0
    assert len(os.listdir("/proc/self/fd")) == descriptors - 1


def run(source: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", source, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


FAULT_ELSEWHERE = """
import mmap, os, signal, sys
from clarion._native import files
kept = files.Mapping(sys.argv[1])
with open(sys.argv[2], "w+b") as file:
    file.truncate(mmap.PAGESIZE)
    other = mmap.mmap(file.fileno(), mmap.PAGESIZE)
    os.truncate(file.name, 0)
    {fault}
print("alive", kept.damaged)
"""


def test_fault_elsewhere_ends_the_process_as_before(path: Path, tmp_path: Path) -> None:
    result = run(FAULT_ELSEWHERE.format(fault="other[0]"), path, tmp_path / "other")
    assert result.returncode == -signal.SIGBUS


def test_sent_signal_ends_the_process_as_before(path: Path, tmp_path: Path) -> None:
    fault = "os.kill(os.getpid(), signal.SIGBUS)"
    assert run(FAULT_ELSEWHERE.format(fault=fault), path, tmp_path / "other").returncode == -signal.SIGBUS


def test_earlier_handler_gets_faults_elsewhere(path: Path, tmp_path: Path) -> None:
    source = "import faulthandler; faulthandler.enable()\n" + FAULT_ELSEWHERE.format(fault="other[0]")
    result = run(source, path, tmp_path / "other")
    assert result.returncode == -signal.SIGBUS
    assert "Fatal Python error: Bus error" in result.stderr


def test_ignored_signal_stays_ignored(path: Path, tmp_path: Path) -> None:
    source = "import signal; signal.signal(signal.SIGBUS, signal.SIG_IGN)\n" + FAULT_ELSEWHERE.format(
        fault="os.kill(os.getpid(), signal.SIGBUS)"
    )
    assert run(source, path, tmp_path / "other").stdout == "alive False\n"


def resident(file: File) -> int:
    """Bytes of the mapping that this process's page table has."""
    begin = file.tensors["t"].data.ctypes.data - file.tensors["t"].offset
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        if line.startswith(f"{begin:x}-"):
            return next(int(field.split()[1]) << 10 for field in lines if field.startswith("Rss:"))
    raise AssertionError("not mapped")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux populates mappings")
def test_populating_maps_all_that_is_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.gguf"
    size = 8 << 20
    path.write_bytes(gguf([ARCHITECTURE], [row("t", [size // 4])], b"\x01" * size))
    with File.open(path) as file:
        assert resident(file) < size // 2
        file.populate()
        file.populate()  # once is enough
        wait_until = time.monotonic() + 10
        while resident(file) < size and time.monotonic() < wait_until:
            time.sleep(0.01)
        assert resident(file) >= size
        file.check()


def test_populating_a_file_that_is_cut_or_closed(path: Path) -> None:
    for _ in range(20):
        with File.open(path) as file:
            file.populate()
    with File.open(path) as file:
        os.truncate(path, PAGE)
        file.populate()
        with pytest.raises(FileError):
            file.check()
