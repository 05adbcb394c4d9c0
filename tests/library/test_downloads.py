"""What goes wrong on the way of a file, and what is left of it then."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clarion.errors import ClarionError, FileError
from clarion.library import Report, find, http, pull
from tests.library.server import WEIGHTS, Handler, Repository, Server, cut, http_date, instead, sha256, status
from tests.library.test_pull import gguf, hub_cache

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 4900000000\n"
PAGE = b"<!DOCTYPE html><html><body>Log in to this network</body></html>"


@pytest.fixture
def data(server: Server) -> bytes:
    """The file of org/repo, and that at files/m.gguf."""
    data = gguf(300_000)
    server.repositories["org/repo"] = Repository({"m.gguf": data})
    server.files["/files/m.gguf"] = data
    return data


def address(server: Server) -> str:
    return f"{server.other}/files/m.gguf"


def partials(home: Path) -> list[Path]:
    return sorted(path for path in home.rglob("*.incomplete*"))


def models(home: Path) -> list[Path]:
    return [path for path in home.rglob("*") if path.suffix == ".gguf" or path.parent.name == "blobs"]


def ranges(server: Server) -> list[str | None]:
    return [request.headers.get("Range") for request in server.contents()]


# ---- connections that end ------------------------------------------------------------------------------


HEAD = 512  # bytes are looked at before any is written


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stops=st.lists(st.integers(0, 120_000), max_size=5), of_hub=st.booleans())
def test_connections_cut_anywhere(server: Server, home: Path, stops: list[int], of_hub: bool) -> None:
    data = gguf(300_000)
    server.repositories["org/repo"] = Repository({"m.gguf": data})
    server.files["/files/m.gguf"] = data
    for path in [path for path in home.rglob("*") if path.is_file() or path.is_symlink()]:
        path.unlink()
    server.requests.clear()
    server.hooks["content" if of_hub else "files"].extend(map(cut, stops))
    found = pull("org/repo" if of_hub else address(server))
    server.hooks.clear()
    assert found.path.read_bytes() == data
    assert partials(home) == []
    # No byte was asked for twice.
    here, expected = 0, list[str | None]()
    for stop in [*stops, len(data)]:
        expected.append(f"bytes={here}-" if here else None)
        here += stop if here or stop >= HEAD else 0
        if here >= len(data):
            break
    assert ranges(server) == expected


def test_too_many_failures_end_with_one_error(server: Server, data: bytes, home: Path) -> None:
    server.hooks["content"].extend([cut(100_000), *[cut(0)] * (http.ATTEMPTS - 1)])
    with pytest.raises(FileError, match=r"m\.gguf: cannot be fetched: .*, 6 times in a row"):
        pull("org/repo")
    (part, _) = partials(home)
    assert part.read_bytes() == data[:100_000]
    server.requests.clear()
    assert pull("org/repo").path.read_bytes() == data
    assert ranges(server) == ["bytes=100000-"]


def test_nobody_answers(server: Server, data: bytes) -> None:
    server.close()
    with pytest.raises(
        FileError, match=r"org/repo: cannot be fetched: 127.* cannot be reached .*, 3 times in a row"
    ):
        pull("org/repo")


def test_a_server_that_hangs(server: Server, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "READ_SECONDS", 0.2)

    def hang(handler: Handler, data: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:1000])
        handler.wfile.flush()
        time.sleep(1)

    server.hooks["content"].append(hang)
    assert pull("org/repo").path.read_bytes() == data


def test_a_slow_server(server: Server, data: bytes) -> None:
    server.hooks["content"].append(lambda handler, data: handler.content(data, stall=0.02))
    assert pull("org/repo").path.read_bytes() == data


def test_servers_without_ranges_and_etags(server: Server, data: bytes, home: Path) -> None:
    server.ranges = False
    server.hooks["files"].append(cut(100_000))
    assert pull(address(server)).path.read_bytes() == data
    server.ranges, server.etags = True, False
    server.files["/files/n.gguf"] = data
    server.hooks["n.gguf"].append(cut(100_000))
    server.requests.clear()
    assert pull(f"{server.other}/files/n.gguf").path.read_bytes() == data
    assert ranges(server) == [None, None]  # nobody can say that the rest is one of the same file
    assert partials(home) == []


# ---- servers that ask for patience ----------------------------------------------------------------------


def test_a_server_that_asks_to_wait(server: Server, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(http.time, "sleep", waited.append)
    notes: list[str] = []
    server.hooks["content"].extend(
        [status(429, Retry_After="7"), status(503, Retry_After=http_date(time.time() + 60))]
    )
    assert pull("org/repo", Report(note=notes.append)).path.read_bytes() == data
    assert waited[0] == 7
    assert 50 < waited[1] <= 60
    assert notes[0] == "m.gguf: the server answers 429 Too Many Requests; the next attempt comes in 7 s"
    server.repositories["org/more"] = Repository({"m.gguf": gguf(1000)})
    server.hooks["content"].append(status(429, Retry_After="3600"))
    with pytest.raises(FileError, match="429 Too Many Requests; it asks to wait 3600 s"):
        pull("org/more")


def test_waits_grow(server: Server, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(http.time, "sleep", waited.append)
    monkeypatch.setattr(http, "FIRST_WAIT", 0.5)
    server.hooks["content"].extend([status(500)] * 3)
    pull("org/repo")
    assert waited == [0.5, 1.0, 2.0]


# ---- files that change ----------------------------------------------------------------------------------


@pytest.mark.parametrize("heeds_condition", [True, False])
def test_a_file_that_changes_midway_is_begun_again(
    server: Server, data: bytes, heeds_condition: bool
) -> None:
    other = gguf(280_000, seed=5)

    def changed(handler: Handler, data: bytes) -> None:
        server.files["/files/m.gguf"] = other
        if not heeds_condition:
            del handler.headers["If-Range"]
        handler.content(other)

    server.hooks["files"].extend([cut(100_000), changed])
    found = pull(address(server))
    assert found.path.read_bytes() == other


def test_a_file_that_shrinks_midway(server: Server, data: bytes) -> None:
    other = gguf(50_000, seed=5)

    def shrunk(handler: Handler, data: bytes) -> None:
        server.files["/files/m.gguf"] = other
        del handler.headers["If-Range"]
        handler.content(other)  # 416

    server.hooks["files"].extend([cut(100_000), shrunk])
    assert pull(address(server)).path.read_bytes() == other


def test_a_part_that_was_whole_already(server: Server, data: bytes, home: Path) -> None:
    """The process ended between the last byte and the new name."""
    for name, folder in (
        ("org/repo", hub_cache(home) / "models--org--repo/blobs"),
        (address(server), home / f".cache/clarion/models/http/localhost:{server.port}/files"),
    ):
        target = folder / (sha256(data) if "repo" in name else "m.gguf")
        folder.mkdir(parents=True)
        target.with_name(target.name + ".incomplete").write_bytes(data)
        target.with_name(target.name + ".incomplete.etag").write_text(f'"{sha256(data)}"')
        server.requests.clear()
        assert pull(name).path.read_bytes() == data
        assert len(server.contents()) == ("repo" not in name)
    assert partials(home) == []


def test_an_update_that_fails_leaves_the_old_file(server: Server, data: bytes) -> None:
    path = pull(address(server)).path
    server.files["/files/m.gguf"] = gguf(400_000, seed=7)
    # The first request asks whether it has changed.
    server.hooks["files"].extend([lambda h, d: h.content(d), *[cut(1000)] * 2, *[cut(0)] * http.ATTEMPTS])
    with pytest.raises(FileError, match="6 times in a row"):
        pull(address(server))
    assert path.read_bytes() == data
    assert pull(address(server)).path.read_bytes() == gguf(400_000, seed=7)


# ---- something else than the file -----------------------------------------------------------------------


@pytest.mark.parametrize("of_hub", [True, False])
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (instead(PAGE), "this is an HTML page, not a model"),
        (instead(POINTER, "text/plain"), "this is a Git LFS pointer, not a model"),
        (instead(b'{"error": "no"}', "application/json"), "not a model"),
        (status(401), "org/repo: no such repository|access is refused: the server answers 401 Unauthorized"),
        (status(403), "access is restricted|access is refused: the server answers 403 Forbidden"),
        (status(404), "no such repository|there is no such file: the server answers 404 Not Found"),
        (status(418), "the server answers 418"),
    ],
)
def test_other_answers(
    server: Server, data: bytes, home: Path, answer: Callable[[Handler, bytes], None], said: str, of_hub: bool
) -> None:
    server.hooks["content" if of_hub else "files"].append(answer)
    with pytest.raises(FileError, match=said) as caught:
        pull("org/repo" if of_hub else address(server))
    assert str(caught.value).count("\n") == 0
    assert models(home) == partials(home) == []
    assert pull("org/repo" if of_hub else address(server)).path.read_bytes() == data


def test_the_hub_answers_with_a_page(server: Server, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["/files/api"] = PAGE
    monkeypatch.setenv("HF_ENDPOINT", f"{server.other}/files/api?")
    with pytest.raises(FileError, match="expected JSON; is it the page of a network"):
        pull("org/repo")


def test_a_wrong_digest_removes_the_file(server: Server, data: bytes, home: Path) -> None:
    wrong = data[:-1] + bytes([data[-1] ^ 1])
    server.hooks["content"].append(lambda handler, data: handler.content(wrong))
    with pytest.raises(
        FileError, match=rf"its SHA-256 is {sha256(wrong)}, expected {sha256(data)}; the file was removed"
    ):
        pull("org/repo")
    assert models(home) == partials(home) == []
    server.repositories["org/small"] = Repository({"m.gguf": data}, small={"m.gguf"})
    server.hooks["resolve"].clear()
    assert pull("org/repo").path.read_bytes() == data


def test_a_digest_counts_what_an_earlier_process_wrote(server: Server, data: bytes, home: Path) -> None:
    blobs = hub_cache(home) / "models--org--repo/blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{sha256(data)}.incomplete").write_bytes(b"GGUX" + data[4:1000])
    with pytest.raises(FileError, match="the file was removed"):
        pull("org/repo")
    assert ranges(server) == ["bytes=1000-"]
    assert pull("org/repo").path.read_bytes() == data


def test_more_than_was_announced(server: Server, data: bytes, home: Path) -> None:
    server.models["library/tiny:latest"] = data

    def longer(handler: Handler, data: bytes) -> None:
        handler.content(data + b"more")

    server.hooks["content"].append(longer)
    with pytest.raises(FileError, match="found 300,004 bytes, expected 300,000"):
        pull("tiny")
    assert models(home) == partials(home) == []
    assert pull("tiny").path.read_bytes() == data


@pytest.mark.parametrize(
    "manifest",
    [
        b"[]",
        b'{"layers": 5}',
        b'{"layers": []}',
        b'{"layers": [{"mediaType": "%s", "digest": "sha256:../x", "size": 5}]}' % WEIGHTS.encode(),
        b'{"layers": [{"mediaType": "%s", "digest": "sha256:%s"}]}' % (WEIGHTS.encode(), b"0" * 64),
        b"not JSON",
    ],
)
def test_manifests_that_are_none(
    server: Server, home: Path, manifest: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Handler, "_manifest", lambda handler, name: handler.send(200, manifest))
    with pytest.raises(FileError, match="tiny: http"):
        pull("tiny")
    assert models(home) == []


# ---- disks and folders ----------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB; skipped where nobody may mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root mounts a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_seen_before(
    server: Server, data: bytes, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(small_disk / "hub"))
    with pytest.raises(FileError, match=r"No space left on device: it takes 300\.0 kB, the disk has"):
        pull("org/repo")
    assert not [path for path in small_disk.rglob("*") if path.is_file() and path.stat().st_size]


def test_a_disk_that_fills_meanwhile(
    server: Server, data: bytes, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLARION_HOME", str(small_disk / "own"))

    def without_length(handler: Handler, data: bytes) -> None:
        """A server that does not say how long the file is, so that nobody can look before."""
        handler.send_response(200)
        handler.send_header("ETag", f'"{sha256(data)}"')
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for at in range(0, len(data), 10_000):
            piece = data[at : at + 10_000]
            handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")

    server.hooks["files"].append(without_length)
    with pytest.raises(FileError, match="No space left on device; what is here stays"):
        pull(address(server))
    assert not list(small_disk.rglob("m.gguf"))
    (part,) = small_disk.rglob("*.incomplete")
    assert data.startswith(part.read_bytes())
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    server.requests.clear()
    assert pull(address(server)).path.read_bytes() == data
    assert ranges(server)[0] is not None


def test_a_limit_on_the_size_of_files(server: Server, data: bytes, home: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(FileError, match="File too large; what is here stays"):
            pull("org/repo")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    server.requests.clear()
    assert pull("org/repo").path.read_bytes() == data
    assert ranges(server) == ["bytes=100000-"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(
    server: Server, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "locked/hub"))
    with pytest.raises(FileError, match="cannot be written: Permission denied"):
        pull("org/repo")


def test_a_cache_that_is_a_file(
    server: Server, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for variable, name in (("HF_HUB_CACHE", "org/repo"), ("CLARION_HOME", address(server))):
        monkeypatch.setenv(variable, str(tmp_path / "file"))
        with pytest.raises(FileError, match=r"Not a directory|File exists"):
            pull(name)


def test_file_systems_without_links(server: Server, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", refused)
    found = pull("org/repo")
    assert not found.path.is_symlink()
    assert found.path.read_bytes() == data
    assert find("org/repo").path == found.path


# ---- the environment --------------------------------------------------------------------------------------


def test_proxies_of_the_environment(server: Server, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in sees a whole address in the place of a path, as proxies do."""
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", server.hub)
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example")
    pull("org/repo")
    assert server.requests[0].path.startswith("http://hub.example/api/models/org/repo")
    monkeypatch.setenv("http_proxy", "nonsense://x")
    with pytest.raises(FileError, match="the proxy that the environment names cannot be used"):
        pull("org/repo")


