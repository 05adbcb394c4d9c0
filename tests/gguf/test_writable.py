"""An output that cannot be written is found before the work, and asking leaves nothing behind."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clarion.errors import FileError
from clarion.gguf.writable import check_writable


def entries(folder: Path) -> list[tuple[str, bytes]]:
    """Names and contents of everything below a folder."""
    return sorted(
        (os.fspath(path.relative_to(folder)), path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    )


@pytest.mark.parametrize(
    "name", ["new.gguf", "there.gguf", "new \u00fc\U0001f600.gguf", os.fsdecode(b"\xff.gguf")]
)
def test_where_a_file_can_be_written_nothing_changes(name: str, tmp_path: Path) -> None:
    (tmp_path / "there.gguf").write_bytes(b"as it was")
    before = entries(tmp_path)
    check_writable(tmp_path / name)
    check_writable(os.fspath(tmp_path / name), n_bytes=1000)
    assert entries(tmp_path) == before


def test_a_name_without_a_folder_is_in_the_working_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check_writable("out.gguf")
    check_writable(Path("out.gguf"))
    assert entries(tmp_path) == []


def test_a_link_to_a_file_and_a_broken_link_can_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "broken").symlink_to("nowhere")
    before = entries(tmp_path)
    check_writable(tmp_path / "link")
    check_writable(tmp_path / "broken")
    assert entries(tmp_path) == before


PLACES: dict[str, tuple[Callable[[Path], str], str]] = {
    "missing folder": (lambda folder: f"{folder}/no/such/out", "there is no folder '.*/no/such'"),
    "a folder": (lambda folder: f"{folder}/sub", "it is a folder, expected the name of a file"),
    "the folder itself": (lambda folder: f"{folder}/.", "it is a folder"),
    "a link to a folder": (lambda folder: f"{folder}/tosub", "it is a folder"),
    "a new folder": (lambda folder: f"{folder}/new/", "it names a folder"),
    "below a file": (lambda folder: f"{folder}/file/out", "'.*/file' is a file, expected a folder"),
    "deep below a file": (lambda folder: f"{folder}/file/a/out", "'.*/file' is a file, expected a folder"),
    "a pipe": (lambda folder: f"{folder}/pipe", "it is a device or a pipe"),
    "a device": (lambda folder: "/dev/null", "it is a device or a pipe"),
    "a loop of links": (lambda folder: f"{folder}/loop", os.strerror(errno.ELOOP)),
    "a long name": (lambda folder: f"{folder}/{'x' * 300}", os.strerror(errno.ENAMETOOLONG)),
    "a NUL": (lambda folder: f"{folder}/a\0b", "null"),
}


@pytest.mark.parametrize("kind", PLACES)
def test_places_where_none_can_be_written(kind: str, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "file").write_text("text")
    (tmp_path / "tosub").symlink_to("sub")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    make, message = PLACES[kind]
    place = make(tmp_path)
    before = entries(tmp_path)
    with pytest.raises(FileError, match=f"cannot be written: .*{message}") as raised:
        check_writable(place)
    assert repr(place)[1:-1] in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    assert entries(tmp_path) == before
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_an_empty_name() -> None:
    with pytest.raises(FileError, match="name is empty"):
        check_writable("")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs users")
def test_no_permission(tmp_path: Path) -> None:
    """As another user, where this one may write everywhere."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    code = (
        "import os, sys; from clarion.gguf.writable import check_writable\n"
        "from clarion.errors import FileError\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "try: check_writable(sys.argv[1])\n"
        "except FileError as error: print(error)\n"
    )
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
        if folder.name.startswith("pytest-of"):
            break
    done = subprocess.run(
        [sys.executable, "-c", code, str(closed / "out")], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{closed}/out: cannot be written: no permission to write in '{closed}'\n"
    assert entries(closed) == []


def test_a_read_only_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(FileError, match="out: cannot be written: Read-only file system"):
        check_writable(tmp_path / "out")


def test_somebody_elses_file_in_a_folder_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").touch()
    tmp_path.chmod(0o1777)
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(FileError, match="the file belongs to somebody else"):
        check_writable(tmp_path / "out")
    check_writable(tmp_path / "new")


def test_a_disk_without_room(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"No space left on device: it takes 1.0 EB, the disk has \d+\.\d .B"):
        check_writable(tmp_path / "out", n_bytes=10**18)
    assert entries(tmp_path) == []
