"""A server on this machine that stands in for the hub, for its network of files, for Ollama's registry and
for any other address, as far as downloads use them.

It has two names, `127.0.0.1` and `localhost`: the hub is the one, and sends to the other for files, so that
whatever belongs to one host alone can be seen to stay there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LISTING = re.compile(r"/api/models/([\w.-]+/[\w.-]+)(?:/revision/([^/]+))?")
RESOLVE = re.compile(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)")
MANIFEST = re.compile(r"/v2/([\w.-]+/[\w.-]+)/manifests/([\w.-]+)")
BLOB = re.compile(r"/v2/[\w.-]+/[\w.-]+/blobs/sha256:([0-9a-f]{64})")
WEIGHTS = "application/vnd.ollama.image.model"
MANIFEST_KIND = "application/vnd.docker.distribution.manifest.v2+json"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Request:
    method: str
    host: str
    path: str
    headers: Mapping[str, str]


@dataclass
class Repository:
    """Files by name. What is `small` is kept by Git itself, without the hub's store of large files."""

    files: dict[str, bytes]
    small: set[str] = field(default_factory=set)
    gated: bool = False
    private: bool = False

    @property
    def commit(self) -> str:
        return hashlib.sha1(repr(sorted((n, sha256(d)) for n, d in self.files.items())).encode()).hexdigest()


Hook = Callable[["Handler", bytes], None]  # answers in the place of the server; gets the right content


