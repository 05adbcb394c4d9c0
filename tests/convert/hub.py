"""A server on this machine that speaks the part of the hub's interface that downloads use."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
RESOLVE = re.compile(r"/(\w+/[\w.-]+)/resolve/([^/]+)/(.+)")
LISTING = re.compile(r"/api/models/(\w+/[\w.-]+)(?:/revision/([^/?]+))?")


class Hub:
    """Repositories: folders by name, each with the branch `main` alone.

    Attributes:
        endpoint: what HF_ENDPOINT has to be.
        requests: (method, file) of what was asked for, in order.
        gated: names of repositories whose files nobody gets.
        breaks: a file whose first answer stops in the middle.
        hangs: whether the connection stays open then.
    """

    def __init__(self, repositories):
        self.repositories = repositories
        self.requests = []
        self.gated = set()
        self.breaks = None
        self.hangs = False
        self.broken = threading.Event()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                hub._answer(self)

            do_HEAD = do_GET  # noqa: N815

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def files(self):
        """What was sent, in order."""
        return [file for found, file in self.requests if found == "GET"]

    def _answer(self, request):
        listing, resolve = LISTING.fullmatch(request.path), RESOLVE.fullmatch(request.path)
        if not (listing or resolve):
            return self._error(request, 404, "")
        name, revision = (listing or resolve).group(1, 2)
        if name not in self.repositories:
            return self._error(request, 401, "RepoNotFound")
        if revision not in (None, "main", COMMIT):
            return self._error(request, 404, "RevisionNotFound")
        folder = self.repositories[name]
        if listing:
            files = (path for path in sorted(folder.rglob("*")) if path.is_file())
            siblings = [{"rfilename": path.relative_to(folder).as_posix()} for path in files]
            body = json.dumps({"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings}).encode()
            return self._send(request, 200, body, {})
        file = resolve[3]
        if name in self.gated:
            return self._error(request, 403, "GatedRepo")
        self.requests.append((request.command, file))
        if not (folder / file).exists():
            return self._error(request, 404, "EntryNotFound")
        body = (folder / file).read_bytes()
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(body).hexdigest()}"'}
        return self._send(request, 200, body, headers)

    def _error(self, request, status, code):
        self._send(request, status, b"", {"X-Error-Code": code, "X-Repo-Commit": COMMIT})

    def _send(self, request, status, body, headers):
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command == "HEAD":
            return
        if self.breaks is not None and request.path.endswith(self.breaks) and not self.broken.is_set():
            request.wfile.write(body[: len(body) // 2])
            request.wfile.flush()
            self.broken.set()
            if self.hangs:
                threading.Event().wait()
            request.close_connection = True
            return
        with contextlib.suppress(ConnectionError):
            request.wfile.write(body)