def test_an_interrupt_keeps_the_part(server: Server, data: bytes, home: Path) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        if done > 100_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull("org/repo", Report(progress=interrupt))
    (part, _) = partials(home)
    assert part.stat().st_size > 100_000
    server.requests.clear()
    assert pull("org/repo").path.read_bytes() == data
    assert ranges(server) == [f"bytes={part_size}-" for part_size in [int(ranges(server)[0][6:-1])]]


def test_every_failure_is_one_of_ours(server: Server, data: bytes, home: Path) -> None:
    """Seeded noise in the place of the hub's answers: no other error than ClarionError comes out."""
    random_bytes = random.Random(20261201)
    for _ in range(60):
        body = random_bytes.choice(
            [
                random_bytes.randbytes(50),
                b"null",
                b'{"sha": 5, "siblings": []}',
                b'{"sha": "%s", "siblings": [5]}' % (b"0" * 40),
                b'{"sha": "%s", "siblings": [{"rfilename": "m.gguf", "lfs": {"sha256": 5}}]}' % (b"0" * 40),
                b'{"sha": "%s", "siblings": [{"rfilename": "m.gguf", "size": -1}]}' % (b"0" * 40),
                b"[" * 100_000,
            ]
        )
        server.files["/files/answer"] = body
        original = Handler._listing
        Handler._listing = lambda handler, name, revision, body=body: handler.send(200, body)  # type: ignore
        try:
            with pytest.raises(ClarionError):
                pull("org/repo")
        finally:
            Handler._listing = original  # type: ignore
    assert models(home) == []


def test_importing_the_search_imports_no_client() -> None:
    heavy = "{'httpx', 'rich', 'numpy', 'hashlib'}"
    code = f"import sys, clarion.library as l; l.find; print({heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
