"""Whether an output can be written, asked before the work that makes it."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from clarion.errors import FileError
from clarion.gguf.texts import size_text


def check_writable(
    path: str | os.PathLike[str], n_bytes: int = 0, reads: Iterable[str | os.PathLike[str]] = ()
) -> None:
    """Raises FileError if a file cannot be written there, as files are written here: beside it, then renamed.

    A file beside `path` is made and removed, for only that tells: permissions, read-only file systems and
    quotas have many causes. What is at `path` stays as it is.

    Args:
        n_bytes: that the file will have, if that is known; the disk must have room for them.
        reads: files that must not be replaced, for they are read.
    """
    text = os.fspath(path)
    if not text:
        raise FileError("the output's name is empty, expected the name of a file")
    path = Path(text)
    try:
        _check_place(path, text)
        if any(os.path.exists(other) and path.exists() and path.samefile(other) for other in reads):
            raise FileError(f"{text}: cannot be written: it is what is read; write to another file")
        _check_folder(path)
        free = _free_bytes(path.parent)
    except ValueError as error:  # a NUL in the name
        raise FileError(f"{text!r}: cannot be written: {error}") from None
    except OSError as error:
        raise FileError(f"{text}: cannot be written: {_reason(error, path)}") from error
    if free is not None and n_bytes > free:
        raise FileError(
            f"{text}: cannot be written: {os.strerror(errno.ENOSPC)}: it takes {size_text(n_bytes)}, "
            f"the disk has {size_text(free)}"
        )


def write_beside(path: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> None:
    """Writes a file beside `path`, and puts it in its place once it is whole.

    Raises:
        FileError: it cannot be written; what was at `path` is untouched.
    """
    target = Path(path)
    temporary = target.parent / f".{os.urandom(8).hex()}.partial"  # a folder has no name to replace
    try:
        try:
            with open(temporary, "xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise FileError(f"{target}: cannot be written: {error.strerror or error}") from error


def _check_place(path: Path, text: str) -> None:
    """Refuses to replace what is no file."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if text.endswith(os.sep):
            raise FileError(
                f"{text}: cannot be written: it names a folder, expected the name of a file"
            ) from None
        return
    if stat.S_ISDIR(mode):
        raise FileError(f"{text}: cannot be written: it is a folder, expected the name of a file")
    if not stat.S_ISREG(mode):
        raise FileError(f"{text}: cannot be written: it is a device or a pipe, expected a regular file")


def _check_folder(path: Path) -> None:
    """Makes a file beside `path` and removes it."""
    probe = path.with_name(f".{os.urandom(8).hex()}.partial")
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        # In a folder like /tmp, only its owner may replace a file.
        if path.exists() and not _may_replace(path):
            raise PermissionError(1, "the file belongs to somebody else")
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def _may_replace(path: Path) -> bool:
    folder, user = path.parent.stat(), getattr(os, "geteuid", lambda: 0)()
    return not folder.st_mode & stat.S_ISVTX or user in (0, folder.st_uid, path.lstat().st_uid)


def _free_bytes(folder: Path) -> int | None:
    """What this user may still write there; None where the system does not say."""
    if not hasattr(os, "statvfs"):
        return None
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize if found.f_blocks else None


def _reason(error: OSError, path: Path) -> str:
    folder = path.parent
    if isinstance(error, FileNotFoundError):
        return f"there is no folder {os.fspath(folder)!r}"
    if isinstance(error, NotADirectoryError):
        above = next((p for p in folder.parents if p.is_file()), folder)
        above = folder if folder.is_file() else above
        return f"{os.fspath(above)!r} is a file, expected a folder"
    if isinstance(error, PermissionError) and error.filename is not None:
        return f"no permission to write in {os.fspath(folder)!r}"
    return error.strerror or str(error)
