"""Ollama's library: the folder that it keeps models in, and its registry.

    manifests/HOST/NAMESPACE/NAME/TAG   JSON: the layers of a model
    blobs/sha256-DIGEST                 their bytes; that of the weights is a GGUF file

Clarion keeps what it fetches of the registry in a folder of its own, laid out the same. Of a model's layers
it fetches the weights alone: template and parameters are those that the GGUF file holds.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clarion.errors import ClarionError, FileError, NameNotFoundError
from clarion.library import environment
from clarion.library.found import Found, measured
from clarion.library.quants import quant_of
from clarion.library.reference import LATEST, OllamaName

if TYPE_CHECKING:
    import httpx

    from clarion.library.http import Report

HOST = "registry.ollama.ai"
_WEIGHTS = "application/vnd.ollama.image.model"
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_MAX_MANIFEST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a model is made of.

    Attributes:
        weights: the digest of the GGUF file.
        bytes: of that file.
        digests: of all layers, the file among them.
    """

    weights: str
    bytes: int
    digests: frozenset[str]

    @classmethod
    def read(cls, value: Any, where: str) -> Manifest:
        """Raises FileError for what is no manifest of a model in one GGUF file."""
        layers = value.get("layers") if isinstance(value, dict) else None
        if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
            raise FileError(f"{where}: found no layers, expected the manifest of a model")
        weights = [layer for layer in layers if layer.get("mediaType") == _WEIGHTS]
        if len(weights) != 1:
            raise FileError(f"{where}: found {len(weights)} layers of weights, expected one GGUF file")
        size = weights[0].get("size")
        if type(size) is not int or size < 0:
            raise FileError(f"{where}: found {size!r:.40} as the size of the weights, expected bytes")
        config = value.get("config")
        others = [*layers, *([config] if isinstance(config, dict) else [])]
        return cls(_digest(weights[0], where), size, frozenset(_digest(layer, where) for layer in others))


@dataclass(frozen=True, slots=True)
class OllamaFolder:
    """A folder of models laid out as Ollama does, which need not be there.

    Attributes:
        is_shared: whether it is Ollama's own.
    """

    folder: Path
    source: str
    is_shared: bool

    def models(self) -> Iterator[Found]:
        """Those whose weights are here. Raises OSError."""
        for path in sorted(self.folder.glob("manifests/*/*/*/*")):
            manifest = self._manifest(path)
            if manifest is None or not (blob := self._blob(manifest.weights)).is_file():
                continue
            host, namespace, name, tag = path.parts[-4:]
            size, modified = measured([blob])
            yield Found(
                blob,
                _name(host, namespace, name, tag),
                self.source,
                size,
                quant_of(tag),
                modified,
                (blob,),
                # Ollama fetches from the hub too.
                f"{namespace}/{name}" if host in ("hf.co", "huggingface.co") else "",
            )

    def remove(self, found: Found, *, pinned: bool = False) -> list[Path]:
        """Removes a model, and those of its layers that no other model has. Raises FileError."""
        try:
            manifests = {path: self._manifest(path) for path in self.folder.glob("manifests/*/*/*/*")}
            for path, manifest in manifests.items():
                if manifest is None or _name(*path.parts[-4:]) != found.name:
                    continue
                used = {digest for other in manifests.items() if other[0] != path for digest in _of(other[1])}
                gone = [self._blob(digest) for digest in sorted(manifest.digests - used)]
                gone = [blob for blob in gone if blob.exists()]
                path.unlink()
                for blob in gone:
                    blob.unlink()
                return gone or [path]
        except OSError as error:
            raise FileError(f"{error.filename}: cannot be removed: {error.strerror}") from error
        raise FileError(f"{found.name}: its manifest in {self.folder} is gone meanwhile")

    def pull(self, name: OllamaName, report: Report) -> Found:
        """Fetches a model of the registry, as far as it is not here, in its newest version.

        Raises:
            FileError: no network, a disk that is full, or a file that is not what the registry says.
            NameNotFoundError: no such model or tag.
        """
        from clarion.gguf.writable import write_beside
        from clarion.library.download import Digest, Remote, download, locked
        from clarion.library.http import client, fetch_json, status_text

        tag = name.tag or LATEST
        full = f"{name.namespace}/{name.name}"
        registry = f"{environment.ollama_registry()}/v2/{full}"

        def refusal(response: httpx.Response) -> ClarionError:
            if response.status_code in (401, 403, 404):
                shown = f"https://ollama.com/{full}/tags"
                return NameNotFoundError(
                    f"{name}: Ollama's registry has no {name.name} with the tag {tag}, or it is private; "
                    f"{shown} lists what there is"
                )
            return FileError(f"{name}: {status_text(response)}")

        with client() as http:
            where = f"{registry}/manifests/{tag}"
            data, value = fetch_json(http, where, {"Accept": _MANIFEST}, str(name), refusal, report)
            manifest = Manifest.read(value, f"{name}: {where}")
            blob = self._blob(manifest.weights)
            remote = Remote(
                f"{registry}/blobs/{manifest.weights}",
                f"{name.name}:{tag}",
                refusal,
                manifest.bytes,
                Digest("sha256", manifest.weights.removeprefix("sha256:")),
            )
            lock = self.folder / ".locks" / f"{blob.name}.lock"
            with locked(lock, remote.what, report):
                if not (blob.exists() and blob.stat().st_size == manifest.bytes):
                    download(http, remote, blob, report)
                path = self.folder / "manifests" / HOST / full / tag
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                except OSError as error:
                    raise FileError(f"{path.parent}: cannot be made: {error.strerror}") from error
                write_beside(path, lambda file: file.write(data))
        size, modified = measured([blob])
        full_name = _name(HOST, name.namespace, name.name, tag)
        return Found(blob, full_name, self.source, size, quant_of(tag), modified, (blob,))

    def _blob(self, digest: str) -> Path:
        return self.folder / "blobs" / digest.replace(":", "-")

    def _manifest(self, path: Path) -> Manifest | None:
        """None for what is none: other programs may keep other things there."""
        try:
            if not path.is_file() or os.path.getsize(path) > _MAX_MANIFEST_BYTES:
                return None
            return Manifest.read(json.loads(path.read_bytes()), str(path))
        except (ValueError, RecursionError, FileError):
            return None


def _of(manifest: Manifest | None) -> frozenset[str]:
    return manifest.digests if manifest is not None else frozenset()


def _digest(layer: Mapping[str, Any], where: str) -> str:
    digest = layer.get("digest")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise FileError(f"{where}: found the digest {digest!r:.80}, expected sha256: and 64 digits")
    return digest


def _name(host: str, namespace: str, name: str, tag: str) -> str:
    if host != HOST:
        return f"{host}/{namespace}/{name}:{tag}"
    return str(OllamaName(name, tag, namespace))
