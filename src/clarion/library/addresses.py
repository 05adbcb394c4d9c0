"""Files of addresses, in Clarion's own folder: `https/HOST/PATH/FILE.gguf`, so that each has one place.

What stands behind a question mark in an address is sent to the server, but is not a part of the name: there
are passes of a day among it. The version of a file, the ETag that it came with, is kept in `.FILE.etag`
beside it. Files that somebody puts directly into the folder are models too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from clarion.errors import ClarionError, FileError, NameNotFoundError
from clarion.library.found import Found, measured
from clarion.library.quants import Model, models_among, quant_of, stem
from clarion.library.reference import Address

if TYPE_CHECKING:
    import httpx

    from clarion.library.http import Report

_SCHEMES = ("https", "http")
_FIRST = re.compile(r"(?P<stem>.*-)(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.I)


@dataclass(frozen=True, slots=True)
class AddressFolder:
    """Clarion's own folder, which need not be there."""

    folder: Path

    @property
    def source(self) -> str:
        return "clarion"

    @property
    def is_shared(self) -> bool:
        return False

    def path(self, address: Address) -> Path:
        """Where the file of an address lies, there or not."""
        parts = urlsplit(address.url)
        host = parts.netloc.rpartition("@")[2].lower()
        return self.folder.joinpath(parts.scheme, host, *filter(None, parts.path.split("/")))

    def models(self) -> Iterator[Found]:
        """Raises OSError."""
        for scheme in _SCHEMES:
            root = self.folder / scheme
            names = [path.relative_to(root).as_posix() for path in root.rglob("*.gguf") if path.is_file()]
            for model in models_among(names):
                if model.is_whole:
                    yield self._found(root, model, f"{scheme}://{model.name}")
        names = [path.name for path in self.folder.glob("*.gguf") if path.is_file()]
        for model in models_among(names):
            if model.is_whole:
                yield self._found(self.folder, model, stem(model.name))

    def remove(self, found: Found, *, pinned: bool = False) -> list[Path]:
        """Raises FileError."""
        try:
            for part in found.parts:
                part.unlink()
                _etag_file(part).unlink(missing_ok=True)
        except OSError as error:
            raise FileError(f"{error.filename}: cannot be removed: {error.strerror}") from error
        folder = found.path.parent
        with suppress(OSError):  # up to the first folder that holds something else
            while folder != self.folder:
                folder.rmdir()
                folder = folder.parent
        return list(found.parts)

    def pull(self, address: Address, report: Report) -> Found:
        """Fetches a file, and where its name is that of a part, all parts; not again what has not changed.

        Raises:
            FileError: no access, no network, a disk that is full, or something else than a GGUF file.
            NameNotFoundError: there is no such file.
        """
        from clarion.library.http import client

        url, marker, query = address.url.partition("?")
        part = _FIRST.fullmatch(url)
        count = int(part["count"]) if part else 1
        if part and not 1 <= int(part["number"]) <= count:
            raise FileError(f"{address}: found part {int(part['number'])} of {count}")
        urls = [f"{part['stem']}{i + 1:05d}-of-{count:05d}.gguf" for i in range(count)] if part else [url]
        paths = []
        with client() as http:
            for each in urls:
                path = self.path(Address(each))
                self._fetch(http, f"{each}{marker}{query}", each, path, report)
                paths.append(path)
        root = self.folder / urlsplit(url).scheme
        name = f"{root.name}://{paths[0].relative_to(root).as_posix()}"
        files = tuple(path.relative_to(root).as_posix() for path in paths)
        return self._found(root, Model(files, count, quant_of(files[0])), name)

    def _fetch(self, http: httpx.Client, url: str, shown: str, path: Path, report: Report) -> None:
        from clarion.library.download import Remote, download, locked
        from clarion.library.http import status_text

        def refusal(response: httpx.Response) -> ClarionError:
            if response.status_code in (404, 410):
                return NameNotFoundError(f"{shown}: there is no such file: {status_text(response)}")
            if response.status_code in (401, 403):
                return FileError(f"{shown}: access is refused: {status_text(response)}")
            return FileError(f"{shown}: {status_text(response)}")

        relative = "-".join(path.relative_to(self.folder).parts)
        with locked(self.folder / ".locks" / f"{relative[-200:]}.lock", shown, report):
            etag = _etag_file(path)
            with suppress(OSError):
                if path.exists() and _is_unchanged(http, url, etag.read_text(encoding="latin-1")):
                    return
            came = download(http, Remote(url, shown, refusal), path, report)
            if came:
                etag.write_text(came, encoding="latin-1")
            else:
                etag.unlink(missing_ok=True)

    def _found(self, root: Path, model: Model, name: str) -> Found:
        parts = tuple(root / file for file in model.files)
        size, modified = measured(parts)
        return Found(parts[0], name, self.source, size, model.quant, modified, parts, file=parts[0].name)


def _etag_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.etag")


def _is_unchanged(http: httpx.Client, url: str, etag: str) -> bool:
    """Whether the file is still the version of this ETag, or date; also where nobody can be asked."""
    import httpx

    try:
        # The answer is a file, of which nothing but the head is read.
        condition = "If-None-Match" if etag.startswith('"') else "If-Modified-Since"
        with http.stream("GET", url, headers={condition: etag}) as response:
            now = response.headers.get("ETag") or response.headers.get("Last-Modified")
            return response.status_code == 304 or (response.status_code == 200 and now == etag)
    except httpx.HTTPError:
        return True
