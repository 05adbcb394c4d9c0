"""One file from the network to the disk, whole or not at all.

What has come lies in `NAME.incomplete` beside the target, and in `NAME.incomplete.etag` which version of the
file it is of. Only a file of the right length and digest gets the target's name, by a rename. So whatever
ends a download, at any moment, the next one goes on where it stopped, or begins again if the file has changed
meanwhile: two versions are never mixed, since the server is asked for the rest of that one version only
(`If-Range`).

Who owns what: whoever holds the lock file, by `flock`, owns the two files. The system drops the lock when a
process ends, however it ends. Nothing here has threads.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from clarion.errors import FileError
from clarion.gguf.writable import check_writable
from clarion.library.http import Refusal, Report, Retries, must_wait, status_text, unreachable, wanted_wait

if TYPE_CHECKING:
    import httpx

MAGIC = b"GGUF"
_HEAD_BYTES = 512  # are looked at before anything is written
_BLOCK_BYTES = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


@dataclass(frozen=True, slots=True)
class Digest:
    """What the content must be.

    Attributes:
        kind: "sha256", or "git", the SHA-1 that Git gives to a file of that content.
        hex: in lower case.
    """

    kind: str
    hex: str

    def begin(self, size: int) -> hashlib._Hash:
        """What the bytes are given to; `size` of the whole counts for Git alone."""
        if self.kind == "git":
            return hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
        return hashlib.sha256()

    def __str__(self) -> str:
        return "SHA-256" if self.kind == "sha256" else "SHA-1"


@dataclass(frozen=True, slots=True)
class Remote:
    """A file to be fetched.

    Attributes:
        url: where from.
        what: how people call it, in errors and beside the progress.
        size: in bytes, where it is known before.
        digest: of its content, where it is known.
        headers: of the request; an Authorization stays with the host of `url`.
        refusal: the error for an answer that is not the file.
    """

    url: str
    what: str
    refusal: Refusal
    size: int | None = None
    digest: Digest | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def locked(path: Path, what: str, report: Report) -> Iterator[None]:
    """Only one process at a time is within; the others wait. Raises FileError if there can be no lock."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o664)
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report.note(f"{what}: another process is fetching it; waiting")
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            raise FileError(f"{path}: cannot be locked: {error.strerror}") from error
        yield
    finally:
        os.close(handle)


