"""What a name of a model names, told by its letters alone.

| written | means |
|---|---|
| `owner/name`, with `@revision`, `:quant` or `:file.gguf` behind it | a repository of the hub |
| the same behind `hf.co/`, `https://huggingface.co/` or `hf://`, or one of its files' addresses | likewise |
| `https://host/path/file.gguf` | that file |
| `name`, `name:tag`, or an address at ollama.com | a model of Ollama's library; here, any of that name |
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from clarion.errors import ParameterError
from clarion.library.environment import hub_endpoint

_PART = r"[A-Za-z0-9_][\w.-]*"
_REPOSITORY = re.compile(
    rf"(?P<repository>{_PART}/{_PART})(?:@(?P<revision>[\w./-]+))?(?::(?P<rest>[^:]+))?", re.A
)
_FILE_OF_REPOSITORY = re.compile(rf"(?P<repository>{_PART}/{_PART})/(?P<file>.+\.gguf)", re.A | re.I)
_FILE_ADDRESS = re.compile(
    rf"(?P<repository>{_PART}/{_PART})/(?:resolve|blob|raw)/(?P<revision>[^/]+)/(?P<file>.+)", re.A
)
_TREE = re.compile(rf"(?P<repository>{_PART}/{_PART})/tree/(?P<revision>[^/]+)/?", re.A)
_QUANT = re.compile(r"[A-Za-z0-9][\w.-]*", re.A)
_OLLAMA = re.compile(rf"(?:(?P<namespace>{_PART})/)?(?P<name>{_PART})(?::(?P<tag>{_PART}))?", re.A)
_HUB_HOSTS = ("hf.co", "huggingface.co", "www.huggingface.co", "hf", "huggingface")
_OLLAMA_HOSTS = ("ollama.com", "www.ollama.com", "registry.ollama.ai", "ollama")
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):/{1,2}(?P<rest>.*)", re.S)
LATEST, LIBRARY = "latest", "library"


@dataclass(frozen=True, slots=True)
class HubName:
    """A model in a repository of the hub.

    Attributes:
        repository: as owner/name.
        revision: a branch, a tag or a commit; None: what is newest.
        quant: as it was written; None: the preferred one.
        file: the name of a file of the repository, instead of a quantisation.
    """

    repository: str
    revision: str | None = None
    quant: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision is not None else ""
        rest = self.file or self.quant
        return f"{self.repository}{revision}" + (f":{rest}" if rest is not None else "")


@dataclass(frozen=True, slots=True)
class OllamaName:
    """A model of Ollama's library. `tag` is None where nobody said one, which means `latest` there."""

    name: str
    tag: str | None = None
    namespace: str = LIBRARY

    def __str__(self) -> str:
        owner = "" if self.namespace == LIBRARY else f"ollama.com/{self.namespace}/"
        return f"{owner}{self.name}" + (f":{self.tag}" if self.tag is not None else "")


@dataclass(frozen=True, slots=True)
class Address:
    """A file anywhere. `url` begins with http:// or https:// and its path ends in .gguf."""

    url: str

    def __str__(self) -> str:
        return self.url


Reference = HubName | OllamaName | Address


def parse(text: str) -> Reference:
    """What a name names.

    Raises:
        ParameterError: it is no name of a model; a path is none.
    """
    if address := _SCHEME.fullmatch(text):
        scheme, rest = address["scheme"].lower(), address["rest"]
        if scheme in ("hf", "huggingface"):
            return _of_hub(rest.removeprefix("/"), text)
        if scheme == "ollama":
            return _of_ollama(rest.removeprefix("/"), text)
        if scheme not in ("http", "https"):
            raise ParameterError(f"{text}: found an address with {scheme}:, expected https: or http:")
        return _of_address(f"{scheme}://{rest}", text)
    host, slash, rest = text.partition("/")
    if slash and host.lower() in _HUB_HOSTS[:3]:
        return _of_hub(rest, text)
    if slash and host.lower() in _OLLAMA_HOSTS[:3]:
        return _of_ollama(rest, text)
    if "/" in text:
        return _of_hub(text, text)
    if named := _OLLAMA.fullmatch(text):
        return OllamaName(named["name"], named["tag"])
    raise ParameterError(
        f"{text!r}: found no name of a model, expected one as owner/name, name:tag or https://"
    )


def _of_address(url: str, text: str) -> Reference:
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
        hub = urlsplit(hub_endpoint())
    except ValueError as error:
        raise ParameterError(f"{text}: no address: {error}") from None
    path = parts.path.strip("/")
    if host in _HUB_HOSTS or (host, parts.port) == (hub.hostname, hub.port):
        return _of_hub(path, text)
    if host in _OLLAMA_HOSTS:
        return _of_ollama(path, text)
    steps = unquote(path).split("/")
    if not host or not path.lower().endswith(".gguf"):
        raise ParameterError(f"{text}: expected the address of a file whose name ends in .gguf")
    if any(step in (".", "..") or "\0" in step for step in steps):
        raise ParameterError(f"{text}: found '.' or '..' in the path of an address, expected names")
    return Address(url)


def _of_hub(path: str, text: str) -> HubName:
    path = path.rstrip("/")
    if found := _FILE_ADDRESS.fullmatch(path) or _TREE.fullmatch(path):
        named = found.groupdict()
        file = unquote(named["file"]) if named.get("file") else None
        return _checked(HubName(named["repository"], unquote(named["revision"]), None, file), text)
    found = _REPOSITORY.fullmatch(path)
    if found:
        rest = found["rest"]
        if rest is not None and rest.lower().endswith(".gguf"):
            return _checked(HubName(found["repository"], found["revision"], None, rest), text)
        if rest is None or _QUANT.fullmatch(rest):
            return _checked(HubName(found["repository"], found["revision"], rest), text)
    elif found := _FILE_OF_REPOSITORY.fullmatch(path):
        return _checked(HubName(found["repository"], None, None, unquote(found["file"])), text)
    raise ParameterError(
        f"{text}: expected a repository of the hub as owner/name, owner/name:QUANT or owner/name@revision"
    )


def _checked(name: HubName, text: str) -> HubName:
    """Refuses what would lead out of a folder."""
    for written in (name.repository, name.revision, name.file):
        for part in written.split("/") if written is not None else ():
            if part in ("", ".", "..") or "\0" in part:
                raise ParameterError(f"{text}: found {part!r} between slashes, expected a name")
    if name.file is not None and not name.file.lower().endswith(".gguf"):
        raise ParameterError(f"{text}: expected a file whose name ends in .gguf")
    return name


def _of_ollama(path: str, text: str) -> OllamaName:
    named = _OLLAMA.fullmatch(path.strip("/"))
    if named is None:
        raise ParameterError(
            f"{text}: expected a model of Ollama's library as name, name:tag or owner/name:tag"
        )
    return OllamaName(named["name"], named["tag"], named["namespace"] or LIBRARY)
