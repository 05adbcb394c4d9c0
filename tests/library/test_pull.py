"""Fetching from the hub, from Ollama's registry and from addresses, when all goes well."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

import pytest

from clarion.errors import FileError, NameNotFoundError
from clarion.library import Report, every, fetched, find, pull
from tests.library.server import Repository, Server


def gguf(size: int = 100_000, seed: int = 0) -> bytes:
    """Bytes that begin as a model does."""
    return b"GGUF" + random.Random(f"{seed} {size}").randbytes(size - 4)


def hub_cache(home: Path) -> Path:
    return home / ".cache/huggingface/hub"


def test_a_repository_is_pulled_into_the_hubs_cache(server: Server, home: Path) -> None:
    data = gguf()
    server.repositories["org/repo"] = Repository(
        {"README.md": b"# it", "m-Q4_K_M.gguf": data, "m-Q8_0.gguf": b""}
    )
    found = pull("org/repo")
    commit = server.repositories["org/repo"].commit
    folder = hub_cache(home) / "models--org--repo"
    assert found.path == folder / "snapshots" / commit / "m-Q4_K_M.gguf"
    assert found.path.read_bytes() == data
    assert os.readlink(found.path) == f"../../blobs/{hashlib.sha256(data).hexdigest()}"
    assert (folder / "refs/main").read_text() == commit
    assert (found.name, found.source, found.bytes, found.quant) == (
        "org/repo:Q4_K_M",
        "hub",
        len(data),
        "Q4_K_M",
    )
    assert sorted(p.name for p in (folder / "blobs").iterdir()) == [hashlib.sha256(data).hexdigest()]
    assert find("org/repo").path == find("org/repo:q4_k_m").path == found.path
    assert [f.name for f in every()] == ["org/repo:Q4_K_M"]


@pytest.mark.parametrize(
    "name",
    [
        "org/repo:Q8_0",
        "hf.co/org/repo:Q8_0",
        "huggingface.co/org/repo:Q8_0",
        "hf://org/repo:Q8_0",
        "org/repo:m-Q8_0.gguf",
        "org/repo/m-Q8_0.gguf",
        "https://huggingface.co/org/repo/resolve/main/m-Q8_0.gguf?download=true",
        "https://huggingface.co/org/repo/blob/main/m-Q8_0.gguf",
        "SERVER/org/repo/resolve/COMMIT/m-Q8_0.gguf",
        "org/repo@COMMIT:Q8_0",
    ],
)
def test_ways_to_name_the_same_file(server: Server, name: str) -> None:
    repository = Repository({"m-Q4_K_M.gguf": gguf(seed=1), "m-Q8_0.gguf": gguf(seed=2)})
    server.repositories["org/repo"] = repository
    name = name.replace("SERVER", server.hub).replace("COMMIT", repository.commit)
    assert pull(name).path.read_bytes() == gguf(seed=2)
    assert find(name).path == find("org/repo").path
    n = len(server.requests)
    assert fetched(name).path == find(name).path
    assert len(server.requests) == n


def test_files_that_git_keeps_itself(server: Server) -> None:
    server.repositories["org/repo"] = Repository({"m.gguf": gguf()}, small={"m.gguf"})
    found = pull("org/repo")
    digest = hashlib.sha1(b"blob 100000\0" + gguf()).hexdigest()
    assert found.path.resolve().name == digest


def test_all_parts_of_a_split_model(server: Server) -> None:
    files = {f"Q4_K_M/m-Q4_K_M-{i:05d}-of-00003.gguf": gguf(seed=i) for i in (1, 2, 3)}
    server.repositories["org/repo"] = Repository({**files, "mmproj-F16.gguf": gguf()})
    found = pull("org/repo:Q4_K_M")
    assert [part.read_bytes() for part in found.parts] == [gguf(seed=i) for i in (1, 2, 3)]
    assert found.path == found.parts[0]
    assert found.bytes == 300_000
    assert [f.name for f in every()] == ["org/repo:Q4_K_M"]
    found.parts[1].unlink()  # a model of which a part is missing is none
    assert every() == []
    assert fetched("org/repo").parts == found.parts
    server.repositories["org/half"] = Repository({"m-00001-of-00002.gguf": gguf()})
    for name in ("org/half", "org/half:m-00001-of-00002.gguf"):
        with pytest.raises(NameNotFoundError, match="2 parts were expected, 1 are there"):
            pull(name)
    assert pull("org/repo:Q4_K_M/m-Q4_K_M-00002-of-00003.gguf").parts == found.parts
    assert find("org/repo:Q4_K_M/m-Q4_K_M-00002-of-00003.gguf").parts == found.parts
    assert pull("org/repo:mmproj-F16.gguf").path.read_bytes() == gguf()


def test_what_is_here_is_not_fetched_again(server: Server) -> None:
    server.repositories["org/repo"] = Repository({"m-Q4_0.gguf": gguf()})
    pull("org/repo")
    assert len(server.contents()) == 1
    pull("org/repo")
    assert len(server.contents()) == 1
    # A new commit with the same file: a new name of the same bytes.
    server.repositories["org/repo"].files["README.md"] = b"# new"
    found = pull("org/repo")
    assert len(server.contents()) == 1
    assert server.repositories["org/repo"].commit in str(found.path)
    assert [f.path for f in every()] == [found.path]
    # And with another content.
    server.repositories["org/repo"].files["m-Q4_0.gguf"] = gguf(seed=9)
    newest = pull("org/repo")
    assert newest.path.read_bytes() == gguf(seed=9)
    assert find("org/repo").path == newest.path
    old = [f for f in every() if f.is_old]
    assert [f.path.read_bytes() for f in old] == [gguf()]
    assert find(old[0].name).path == old[0].path


def test_offline_nobody_is_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.repositories["org/repo"] = Repository({"m-Q4_0.gguf": gguf()})
    path = pull("org/repo").path
    n = len(server.requests)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert pull("org/repo").path == fetched("org/repo").path == find("org/repo").path == path
    for name in ("org/other", "name:tag", f"{server.other}/files/x.gguf"):
        for way in (pull, fetched):
            with pytest.raises(NameNotFoundError, match="HF_HUB_OFFLINE"):
                way(name)
    assert len(server.requests) == n


def test_the_token_goes_to_the_hub_alone(server: Server, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.repositories["org/repo"] = Repository({"m.gguf": gguf()}, gated=True)
    server.token = "hf_secret"
    with pytest.raises(
        FileError, match=r"access is restricted; ask for it at http://127.*/org/repo; then log in"
    ):
        pull("org/repo")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(FileError, match=r"access is restricted.*is sent, and does not allow it"):
        pull("org/repo")
    monkeypatch.delenv("HF_TOKEN")
    (home / ".cache/huggingface").mkdir(parents=True, exist_ok=True)
    (home / ".cache/huggingface/token").write_text("hf_secret\n")
    server.requests.clear()
    pull("org/repo")
    assert {r.headers.get("Authorization") for r in server.requests if r.host.startswith("127")} == {
        "Bearer hf_secret"
    }
    elsewhere = [r for r in server.requests if r.host.startswith("localhost")]
    assert elsewhere
    assert all("hf_secret" not in str(r.headers) for r in elsewhere)
    server.repositories["org/private"] = Repository({"m.gguf": gguf()}, private=True)
    server.token = "another"
    with pytest.raises(NameNotFoundError, match=r"no such repository at http://127.*does not allow it"):
        pull("org/private")


def test_a_model_of_ollamas_library(server: Server, home: Path) -> None:
    server.models = {
        "library/tiny:latest": gguf(),
        "library/tiny:1b-q8_0": gguf(seed=1),
        "me/own:1": gguf(seed=2),
    }
    found = pull("tiny")
    assert (found.name, found.source) == ("tiny:latest", "clarion")
    assert found.path.read_bytes() == gguf()
    assert (
        found.path == home / f".cache/clarion/models/ollama/blobs/sha256-{hashlib.sha256(gguf()).hexdigest()}"
    )
    tagged = pull("tiny:1b-q8_0")
    assert (tagged.quant, tagged.path.read_bytes()) == ("Q8_0", gguf(seed=1))
    assert pull("ollama.com/me/own:1").name == "ollama.com/me/own:1"
    assert find("tiny").path == found.path
    assert find("tiny:1b-q8_0").path == tagged.path
    assert find("ollama.com/me/own:1").path.read_bytes() == gguf(seed=2)
    assert len(server.contents()) == 3
    server.models["library/tiny:latest"] = gguf(seed=3)
    assert pull("tiny").path.read_bytes() == gguf(seed=3)
    pull("tiny")
    assert len(server.contents()) == 4
    with pytest.raises(NameNotFoundError, match="Ollama's registry has no other with the tag latest"):
        pull("other")


def test_a_file_of_an_address(server: Server, home: Path) -> None:
    server.files["/files/a/m-Q5_K_M.gguf"] = gguf()
    url = f"{server.other}/files/a/m-Q5_K_M.gguf"
    found = pull(url + "?pass=1")
    assert (found.name, found.source, found.quant) == (url, "clarion", "Q5_K_M")
    assert server.contents()[-1].path.endswith("?pass=1")
    assert found.path == home / f".cache/clarion/models/http/localhost:{server.port}/files/a/m-Q5_K_M.gguf"
    assert find(url).path == find("m-q5_k_m").path == find("m-Q5_K_M.gguf").path == found.path
    assert find(Path(url)).path == found.path  # a path loses a slash of an address
    pull(url)
    assert server.requests[-1].headers.get("If-None-Match")
    server.files["/files/a/m-Q5_K_M.gguf"] = gguf(seed=1)
    assert pull(url).path.read_bytes() == gguf(seed=1)
    server.close()
    assert pull(url).path.read_bytes() == gguf(seed=1)  # nobody says that there is a newer one


def test_all_parts_of_an_address(server: Server) -> None:
    for i in (1, 2):
        server.files[f"/files/m-{i:05d}-of-00002.gguf"] = gguf(seed=i)
    found = pull(f"{server.other}/files/m-00002-of-00002.gguf")
    assert [part.read_bytes() for part in found.parts] == [gguf(seed=1), gguf(seed=2)]
    assert find(f"{server.other}/files/m-00001-of-00002.gguf").path == found.path
    assert find(f"{server.other}/files/m-00002-of-00002.gguf").path == found.path


def test_progress_is_told(server: Server) -> None:
    server.repositories["org/repo"] = Repository({"m.gguf": gguf(1_000_000)})
    told: list[tuple[str, int, int]] = []
    pull("org/repo", Report(progress=lambda *step: told.append(step)))
    assert told[0] == ("m.gguf", 0, 1_000_000)
    assert told[-1] == ("m.gguf", 1_000_000, 1_000_000)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_names_of_the_hub_lead_nowhere_else(server: Server, tmp_path: Path) -> None:
    for name in ("../evil.gguf", "/evil.gguf", "a/../../evil.gguf", "a\\evil.gguf", "a//evil.gguf"):
        server.repositories["org/repo"] = Repository({name: gguf()})
        with pytest.raises(FileError, match="found a file called"):
            pull("org/repo")
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("org/none", "no such repository at http://127"),
        ("org/repo@v2", "the repository has no revision 'v2'"),
        ("org/repo:Q9_K", "there is no Q9_K, but Q4_K_M, Q8_0; is it "),
        ("org/repo:Q4_K", "there is no Q4_K, but Q4_K_M, Q8_0; is it Q4_K_M?"),
        ("org/repo:other.gguf", "the repository has no such file, but m-Q4_K_M.gguf, m-Q8_0.gguf"),
        ("org/checkpoint", "no GGUF file; .* clarion convert org/checkpoint OUT.gguf"),
        ("org/two", "there are several files of Q4_K_M, name one of them: a-Q4_K_M.gguf, b-Q4_K_M.gguf"),
    ],
)
def test_what_is_said_of_names_that_the_hub_does_not_have(server: Server, name: str, said: str) -> None:
    server.repositories["org/repo"] = Repository({"m-Q4_K_M.gguf": gguf(), "m-Q8_0.gguf": gguf()})
    server.repositories["org/checkpoint"] = Repository({"config.json": b"{}", "model.safetensors": b""})
    server.repositories["org/two"] = Repository({"a-Q4_K_M.gguf": gguf(), "b-Q4_K_M.gguf": gguf()})
    with pytest.raises(NameNotFoundError, match=said) as caught:
        pull(name)
    assert str(caught.value).startswith(f"{name}: ")


def test_pull_takes_a_word_that_is_here(server: Server, home: Path) -> None:
    folder = home / ".ollama/models"
    digest = hashlib.sha256(gguf()).hexdigest()
    (folder / "blobs").mkdir(parents=True)
    (folder / "blobs" / f"sha256-{digest}").write_bytes(gguf())
    manifest = folder / "manifests/registry.ollama.ai/library/llama3.2/1b"
    manifest.parent.mkdir(parents=True)
    layer = (
        f'{{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:{digest}", "size": 100000}}'
    )
    manifest.write_text(f'{{"layers": [{layer}]}}')
    found = pull("llama3.2:1b")
    assert (found.source, found.path.parent) == ("ollama", folder / "blobs")
    assert server.requests == []