def download(client: httpx.Client, remote: Remote, target: Path, report: Report) -> str:
    """Fetches a file, whose lock the caller holds, to `target`, in place of what is there.

    Returns:
        The ETag of what came; empty where the server gives none.

    Raises:
        FileError: it cannot be fetched or written, or is not what it should be. What came of it stays for the
            next attempt, except where it is wrong. And what `remote.refusal` gives.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return _Download(client, remote, target, report).run()
    except OSError as error:
        if error.errno in _FULL:
            raise FileError(
                f"{remote.what}: cannot be written: {os.strerror(error.errno)}; what is here stays, and the "
                f"next attempt goes on there: {target}.incomplete"
            ) from error
        raise FileError(f"{target}: cannot be written: {error.strerror or error}") from error


class _AgainError(Exception):
    """An attempt brought not all of the file. The message says why, `wait` how long to wait, if asked for."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class _Download:
    def __init__(self, client: httpx.Client, remote: Remote, target: Path, report: Report) -> None:
        self._client, self._remote, self._target, self._report = client, remote, target, report
        self._part = target.with_name(target.name + ".incomplete")
        self._note = target.with_name(target.name + ".incomplete.etag")
        self._sum = _Sum(remote.digest, remote.size)

    def run(self) -> str:
        import httpx

        retries = Retries(self._remote.what, self._report)
        while True:
            before = self._have()
            try:
                etag = self._attempt(before)
            except httpx.TransportError as error:
                reason, wait = unreachable(self._remote.url, error), None
            except _AgainError as error:
                reason, wait = str(error), error.wait
            except (httpx.InvalidURL, httpx.TooManyRedirects) as error:
                raise FileError(f"{self._remote.what}: cannot be fetched: {error}") from error
            else:
                return etag
            if self._have() > before:
                retries.succeeded()
            retries.failed(reason, wait)

    def _have(self) -> int:
        """Bytes that can be gone on from: those of a known version, or of known content."""
        try:
            size = self._part.stat().st_size
        except FileNotFoundError:
            return 0
        known = self._remote.digest is not None or self._validator()
        if not known or (self._remote.size is not None and size > self._remote.size):
            return 0
        return size

    def _validator(self) -> str:
        try:
            return self._note.read_text(encoding="latin-1")
        except FileNotFoundError:
            return ""

    def _attempt(self, have: int) -> str:
        """One request, from its first byte to the finished file."""
        if have and have == self._remote.size:  # all came, and then the process ended
            return self._finish(self._validator())
        headers, validator = dict(self._remote.headers), self._validator()
        if have:
            headers["Range"] = f"bytes={have}-"
            if validator:
                headers["If-Range"] = validator
        with self._client.stream("GET", self._remote.url, headers=headers) as response:
            if must_wait(response):
                raise _AgainError(status_text(response), wanted_wait(response))
            if response.status_code == 416 and have:
                if response.headers.get("Content-Range", "").strip() == f"bytes */{have}":
                    return self._finish(validator)  # all came, and then the process ended
                self._drop()
                raise _AgainError("the file has changed meanwhile")
            if response.status_code not in (200, 206):
                raise self._remote.refusal(response)
            start, total = self._extent(response, have)
            now = _validator_of(response)
            if start and validator and now != validator:  # a server that does not heed If-Range
                self._drop()
                raise _AgainError("the file has changed meanwhile")
            self._check_answer(response, total)
            chunks = response.iter_raw()
            if start == 0:
                chunks = self._looked_at(response, chunks)
            if total is not None:
                check_writable(self._target, total - start)
            if start == 0:
                self._begin(now)
            came = self._append(chunks, start, total)
        if total is not None and came != total:
            raise _AgainError(f"the connection ended after {came:,} of {total:,} bytes")
        return self._finish(now)

    def _extent(self, response: httpx.Response, have: int) -> tuple[int, int | None]:
        """Where the answer begins, and how many bytes the file has."""
        length = response.headers.get("Content-Length", "")
        if response.status_code == 200:
            return 0, int(length) if length.isascii() and length.isdigit() else None
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        if found is None or int(found[1]) != have:
            self._drop()
            raise _AgainError("the server answers with another part of the file than was asked for")
        return have, None if found[3] == "*" else int(found[3])

    def _check_answer(self, response: httpx.Response, total: int | None) -> None:
        """Refuses an answer that says itself that it is not the file."""
        what, size = self._remote.what, self._remote.size
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise FileError(f"{what}: the server sends it as {encoding}, expected it as it is")
        if size is not None and total is not None and total != size:
            head = b"".join(_first(response.iter_raw())) if response.status_code == 200 else b""
            self._drop()
            raise FileError(
                f"{what}: found {total:,} bytes, expected {size:,}{_instead(head)}; nothing of it was kept"
            )

    def _looked_at(self, response: httpx.Response, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The chunks, if their first bytes are those of a model's file."""
        first = _first(chunks)
        head = b"".join(first)
        if not head.startswith(MAGIC) and len(head) >= len(MAGIC):
            kind = response.headers.get("Content-Type", "")
            found = _instead(head) or f": the server calls it {kind}" if kind else _instead(head)
            raise FileError(f"{self._remote.what}: found something else than a GGUF file{found}")
        return _chain(first, chunks)

    def _begin(self, validator: str) -> None:
        """Makes the part an empty one of this version. In this order: a part is never held for one of
        another version."""
        with open(self._part, "wb"):
            self._sum = _Sum(self._remote.digest, self._remote.size)
        self._note.write_text(validator, encoding="latin-1")

    def _append(self, chunks: Iterator[bytes], start: int, total: int | None) -> int:
        """Writes what comes behind the first `start` bytes; returns the length that the part has then."""
        done = start
        self._report.progress(self._remote.what, done, total or 0)
        with open(self._part, "r+b", buffering=0) as file:
            file.seek(start)
            for chunk in chunks:
                if total is not None and done + len(chunk) > total:
                    self._drop()
                    raise FileError(
                        f"{self._remote.what}: found more than the {total:,} bytes that the server announced"
                    )
                _write(file, chunk)
                self._sum.add(chunk, done)
                done += len(chunk)
                self._report.progress(self._remote.what, done, total or 0)
        return done

    def _finish(self, validator: str) -> str:
        """Gives the whole file its name, after a check of what it holds."""
        with open(self._part, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if self._remote.size is not None and size != self._remote.size:
                self._drop()
                raise FileError(f"{self._remote.what}: found {size:,} bytes, expected {self._remote.size:,}")
            if self._remote.digest is not None:
                found = self._sum.of(file, self._progress_of_check(size))
                if found != self._remote.digest.hex:
                    self._drop()
                    raise FileError(
                        f"{self._remote.what}: its {self._remote.digest} is {found}, expected "
                        f"{self._remote.digest.hex}; the file was removed, fetch it again"
                    )
            elif file.read(len(MAGIC)) != MAGIC:
                self._drop()
                raise FileError(f"{self._remote.what}: found {size:,} bytes that are no GGUF file")
            os.fsync(file.fileno())
        os.replace(self._part, self._target)
        self._note.unlink(missing_ok=True)
        return validator

    def _progress_of_check(self, size: int) -> Callable[[int], None]:
        return lambda done: self._report.progress(f"checking {self._remote.what}", done, size)

    def _drop(self) -> None:
        self._part.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


class _Sum:
    """The digest of a file, as far as possible of the bytes as they come."""

    def __init__(self, digest: Digest | None, size: int | None) -> None:
        self._state = digest.begin(size or 0) if digest is not None else None
        self._done = 0

    def add(self, data: bytes, at: int) -> None:
        """Takes the bytes from `at` on, if those before have been taken."""
        if self._state is not None and at == self._done:
            self._state.update(data)
            self._done += len(data)

    def of(self, file: BinaryIO, progress: Callable[[int], None]) -> str:
        """The digest of a file, of which what was not taken yet is read."""
        assert self._state is not None
        file.seek(self._done)
        while block := file.read(_BLOCK_BYTES):
            self.add(block, self._done)
            progress(self._done)
        return self._state.hexdigest()


def _write(file: BinaryIO, data: bytes) -> None:
    """All of it: an unbuffered write may take a part only, as where the disk is nearly full."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _first(chunks: Iterator[bytes]) -> list[bytes]:
    """The chunks that hold the first bytes."""
    found: list[bytes] = []
    for chunk in chunks:
        found.append(chunk)
        if sum(map(len, found)) >= _HEAD_BYTES:
            break
    return found


def _chain(first: list[bytes], rest: Iterator[bytes]) -> Iterator[bytes]:
    yield from first
    yield from rest


def _instead(head: bytes) -> str:
    """What came in the place of a model, where that is known."""
    from clarion.gguf.kinds import recognise_bytes, sentence

    kind = recognise_bytes(head) if head and not head.startswith(MAGIC) else None
    return "" if kind is None else f": {sentence(kind, 'a model')}"


def _validator_of(response: httpx.Response) -> str:
    """What names this version of the file in If-Range: a strong ETag, else the date of its last change."""
    etag: str = response.headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        return etag
    return str(response.headers.get("Last-Modified", ""))
