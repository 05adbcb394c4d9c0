"""Prefixes that are kept in a folder, under a budget of bytes, and found again after a restart.

A file is a saved state (`files.py`). Its name says whose it is and what is in it: a fingerprint of the model
and its formats, and one of the tokens. So equal prefixes have one file, whoever writes them, and the listing
of the folder is the index: a file is there as a whole or not at all, whenever a process ends. What the files
hold is read once, when they are first seen. When a file was last used is its time of change; those that were
used least recently are removed where the budget is exceeded.

Several processes may use one folder. A file that another one has removed is not found, and that is all.

The engine's thread looks prefixes up, the disk's thread keeps them and removes files. A lock guards what they
share, and is not held while anything is read or written.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from clarion.errors import ClarionError, ContextError, FileError, ParameterError
from clarion.gguf.texts import as_path
from clarion.runtime.states.files import SavedState
from clarion.runtime.states.layout import Layout
from clarion.runtime.states.prefixes import LEAST_KEPT, common
from clarion.runtime.states.states import SequenceState

# Of a longer file only the beginning may be wanted, but all of it is read: not for less than this share.
LEAST_SHARE = 1 / 8
_SUFFIX = ".prefix"
_KEY = 16  # tokens by which kept prefixes are told apart first; all of them are longer
_STALE_SECONDS = 3600.0  # what a process that was killed has left half written


@dataclass(frozen=True, slots=True)
class Kept:
    """A file of the folder."""

    path: Path
    tokens: list[int]
    n_bytes: int


class PrefixFolder:
    """The prefixes of one model that a folder has."""

    def __init__(
        self,
        folder: str | os.PathLike[str],
        budget_bytes: int,
        layout: Layout,
        context: int,
        *,
        anywhere: bool,
    ) -> None:
        """Makes the folder if there is none, for its owner alone: prefixes are what people wrote.

        `anywhere`: whether states can be truncated to any length, so that the beginning of a file is of use.

        Raises:
            FileError: it cannot be made or read.
            ParameterError: it is no name of a folder.
        """
        self.budget_bytes = budget_bytes
        self._folder = as_path(folder)
        self._layout = layout
        self._context = context
        self._anywhere = anywhere
        self._model = blake2b(f"{layout.meaning} {layout.fingerprints}".encode(), digest_size=8).hexdigest()
        self._lock = threading.Lock()
        self._kept: dict[Path, Kept] = {}
        self._by_key: dict[tuple[int, ...], list[Kept]] = {}
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.look()
        except OSError as error:
            raise FileError(f"{self._folder}: cannot be used: {error.strerror or error}") from error

    # ---- looking up ---------------------------------------------------------------------------------------

    def longest(self, tokens: list[int], least: int) -> tuple[int, Kept | None]:
        """How many of the first tokens a file can stand for, and which: so many as pay beyond `least`."""
        best: tuple[int, Kept | None] = (0, None)
        with self._lock:
            kept = list(self._by_key.get(tuple(tokens[:_KEY]), ()))
        for each in kept:
            n = common(tokens, each.tokens)
            if n < len(each.tokens) and not (self._anywhere and n >= LEAST_SHARE * len(each.tokens)):
                continue
            if n >= least + LEAST_KEPT and n > best[0]:
                best = (n, each)
        return best

    def covers(self, tokens: list[int]) -> bool:
        """Whether a file has all of these tokens already, for whoever continues them."""
        with self._lock:
            kept = list(self._by_key.get(tuple(tokens[:_KEY]), ()))
        return any(
            len(each.tokens) == len(tokens) or self._anywhere
            for each in kept
            if common(tokens, each.tokens) == len(tokens)
        )

    # ---- on the disk's thread -----------------------------------------------------------------------------

    def keep(self, state: SequenceState, go_on: Callable[[], None]) -> int:
        """Writes a state, and removes what the budget has no room for. Returns the bytes of the file."""
        path = self._path(state.tokens)
        n_bytes = state.save(path, go_on)
        self._add(Kept(path, list(state.tokens), n_bytes))
        self._remove_covered(path)
        self.look()
        self._remove_oldest()
        return n_bytes

    def fill(self, state: SequenceState, kept: Kept, go_on: Callable[[], None]) -> bool:
        """Reads a file into a state that has room for it. False where that cannot be done: then the file is
        forgotten and, where it is damaged, removed with a warning."""
        try:
            with SavedState(kept.path) as saved:
                saved.check(self._layout, len(kept.tokens))
                state.fill(saved, go_on)
            if state.tokens != kept.tokens:
                raise ParameterError(f"{kept.path}: it has other tokens than it had")
        except (FileError, ParameterError, ContextError) as error:
            self._forget(kept)
            self._warn_of(kept.path, error)
            return False
        self._touch(kept.path)
        return True

    def look(self) -> None:
        """Reads what files there are: those of other processes are found, and those that are gone forgotten.

        Raises:
            OSError: the folder cannot be read.
        """
        there: set[Path] = set()
        for entry in self._entries():
            path = Path(entry.path)
            there.add(path)
            if path not in self._kept:
                try:
                    with SavedState(path) as saved:
                        if not _KEY <= saved.n_tokens <= self._context:
                            continue  # of a longer context than this one
                        saved.check(self._layout, self._context)
                        tokens = saved.tokens()
                    self._add(Kept(path, tokens, entry.stat().st_size))
                except (ClarionError, OSError) as error:
                    self._warn_of(path, error)
        for kept in list(self._kept.values()):
            if kept.path not in there:
                self._forget(kept)

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        """The files of this model. What was left half written long ago is removed."""
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.startswith(self._model) and entry.name.endswith(_SUFFIX):
                    yield entry
                elif entry.name.startswith(".") and entry.name.endswith(".partial"):
                    try:
                        if time.time() - entry.stat().st_mtime > _STALE_SECONDS:
                            os.unlink(entry.path)
                    except OSError:
                        continue  # another process has removed it, or may alone

    def _remove_oldest(self) -> None:
        """Removes files, the least recently used first, until the budget holds all of them."""
        used = []
        for entry in self._entries():
            try:
                found = entry.stat()
            except FileNotFoundError:  # removed by another process
                continue
            used.append((found.st_mtime_ns, found.st_size, Path(entry.path)))
        total = sum(n_bytes for _, n_bytes, _ in used)
        for _, n_bytes, path in sorted(used):
            if total <= self.budget_bytes:
                break
            self._remove(path)
            total -= n_bytes

    def _remove_covered(self, path: Path) -> None:
        """Removes the files whose tokens a longer one has too, where its beginning is of the same use."""
        if not self._anywhere:
            return
        longer = self._kept[path].tokens
        for kept in list(self._kept.values()):
            n = len(kept.tokens)
            if kept.path != path and longer[:n] == kept.tokens and n >= LEAST_SHARE * len(longer):
                self._remove(kept.path)

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        kept = self._kept.get(path)
        if kept is not None:
            self._forget(kept)

    def _touch(self, path: Path) -> None:
        """It was used now."""
        try:
            os.utime(path)
        except OSError:
            return  # another process has removed it, or owns it

    def _add(self, kept: Kept) -> None:
        with self._lock:
            if kept.path not in self._kept:
                self._by_key.setdefault(tuple(kept.tokens[:_KEY]), []).append(kept)
            self._kept[kept.path] = kept

    def _forget(self, kept: Kept) -> None:
        with self._lock:
            if self._kept.pop(kept.path, None) is not None:
                key = tuple(kept.tokens[:_KEY])
                same = self._by_key[key]
                same[:] = [each for each in same if each.path != kept.path]
                if not same:
                    del self._by_key[key]

    def _path(self, tokens: Sequence[int]) -> Path:
        name = blake2b(array("i", tokens).tobytes(), digest_size=16).hexdigest()
        return self._folder / f"{self._model}-{name}{_SUFFIX}"

    def _warn_of(self, path: Path, error: Exception) -> None:
        """A file is of no use. One that is damaged is removed; one that is gone is nothing to speak of."""
        if not path.exists():
            return
        warnings.warn(f"a kept prefix is removed: {error}", stacklevel=2)
        try:
            path.unlink(missing_ok=True)
        except OSError as refused:
            warnings.warn(f"{path}: cannot be removed: {refused.strerror or refused}", stacklevel=2)
