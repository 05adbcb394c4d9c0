"""huggingface_hub finds what we fetched, and we find what it fetched. Its own functions say so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clarion.library import find, pull
from clarion.library.remove import removal
from tests.library.server import Repository, Server
from tests.library.test_pull import gguf, hub_cache

pytest.importorskip("huggingface_hub")


def hub(code: str, **environment: str) -> str:
    """What a process with huggingface_hub prints, whose variables are read at import."""
    done = subprocess.run(
        [sys.executable, "-c", f"import huggingface_hub as h\n{code}"],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            **environment,
        },
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def repository(server: Server) -> Repository:
    files = {"a/m-Q4_K_M.gguf": gguf(seed=1), "m-Q8_0.gguf": gguf(seed=2)}
    server.repositories["org/repo"] = Repository(files, small={"m-Q8_0.gguf"})
    return server.repositories["org/repo"]


def test_it_finds_what_we_fetched(server: Server, repository: Repository, home: Path) -> None:
    found, other = pull("org/repo"), pull("org/repo:Q8_0")
    n = len(server.requests)
    offline = {"HF_HUB_OFFLINE": "1"}
    for file, path in (("a/m-Q4_K_M.gguf", found.path), ("m-Q8_0.gguf", other.path)):
        assert hub(f"print(h.try_to_load_from_cache('org/repo', '{file}'))") == str(path)
        assert hub(f"print(h.hf_hub_download('org/repo', '{file}'))", **offline) == str(path)
    cache = hub("c = h.scan_cache_dir(); print(c.warnings, len(c.repos), c.size_on_disk)")
    assert cache == "[] 1 200000"
    revisions = "(r,) = h.scan_cache_dir().repos; (v,) = r.revisions; "
    assert hub(f"{revisions}print(r.repo_id, v.commit_hash, *v.refs)") == f"org/repo {repository.commit} main"
    # And it fetches nothing anew where it may ask.
    assert len(server.requests) == n
    assert hub("print(h.hf_hub_download('org/repo', 'a/m-Q4_K_M.gguf'))") == str(found.path)
    assert {request.method for request in server.requests[n:]} == {"HEAD"}


def test_we_find_what_it_fetched(
    server: Server, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = hub("print(h.hf_hub_download('org/repo', 'a/m-Q4_K_M.gguf'))")
    small = hub("print(h.hf_hub_download('org/repo', 'm-Q8_0.gguf'))")
    assert str(find("org/repo").path) == str(find("org/repo:Q4_K_M").path) == path
    assert str(find("org/repo:Q8_0").path) == small
    n = len(server.contents())
    assert str(pull("org/repo").path) == path
    assert str(pull("org/repo:Q8_0").path) == small
    assert len(server.contents()) == n


def test_the_cache_is_sound_after_removing(server: Server, repository: Repository, home: Path) -> None:
    pull("org/repo")
    repository.files["README.md"] = b"# new"
    pull("org/repo")
    pull("org/repo:Q8_0")
    removal("org/repo:Q4_K_M").run()
    assert hub("c = h.scan_cache_dir(); print(c.warnings, len(c.repos), c.size_on_disk)") == "[] 1 100000"
    removal("org/repo:Q8_0").run()
    assert hub("c = h.scan_cache_dir(); print(c.warnings, len(c.repos), c.size_on_disk)") == "[] 0 0"
    assert not (hub_cache(home) / "models--org--repo").exists()


def test_both_at_once(server: Server, repository: Repository) -> None:
    """While it holds the lock of a file, we wait, and take what it has fetched."""
    server.hooks["content"].append(lambda handler, data: handler.content(data, stall=0.5))
    code = "import huggingface_hub as h; print(h.hf_hub_download('org/repo', 'a/m-Q4_K_M.gguf'))"
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    while not server.contents():
        assert other.poll() is None
    found = pull("org/repo")
    out, _ = other.communicate()
    assert str(found.path) == out.strip()
    assert found.path.read_bytes() == gguf(seed=1)
    assert len([request for request in server.contents() if request.method == "GET"]) == 1


def test_pulling_needs_no_huggingface_hub(server: Server, repository: Repository) -> None:
    code = (
        "import sys; sys.modules['huggingface_hub'] = None\n"
        "from clarion.library import pull; print(pull('org/repo').path)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).read_bytes() == gguf(seed=1)
