"""Repositories of Hugging Face's hub: what a conversion needs of one, by way of huggingface_hub's cache."""

from __future__ import annotations

import importlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from clarion.convert import texts
from clarion.convert.checkpoint import is_beside, is_index, places, shards, weights_among
from clarion.errors import FileError, UnsupportedError

_NAME = re.compile(r"(\w[\w.-]*)/(\w[\w.-]*)(?:@([\w./-]+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository of models.

    Attributes:
        owner, name: as in `owner/name`.
        revision: a branch, a tag or a commit; None: what is newest.
    """

    owner: str
    name: str
    revision: str | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """The repository of `owner/name` or `owner/name@revision`.

        Raises:
            FileError: anything else.
        """
        match = _NAME.fullmatch(text)
        if match is None:
            if text == "-":
                raise FileError(f"{text}: a checkpoint cannot be read from standard input")
            if os.path.islink(text):
                raise FileError(f"{text}: it is a link to {os.readlink(text)}, which cannot be followed")
            raise FileError(
                f"{text}: no such folder; expected one, or a repository as owner/name or owner/name@revision"
            )
        return cls(*match.groups())

    def __str__(self) -> str:
        return f"{self.owner}/{self.name}" + (f"@{self.revision}" if self.revision is not None else "")

    def download(self) -> Path:
        """The folder with config.json, tokenizer and weights.

        Files that are in the cache are not fetched again, so that what was interrupted goes on with the file
        that it stopped in. Without a network the cache's copy is used. Weights come last: a copy that has
        them has everything.

        Raises:
            UnsupportedError: huggingface_hub is not installed.
            FileError: no such repository or revision, no access, no network, no checkpoint in it.
        """
        try:
            hub: Any = importlib.import_module("huggingface_hub")
            errors: Any = importlib.import_module("huggingface_hub.errors")
        except ImportError as error:
            raise UnsupportedError(
                f"{self}: no such folder, and huggingface_hub, which downloads repositories, is not here; "
                "pip install 'clarion[hub]'"
            ) from error
        # HTTPError is the root of what the library's HTTP client raises, whichever client that is.
        unreachable = (errors.HTTPError, OSError)
        try:
            return self._download(hub, errors, unreachable)
        except (*unreachable, errors.EntryNotFoundError, errors.HFValidationError) as error:
            raise FileError(f"{self}: {self._explained(error, hub, errors)}") from error

    def _download(self, hub: Any, errors: Any, unreachable: tuple[type[Exception], ...]) -> Path:
        repository = f"{self.owner}/{self.name}"
        try:
            listed = hub.model_info(repository, revision=self.revision).siblings
        except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
            raise
        except unreachable as error:
            return self._cached(hub, errors, error)
        names = {file.rfilename for file in listed}
        weights = weights_among(names, str(self))

        def fetch(name: str, revision: str | None) -> Path:
            return Path(hub.hf_hub_download(repository, name, revision=revision))

        # The only file that is asked for by branch or tag: the cache keeps which commit that was.
        config = fetch("config.json", self.revision)
        folder = config.parent
        for name in sorted(filter(is_beside, names - {"config.json"})):
            fetch(name, folder.name)
        path = fetch(weights, folder.name)
        if is_index(weights):
            found = places(texts.json(path.read_bytes(), str(path)), str(path))
            values = texts.json(config.read_bytes(), str(config))
            for name in shards(found, values, names.__contains__):
                fetch(name, folder.name)
        return folder

    def _cached(self, hub: Any, errors: Any, reason: Exception) -> Path:
        """What an earlier download left."""
        try:
            config = hub.hf_hub_download(
                f"{self.owner}/{self.name}", "config.json", revision=self.revision, local_files_only=True
            )
        except errors.LocalEntryNotFoundError:
            raise FileError(
                f"{self}: no such folder and no copy in {hub.constants.HF_HUB_CACHE}, and "
                f"{hub.constants.ENDPOINT} cannot be reached: {reason}"
            ) from reason
        return Path(config).parent

    def _explained(self, error: Exception, hub: Any, errors: Any) -> str:
        endpoint = hub.constants.ENDPOINT
        if isinstance(error, errors.GatedRepoError):
            return (
                f"access is restricted; ask for it at {endpoint}/{self.owner}/{self.name}, "
                "then log in with: hf auth login"
            )
        if isinstance(error, errors.RepositoryNotFoundError):
            return f"no such folder, and no such repository at {endpoint}, or it is private: hf auth login"
        if isinstance(error, errors.RevisionNotFoundError):
            return f"the repository has no revision {self.revision!r}"
        if isinstance(error, errors.RemoteEntryNotFoundError):
            return "config.json is missing, expected a checkpoint as Hugging Face's transformers have it"
        return f"cannot be downloaded: {error}"
