"""The hub's cache: a folder that all programs of the hub share, laid out as huggingface_hub does.

models--OWNER--NAME/
  blobs/DIGEST                  the bytes, by their digest
  refs/REVISION                 the commit that a branch or a tag was
  snapshots/COMMIT/FILE         a relative link to the blob
.locks/models--OWNER--NAME/DIGEST.lock
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from clarion.errors import FileError
from clarion.library.found import Found, measured
from clarion.library.quants import models_among, name_within

_FOLDER = re.compile(r"models--([\w.-]+?)--([\w.-]+)", re.A)
COMMIT = re.compile(r"[0-9a-f]{40}")
MAIN = "main"
SHOWN_COMMIT = 12  # digits


@dataclass(frozen=True, slots=True)
class HubCache:
    """The cache in a folder, which need not be there."""

    folder: Path

    @property
    def source(self) -> str:
        return "hub"

    @property
    def is_shared(self) -> bool:
        """Whether its models are rather another program's: what lies here, each program may remove."""
        return False

    def repository(self, name: str) -> Path:
        """The folder of a repository."""
        return self.folder / f"models--{name.replace('/', '--')}"

    def blob(self, repository: str, digest: str) -> Path:
        return self.repository(repository) / "blobs" / digest

    def lock(self, repository: str, digest: str) -> Path:
        """The file that whoever writes this blob locks, in any program."""
        return self.folder / ".locks" / self.repository(repository).name / f"{digest}.lock"

    def snapshot(self, repository: str, commit: str, file: str) -> Path:
        return self.repository(repository) / "snapshots" / commit / file

    def remember(self, repository: str, revision: str, commit: str) -> None:
        """Notes which commit a branch or a tag is. Raises OSError."""
        if revision == commit:
            return
        path = self.repository(repository) / "refs" / revision
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != commit:
            temporary = path.with_name(f".{os.urandom(8).hex()}")
            temporary.write_text(commit)
            os.replace(temporary, path)

    def link(self, repository: str, commit: str, file: str, digest: str) -> None:
        """Gives a blob a file's name in a commit. On file systems without links the blob itself gets it.

        Raises OSError."""
        blob, path = self.blob(repository, digest), self.snapshot(repository, commit, file)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{os.urandom(8).hex()}")
        try:
            os.symlink(os.path.relpath(blob, path.parent), temporary)
        except OSError:
            os.replace(blob, path)
            return
        os.replace(temporary, path)

    def commit(self, repository: str, revision: str) -> str | None:
        """The commit that a branch or a tag was when it was fetched, or that begins so; None: neither."""
        folder = self.repository(repository)
        with suppress(OSError, UnicodeDecodeError):
            commit = (folder / "refs" / revision).read_text().strip()
            if COMMIT.fullmatch(commit):
                return commit
        if re.fullmatch(r"[0-9a-f]{7,40}", revision):
            return next((c for c, _ in self._snapshots(folder) if c.startswith(revision)), None)
        return None

    def models(self) -> Iterator[Found]:
        """Those of whole files, of each repository the newest commit first. Raises OSError."""
        for folder in sorted(self.folder.iterdir()) if self.folder.is_dir() else []:
            named = _FOLDER.fullmatch(folder.name)
            if named is None:
                continue
            newer: set[str] = set()  # quantisations, and names of files, of newer commits
            seen: set[tuple[str, tuple[Path, ...]]] = set()
            for commit, root in self._snapshots(folder):
                here = set()
                for found in self._of_snapshot(f"{named[1]}/{named[2]}", commit, root):
                    content = (found.file, tuple(part.resolve() for part in found.parts))
                    here.add(found.quant or found.file)
                    if content in seen:  # a commit that changed other files
                        continue
                    seen.add(content)
                    if (found.quant or found.file) in newer:
                        rest = found.name.partition(":")[2]
                        name = f"{found.repository}@{commit[:SHOWN_COMMIT]}:{rest}"
                        found = replace(found, name=name, is_old=True)
                    yield found
                newer |= here

    def _of_snapshot(self, repository: str, commit: str, root: Path) -> Iterator[Found]:
        files = (path for path in root.rglob("*.gguf") if not path.name.startswith(".") and path.is_file())
        models = models_among(path.relative_to(root).as_posix() for path in files)
        for model in models:
            if model.is_whole:
                parts = tuple(root / name for name in model.files)
                size, modified = measured(parts)
                yield Found(
                    parts[0],
                    f"{repository}:{name_within(model, models)}",
                    self.source,
                    size,
                    model.quant,
                    modified,
                    parts,
                    repository,
                    commit,
                    model.name,
                )

    def _snapshots(self, folder: Path) -> list[tuple[str, Path]]:
        """Commits and their folders: that of the main branch first, then the newest."""
        try:
            found = [path for path in (folder / "snapshots").iterdir() if COMMIT.fullmatch(path.name)]
            main = ""
            with suppress(FileNotFoundError):
                main = (folder / "refs" / MAIN).read_text().strip()
            found.sort(key=lambda path: (path.name != main, -path.stat().st_mtime, path.name))
        except FileNotFoundError:
            return []
        return [(path.name, path) for path in found]

    def remove(self, found: Found, *, pinned: bool = False) -> list[Path]:
        """Removes a model: its names, the blobs that no other name leads to, and what is left empty.

        Its names are those in all commits that have it so; where it is `pinned`, that in its own alone.
        Returns the blobs that are gone. Raises FileError."""
        folder = self.repository(found.repository)
        try:
            blobs = {part.resolve() for part in found.parts}
            root = self.snapshot(found.repository, found.revision, ".")
            names = {part.relative_to(root) for part in found.parts}
            commits = [root] if pinned else [path for _, path in self._snapshots(folder)]
            links = [commit / name for commit in commits for name in sorted(names)]
            links = [link for link in links if link.resolve() in blobs or link in found.parts]
            for link in links:
                link.unlink()
            used = {path.resolve() for path in (folder / "snapshots").rglob("*") if path.is_symlink()}
            home = (folder / "blobs").resolve()
            gone = sorted(blob for blob in blobs - used if blob.parent == home)
            for blob in gone:
                blob.unlink()
            for link in links:
                _remove_empty(link.parent, folder)
            for ref in [path for path in (folder / "refs").rglob("*") if path.is_file()]:
                # To a commit of which nothing is left, a reference would be a fault of the cache.
                if not (folder / "snapshots" / ref.read_text().strip()).is_dir():
                    ref.unlink()
                    _remove_empty(ref.parent, folder)
        except OSError as error:
            raise FileError(f"{error.filename}: cannot be removed: {error.strerror}") from error
        _remove_empty(folder / "blobs", self.folder)
        return gone


def _remove_empty(path: Path, root: Path) -> None:
    """Removes folders from here up to the root, as long as they are empty."""
    with suppress(OSError):
        while path != root:
            path.rmdir()
            path = path.parent
