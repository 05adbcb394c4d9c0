"""The hub: which files a repository has, and fetching a model of it into the hub's cache."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from clarion.errors import ClarionError, FileError, NameNotFoundError
from clarion.library import environment
from clarion.library.download import Digest, Remote, download, locked
from clarion.library.found import Found, measured
from clarion.library.http import Report, client, fetch_json, status_text
from clarion.library.hub_cache import COMMIT, MAIN, HubCache
from clarion.library.quants import Model, NoChoiceError, choose, models_among
from clarion.library.reference import HubName

if TYPE_CHECKING:
    import httpx

_DIGESTS = {"sha256": re.compile(r"[0-9a-f]{64}"), "git": re.compile(r"[0-9a-f]{40}")}


@dataclass(frozen=True, slots=True)
class _Entry:
    size: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class _Listing:
    commit: str
    files: Mapping[str, _Entry | None]  # None where the hub does not say what is in it


def pull(name: HubName, report: Report) -> Found:
    """Fetches a model, as far as the cache does not have it, in its newest version.

    Raises:
        FileError: no access, no network, a disk that is full, or files that are not what the hub says.
        NameNotFoundError: no such repository, revision, quantisation or file.
    """
    return _Pull(name, report).run()


class _Pull:
    def __init__(self, name: HubName, report: Report) -> None:
        self._name, self._report = name, report
        self._endpoint = environment.hub_endpoint()
        self._token = environment.hub_token()
        self._cache = HubCache(environment.hub_cache())

    def run(self) -> Found:
        revision = self._name.revision or MAIN
        repository = self._name.repository
        with client() as http:
            url = f"{self._endpoint}/api/models/{repository}/revision/{quote(revision, safe='')}?blobs=true"
            _, answer = fetch_json(http, url, self._headers(), str(self._name), self._refusal, self._report)
            listing = self._listing(answer)
            model = self._chosen(listing)
            try:
                for file in model.files:
                    self._fetch(http, file, listing)
                self._cache.remember(repository, revision, listing.commit)
            except OSError as error:
                raise FileError(f"{error.filename}: cannot be written: {error.strerror}") from error
        parts = tuple(self._cache.snapshot(repository, listing.commit, file) for file in model.files)
        size, modified = measured(parts)
        rest = self._name.file or model.quant or model.name
        return Found(
            parts[0],
            f"{repository}:{rest}",
            self._cache.source,
            size,
            model.quant,
            modified,
            parts,
            repository,
            listing.commit,
            model.name,
        )

    def _fetch(self, http: httpx.Client, file: str, listing: _Listing) -> None:
        """One file into the cache, and its name in the commit."""
        entry, repository, commit = listing.files[file], self._name.repository, listing.commit
        path = self._cache.snapshot(repository, commit, file)
        if entry is None:
            raise FileError(f"{self._name}: the hub does not say which size and digest {file} has")
        if path.exists() and path.stat().st_size == entry.size:
            return
        blob = self._cache.blob(repository, entry.digest.hex)
        remote = Remote(
            f"{self._endpoint}/{repository}/resolve/{commit}/{quote(file)}",
            file,
            self._refusal,
            entry.size,
            entry.digest,
            self._headers(),
        )
        with locked(self._cache.lock(repository, entry.digest.hex), file, self._report):
            # Another process may have fetched it while this one waited.
            if not (blob.exists() and blob.stat().st_size == entry.size):
                download(http, remote, blob, self._report)
            self._cache.link(repository, commit, file, entry.digest.hex)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def _listing(self, answer: Any) -> _Listing:
        """What the hub's answer says. Its names become files, so they are held against the rules of names."""
        where = f"{self._name}: {self._endpoint}"
        if not isinstance(answer, dict) or not isinstance(answer.get("siblings"), list):
            raise FileError(f"{where}: found an answer without files, expected the listing of a repository")
        commit = answer.get("sha")
        if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
            raise FileError(f"{where}: found the commit {commit!r:.80}, expected 40 digits of base 16")
        files: dict[str, _Entry | None] = {}
        for item in answer["siblings"]:
            name = item.get("rfilename") if isinstance(item, dict) else None
            if not isinstance(name, str) or not _is_inside(name):
                raise FileError(
                    f"{where}: found a file called {name!r:.80}, expected a name inside the repository"
                )
            files[name] = _entry(item)
        return _Listing(commit, files)

    def _chosen(self, listing: _Listing) -> Model:
        models = models_among(listing.files)
        if not models:
            raise NameNotFoundError(
                f"{self._name}: the repository has no GGUF file; of a checkpoint one is made "
                f"with clarion convert {self._name.repository} OUT.gguf"
            )
        wanted = self._name.file
        try:
            if wanted is None:
                return choose(models, self._name.quant)
            for model in models:
                if wanted in model.files:
                    return choose([model])  # which is an error where parts are missing
        except NoChoiceError as error:
            raise NameNotFoundError(f"{self._name}: {error}") from None
        if wanted in listing.files:  # beside models, as a projector, but asked for
            return Model((wanted,), 1, "")
        names = ", ".join(model.name for model in models)
        raise NameNotFoundError(f"{self._name}: the repository has no such file, but {names}")

    def _refusal(self, response: httpx.Response) -> ClarionError:
        """The error for an answer that is not what was asked for."""
        repository, status = self._name.repository, response.status_code
        code = response.headers.get("X-Error-Code", "")
        log_in = (
            "the token that HF_TOKEN or hf auth login gave is sent, and does not allow it"
            if self._token
            else "then log in: hf auth login, or set HF_TOKEN"
        )
        if code == "GatedRepo" or status == 403:
            return FileError(
                f"{self._name}: access is restricted; ask for it at {self._endpoint}/{repository}; {log_in}"
            )
        if code == "RevisionNotFound":
            return NameNotFoundError(f"{self._name}: the repository has no revision {self._name.revision!r}")
        if code == "EntryNotFound":
            return FileError(f"{self._name}: the hub lists the file, but does not have it")
        if status in (401, 404):
            hint = log_in if self._token else "if it is private, log in: hf auth login, or set HF_TOKEN"
            return NameNotFoundError(f"{self._name}: no such repository at {self._endpoint}; {hint}")
        said = response.headers.get("X-Error-Message", "")
        return FileError(f"{self._name}: {status_text(response)}" + (f": {said[:200]}" if said else ""))


def _is_inside(name: str) -> bool:
    """Whether a name of a file leads to no other folder than the repository's own."""
    return bool(name) and "\\" not in name and "\0" not in name and not {"", ".", ".."} & set(name.split("/"))


def _entry(item: Mapping[str, Any]) -> _Entry | None:
    large = item.get("lfs")
    if isinstance(large, dict):
        kind, size, digest = "sha256", large.get("size"), large.get("sha256") or large.get("oid")
    else:
        kind, size, digest = "git", item.get("size"), item.get("blobId")
    if type(size) is not int or size < 0 or not isinstance(digest, str):
        return None
    if not _DIGESTS[kind].fullmatch(digest):
        return None
    return _Entry(size, Digest(kind, digest))