class Server:
    """Attributes:
    repositories: of the hub.
    models: of Ollama's library: by namespace/name:tag, the weights.
    files: of any other address, by path.
    hooks: answers, by a word of the path, for the next requests of content.
    requests: what came, in order.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.models: dict[str, bytes] = {}
        self.files: dict[str, bytes] = {}
        self.hooks: dict[str, deque[Hook]] = defaultdict(deque)
        self.requests: list[Request] = []
        self.token: str | None = None
        self.ranges = True
        self.etags = True
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("_Handler", (Handler,), {"owner": self}))
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.hub = f"http://127.0.0.1:{self.port}"
        self.other = f"http://localhost:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def contents(self) -> list[Request]:
        """The requests for contents of files."""
        return [
            r for r in self.requests if (r.method == "GET" and "/content/" in r.path) or "/files/" in r.path
        ]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.owner.requests.append(
            Request(self.command, self.headers["Host"], self.path, dict(self.headers.items()))
        )
        with contextlib.suppress(ConnectionError):
            self._answer(urlsplit(self.path).path)

    do_HEAD = do_GET  # noqa: N815

    def _answer(self, path: str) -> None:
        if found := LISTING.fullmatch(path):
            return self._listing(found[1], unquote(found[2] or "main"))
        if found := MANIFEST.fullmatch(path):
            return self._manifest(f"{found[1]}:{found[2]}")
        if found := BLOB.fullmatch(path):
            return self.send(307, headers={"Location": f"{self.owner.other}/content/{found[1]}"})
        if path.startswith(("/content/", "/files/")):
            return self._content(path)
        if found := RESOLVE.fullmatch(path):
            return self._resolve(found[1], unquote(found[2]), unquote(found[3]))
        return self.send(404)

    def _allowed(self, name: str, *, content: bool) -> bool:
        repository = self.owner.repositories.get(name)
        known = self.owner.token is not None and self.headers["Authorization"] == f"Bearer {self.owner.token}"
        if repository is None or (repository.private and not known):
            self.send(401, headers={"X-Error-Code": "RepoNotFound"})
        elif repository.gated and content and not known:
            self.send(403 if self.headers["Authorization"] else 401, headers={"X-Error-Code": "GatedRepo"})
        else:
            return True
        return False

    def _listing(self, name: str, revision: str) -> None:
        if not self._allowed(name, content=False):
            return None
        repository = self.owner.repositories[name]
        if revision not in ("main", repository.commit):
            return self.send(404, headers={"X-Error-Code": "RevisionNotFound"})
        siblings = []
        for file, data in repository.files.items():
            blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
            item: dict[str, object] = {"rfilename": file, "size": len(data), "blobId": blob}
            if file not in repository.small:
                item["lfs"] = {"sha256": sha256(data), "size": len(data), "pointerSize": 133}
            siblings.append(item)
        body = {"id": name, "modelId": name, "sha": repository.commit, "siblings": siblings}
        return self.send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _resolve(self, name: str, revision: str, file: str) -> None:
        if not self._allowed(name, content=True):
            return None
        repository = self.owner.repositories[name]
        if revision not in ("main", repository.commit):
            return self.send(404, headers={"X-Error-Code": "RevisionNotFound"})
        commit = {"X-Repo-Commit": repository.commit}
        if file not in repository.files:
            return self.send(404, headers={"X-Error-Code": "EntryNotFound", **commit})
        data = repository.files[file]
        if file in repository.small:
            etag = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
            return self.content(data, {"ETag": f'"{etag}"', **commit})
        linked = {"X-Linked-ETag": f'"{sha256(data)}"', "X-Linked-Size": str(len(data))}
        location = f"{self.owner.other}/content/{sha256(data)}?pass=1"
        return self.send(302, headers={"Location": location, **linked, **commit})

    def _manifest(self, name: str) -> None:
        if name not in self.owner.models:
            return self.send(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
        data = self.owner.models[name]
        layers = [
            {"mediaType": WEIGHTS, "digest": f"sha256:{sha256(data)}", "size": len(data)},
            {
                "mediaType": "application/vnd.ollama.image.license",
                "digest": f"sha256:{sha256(b'free')}",
                "size": 4,
            },
        ]
        config = {"digest": f"sha256:{sha256(b'{}')}", "size": 2}
        body = {"schemaVersion": 2, "mediaType": MANIFEST_KIND, "config": config, "layers": layers}
        return self.send(200, json.dumps(body).encode(), {"Content-Type": "text/plain"})

    def _content(self, path: str) -> None:
        held = [d for r in self.owner.repositories.values() for d in r.files.values()]
        contents = {f"/content/{sha256(data)}": data for data in [*held, *self.owner.models.values()]}
        data = {**contents, **self.owner.files}.get(path)
        if data is None:
            return self.send(404)
        for word, hooks in self.owner.hooks.items():
            if word in path and hooks:
                return hooks.popleft()(self, data)
        return self.content(data)

    # ---- what hooks use -----------------------------------------------------------------------------------

    def content(
        self,
        data: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        etag: str | None = None,
        stop: int | None = None,
        stall: float = 0.0,
    ) -> None:
        """The content, or the part of it that is asked for.

        stop: the connection is cut after so many bytes of the body.
        stall: seconds of waiting before each piece of 64 kB.
        """
        given = dict(headers or {})
        if self.owner.etags:
            given.setdefault("ETag", etag or f'"{sha256(data)}"')
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        if self.headers.get("If-None-Match") == given.get("ETag") and "ETag" in given:
            return self.send(304, headers=given)
        first = int(wanted[1]) if wanted and self.owner.ranges else 0
        if condition is not None and condition != given.get("ETag"):
            first = 0
        if first >= len(data) > 0:
            return self.send(416, headers={**given, "Content-Range": f"bytes */{len(data)}"})
        body = data[first:]
        self.send_response(206 if first else 200)
        if first:
            given["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        self._headers({**given, "Content-Length": str(len(body)), "Content-Type": "application/octet-stream"})
        if self.command == "HEAD":
            return None
        body = body if stop is None else body[:stop]
        for at in range(0, len(body), 65536):
            if stall:
                threading.Event().wait(stall)
            self.wfile.write(body[at : at + 65536])
        self.wfile.flush()
        self.close_connection |= stop is not None
        return None

    def send(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        self._headers({**(headers or {}), "Content-Length": str(len(body))})
        if self.command != "HEAD" and status != 304:
            self.wfile.write(body)

    def _headers(self, headers: Mapping[str, str]) -> None:
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def cut(stop: int) -> Hook:
    """The connection ends after so many bytes."""
    return lambda handler, data: handler.content(data, stop=stop)


def status(code: int, **headers: str) -> Hook:
    return lambda handler, data: handler.send(
        code, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


def instead(body: bytes, kind: str = "text/html") -> Hook:
    """Another content, with the right code."""
    return lambda handler, data: handler.send(200, body, {"Content-Type": kind})


def http_date(seconds: float) -> str:
    return formatdate(seconds, usegmt=True)


@contextmanager
def running() -> Iterator[Server]:
    server = Server()
    try:
        yield server
    finally:
        server.close()
