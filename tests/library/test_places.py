"""Models that lie on a machine already, whoever put them there; and removing them."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import clarion
from clarion.cli.main import execute
from clarion.errors import FileError, NameNotFoundError, ParameterError
from clarion.library import every, find, is_here, located, search
from clarion.library.remove import removal
from tests.end_to_end.files import BUILT_IN
from tests.library.server import WEIGHTS, sha256
from tests.library.test_pull import gguf, hub_cache

COMMIT, OLDER = "1" * 40, "2" * 40


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def put_ollama(folder: Path, name: str, data: bytes, *others: bytes) -> Path:
    """A model as Ollama keeps it; `others` are further layers."""
    blobs = [put(folder / f"blobs/sha256-{sha256(layer)}", layer) for layer in (data, *others)]
    kinds = ["application/vnd.ollama.image.model", *["application/vnd.ollama.image.license"] * len(others)]
    layers = [
        {"mediaType": kind, "digest": blob.name.replace("-", ":"), "size": blob.stat().st_size}
        for kind, blob in zip(kinds, blobs, strict=True)
    ]
    put(folder / "manifests" / name, json.dumps({"schemaVersion": 2, "layers": layers}).encode())
    return blobs[0]


def put_hub(
    home: Path, repository: str, file: str, data: bytes, commit: str = COMMIT, main: bool = True
) -> Path:
    """A file as huggingface_hub keeps it."""
    folder = hub_cache(home) / f"models--{repository.replace('/', '--')}"
    blob = put(folder / "blobs" / sha256(data), data)
    path = folder / "snapshots" / commit / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(os.path.relpath(blob, path.parent))
    if main:
        put(folder / "refs/main", commit.encode())
    return path


@pytest.fixture
def full(home: Path) -> dict[str, Path]:
    """A home with models of all programs, by their names."""
    studio = home / ".lmstudio/models/pub/studio-GGUF"
    put(studio / "mmproj-F16.gguf", gguf())
    put(home / ".cache/llama.cpp/manifest=org=flat=Q4_K_M.json", b"{}")
    put(home / ".cache/huggingface/hub/models--org--checkpoint/snapshots" / COMMIT / "model.safetensors", b"")
    return {
        "llama3.2:1b": put_ollama(
            home / ".ollama/models", "registry.ollama.ai/library/llama3.2/1b", gguf(1000, 1)
        ),
        "ollama.com/me/own:latest": put_ollama(
            home / ".ollama/models", "registry.ollama.ai/me/own/latest", gguf(1000, 2)
        ),
        "hf.co/org/there:Q8_0": put_ollama(home / ".ollama/models", "hf.co/org/there/Q8_0", gguf(1000, 3)),
        "org/hub-GGUF:Q4_K_M": put_hub(home, "org/hub-GGUF", "h-Q4_K_M.gguf", gguf(1000, 4)),
        "pub/studio-GGUF:Q6_K": put(studio / "s-Q6_K.gguf", gguf(1000, 5)),
        "pub/studio-GGUF:Q5_K_M": put(studio / "s-Q5_K_M.gguf", gguf(1000, 6)),
        "org_flat_f-Q4_K_M": put(home / ".cache/llama.cpp/org_flat_f-Q4_K_M.gguf", gguf(1000, 7)),
        "mine": put(home / ".cache/clarion/models/mine.gguf", gguf(1000, 8)),
    }


def test_all_are_found_where_they_lie(full: dict[str, Path]) -> None:
    assert {found.name: found.path for found in every()} == full
    assert {found.source for found in every()} == {"clarion", "hub", "ollama", "lm-studio", "llama.cpp"}
    assert all(found.bytes == 1000 and found.modified > 0 for found in every())
    for name, path in full.items():
        assert find(name).path == path
        assert is_here(name)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("llama3.2:1B", "llama3.2:1b"),
        ("org/hub-gguf", "org/hub-GGUF:Q4_K_M"),
        ("org/hub-GGUF:q4_k_m", "org/hub-GGUF:Q4_K_M"),
        ("org/hub-GGUF@main", "org/hub-GGUF:Q4_K_M"),
        (f"org/hub-GGUF@{COMMIT[:9]}", "org/hub-GGUF:Q4_K_M"),
        ("org/hub-GGUF/h-Q4_K_M.gguf", "org/hub-GGUF:Q4_K_M"),
        ("hub", "org/hub-GGUF:Q4_K_M"),
        ("hub-gguf:q4_k_m", "org/hub-GGUF:Q4_K_M"),
        ("H-Q4_K_M", "org/hub-GGUF:Q4_K_M"),
        ("pub/studio-GGUF", "pub/studio-GGUF:Q5_K_M"),
        ("studio:q6_k", "pub/studio-GGUF:Q6_K"),
        ("org/there", "hf.co/org/there:Q8_0"),
        ("org/flat", "org_flat_f-Q4_K_M"),
        ("org/flat:Q4_K_M", "org_flat_f-Q4_K_M"),
        ("org/flat:f-Q4_K_M.gguf", "org_flat_f-Q4_K_M"),
        ("mine.gguf", "mine"),
    ],
)
def test_other_ways_to_name_them(full: dict[str, Path], name: str, meant: str) -> None:
    assert find(name).path == full[meant]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("llama3.2", "clarion pull llama3.2"),
        ("llama3.2:3b", "; is it llama3.2:1b"),
        ("org/hub-GGUF:Q8_0", "clarion pull org/hub-GGUF:Q8_0"),
        ("org/hub-GGUF@dev", "clarion pull org/hub-GGUF@dev"),
        ("org/hbu-GGUF", "is it org/hub-GGUF:Q4_K_M"),
        ("studoi:q6_k", "is it pub/studio-GGUF:Q"),
        ("hub:q8_0", "clarion pull hub:q8_0"),
        ("h-Q4_K", "is it org/hub-GGUF:Q4_K_M"),
        ("ftp://example.org/x.gguf", "expected https: or http:"),
    ],
)
def test_names_of_none_say_what_is_near(full: dict[str, Path], name: str, said: str) -> None:
    with pytest.raises(NameNotFoundError) as caught:
        find(name)
    assert str(caught.value).startswith(f"{name}: ")
    assert said in str(caught.value)
    assert not is_here(name)


def test_names_that_mean_several(home: Path) -> None:
    put_hub(home, "a/x-GGUF", "x-Q8_0.gguf", gguf(1000, 1))
    put_hub(home, "b/x-GGUF", "x-Q8_0.gguf", gguf(1000, 2))
    for name in ("x", "x-gguf", "x-Q8_0"):
        with pytest.raises(
            NameNotFoundError, match="several models are called so: a/x-GGUF:Q8_0, b/x-GGUF:Q8_0"
        ):
            find(name)
        assert is_here(name)
    assert find("a/x-GGUF").path.read_bytes() == gguf(1000, 1)
    put_hub(home, "a/x-GGUF", "y-Q8_0.gguf", gguf(1000, 3))
    with pytest.raises(NameNotFoundError, match=r"several .*: a/x-GGUF:x-Q8_0\.gguf, a/x-GGUF:y-Q8_0\.gguf"):
        find("a/x-GGUF")
    assert find("a/x-GGUF:y-Q8_0.gguf").path.read_bytes() == gguf(1000, 3)


def test_a_path_wins_and_nothing_is_searched(full: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def searched() -> None:
        raise AssertionError("a folder was searched")

    put(Path("org/hub-GGUF"), b"a file")
    put(Path("mine"), b"a file")
    monkeypatch.setattr(search, "places", searched)
    for name in ("org/hub-GGUF", "mine", Path("mine"), "./mine", str(Path("mine").resolve())):
        assert find(name).source == "file"
        assert located(name) == Path(name)
    for name in ("./none", "/none", "../none", "~/none", "-"):
        with pytest.raises(NameNotFoundError):
            find(name)
    for wrong in ("", "a\0b", 5):
        with pytest.raises(ParameterError):
            find(wrong)  # type: ignore[arg-type]


def test_loading_a_plain_path_imports_no_library(tmp_path: Path) -> None:
    code = f"import sys, clarion; clarion.load({str(BUILT_IN)!r}, threads=1, context=8).close()"
    probe = f"{code}; print([name for name in sys.modules if name.startswith('clarion.library')])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_things_that_are_no_models_are_left_out(home: Path) -> None:
    folder = home / ".ollama/models"
    for name, content in (
        ("a", b"not JSON"),
        ("b", b"[]"),
        ("c", b'{"layers": []}'),
        (
            "d",
            b'{"layers": [{"mediaType": "%s", "digest": "sha256:/etc/passwd"}]}' % WEIGHTS.encode(),
        ),
        ("e", b"[" * 200_000),
    ):
        put(folder / "manifests/registry.ollama.ai/library" / name / "latest", content)
    put_ollama(folder, "registry.ollama.ai/library/gone/latest", gguf()).unlink()
    hub = hub_cache(home) / "models--org--repo"
    (hub / "snapshots" / COMMIT).mkdir(parents=True)
    (hub / "snapshots" / COMMIT / "gone-Q4_0.gguf").symlink_to("../../blobs/gone")
    put(hub / "snapshots/no-commit/m.gguf", gguf())
    put(home / ".lmstudio/models/pub/repo/m-00001-of-00002.gguf", gguf())
    put(home / ".cache/llama.cpp/m.gguf.downloadInProgress", gguf())
    assert every() == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everywhere")
def test_folders_of_others_are_left_out(full: dict[str, Path], home: Path) -> None:
    (home / ".ollama/models").chmod(0)
    assert "org/hub-GGUF:Q4_K_M" in [found.name for found in every()]


def test_folders_that_the_environment_names(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, place in (
        ("OLLAMA_MODELS", "a"),
        ("LLAMA_CACHE", "b"),
        ("CLARION_HOME", "c"),
        ("HF_HUB_CACHE", "d"),
    ):
        monkeypatch.setenv(variable, str(tmp_path / place))
    blob = put_ollama(tmp_path / "a", "registry.ollama.ai/library/o/latest", gguf())
    flat = put(tmp_path / "b/flat.gguf", gguf())
    mine = put(tmp_path / "c/mine.gguf", gguf())
    hub = put(tmp_path / "d/models--o--r/snapshots" / COMMIT / "m.gguf", gguf())
    assert [found.path for found in every()] == [mine, hub, blob, flat]
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HF_HOME", "~/elsewhere")
    assert [found.path for found in every()] == [mine, blob, flat]
    elsewhere = put(home / "elsewhere/hub/models--o--r/snapshots" / COMMIT / "m.gguf", gguf())
    assert find("o/r").path == elsewhere


# ---- removing -------------------------------------------------------------------------------------------


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_a_blob_goes_with_the_last_name_of_it(home: Path) -> None:
    data = gguf(1000)
    put_hub(home, "org/repo", "m-Q4_0.gguf", data, OLDER, main=False)
    put_hub(home, "org/repo", "m-Q4_0.gguf", data)
    put_hub(home, "org/repo", "m-Q8_0.gguf", gguf(1000, 1))
    folder = hub_cache(home) / "models--org--repo"
    assert [found.name for found in every()] == ["org/repo:Q4_0", "org/repo:Q8_0"]
    assert removal(f"org/repo@{COMMIT}:Q4_0").run() == []  # another commit has it too
    assert (folder / "blobs" / sha256(data)).exists()
    assert removal("org/repo:Q4_0").run() == [folder / "blobs" / sha256(data)]
    assert [found.name for found in every()] == ["org/repo:Q8_0"]
    assert files(folder) == sorted(
        [f"blobs/{sha256(gguf(1000, 1))}", "refs/main", f"snapshots/{COMMIT}/m-Q8_0.gguf"]
    )
    removal("org/repo").run()
    assert not folder.exists()


def test_all_names_of_a_model_go(home: Path) -> None:
    put_hub(home, "org/repo", "m-Q4_0.gguf", gguf(1000), OLDER, main=False)
    put_hub(home, "org/repo", "m-Q4_0.gguf", gguf(1000))
    put_hub(home, "org/repo", "other-Q8_0.gguf", gguf(1000))  # the same bytes under another name
    put_hub(home, "org/repo", "old/m-Q4_0.gguf", gguf(1000, 5), OLDER, main=False)
    assert [found.name for found in every()] == [
        "org/repo:Q4_0",
        "org/repo:Q8_0",
        f"org/repo@{OLDER[:12]}:old/m-Q4_0.gguf",
    ]
    assert removal("org/repo:m-Q4_0.gguf").run() == []
    assert [found.name for found in every()] == ["org/repo:Q8_0", "org/repo:Q4_0"]
    removal("org/repo:Q8_0").run()
    assert find("org/repo").path.read_bytes() == gguf(1000, 5)
    assert files(hub_cache(home)) == sorted(
        [
            f"models--org--repo/blobs/{sha256(gguf(1000, 5))}",
            f"models--org--repo/snapshots/{OLDER}/old/m-Q4_0.gguf",
        ]
    )


def test_files_beside_a_model_stay(home: Path) -> None:
    put_hub(home, "org/repo", "m-Q4_0.gguf", gguf(1000))
    put_hub(home, "org/repo", "config.json", b"{}")
    put(hub_cache(home) / "models--org--repo/blobs/x.incomplete", b"")
    removal("org/repo").run()
    assert files(hub_cache(home) / "models--org--repo") == sorted(
        [f"blobs/{sha256(b'{}')}", "blobs/x.incomplete", "refs/main", f"snapshots/{COMMIT}/config.json"]
    )


def test_other_programs_keep_theirs(full: dict[str, Path], home: Path) -> None:
    before = files(home)
    for name in ("llama3.2:1b", "pub/studio-GGUF:Q6_K", "org_flat_f-Q4_K_M"):
        with pytest.raises(
            FileError, match=r"it lies in a folder of .*: remove it with that program, or with --force"
        ):
            removal(name)
    assert files(home) == before
    license = b"free" * 100
    other = put_ollama(home / ".ollama/models", "registry.ollama.ai/library/two/a", gguf(1000, 20), license)
    put_ollama(home / ".ollama/models", "registry.ollama.ai/library/two/b", gguf(1000, 21), license)
    assert removal("two:a", force=True).run() == [other]
    assert find("two:b")
    assert len(removal("two:b", force=True).run()) == 2
    for name in ("llama3.2:1b", "pub/studio-GGUF:Q6_K", "org_flat_f-Q4_K_M"):
        assert removal(name, force=True).run() == [full[name]]
        assert not full[name].exists()
    assert {found.name for found in every()} == set(full) - {
        "llama3.2:1b",
        "pub/studio-GGUF:Q6_K",
        "org_flat_f-Q4_K_M",
    }


def test_a_file_is_not_removed_by_its_path(full: dict[str, Path]) -> None:
    with pytest.raises(FileError, match="this is a file, not the name of a model"):
        removal(str(full["mine"]))


# ---- the commands -----------------------------------------------------------------------------------------


def test_the_list(full: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAME", "SIZE", "QUANT", "PLACE", "DAY"]
    assert len(lines) == len(full) + 1
    (line,) = [line for line in lines if line.startswith("org/hub")]
    assert line.split()[:5] == ["org/hub-GGUF:Q4_K_M", "1.0", "kB", "Q4_K_M", "hub"]
    assert execute(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {item["name"]: Path(item["path"]) for item in listed} == full
    assert set(listed[0]) == {"name", "path", "parts", "bytes", "quant", "source", "modified"}


def test_a_terminal_obeys_no_name(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_hub(home, "org/repo", "\x1b[31mred.gguf", gguf())
    assert execute(["list"]) == 0
    assert "org/repo:\\x1b[31mred.gguf" in capsys.readouterr().out
    assert execute(["rm", "-y", "org/repo"]) == 0
    assert "\x1b" not in capsys.readouterr().err


def test_the_list_of_none(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["list"]) == 0
    assert capsys.readouterr() == (
        "",
        "clarion: there are no models on this machine; clarion pull NAME fetches one\n",
    )


def test_the_list_reads_what_names_do_not_tell(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_ollama(home / ".ollama/models", "registry.ollama.ai/library/tale/latest", BUILT_IN.read_bytes())
    put_ollama(home / ".ollama/models", "registry.ollama.ai/library/noise/latest", gguf())
    assert execute(["list", "--json"]) == 0
    assert [item["quant"] for item in json.loads(capsys.readouterr().out)] == ["", "Q8_0"]


def test_nothing_is_removed_unasked(full: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["rm", "mine"]) == 2
    said = capsys.readouterr().err
    assert str(full["mine"]) in said
    assert "nothing was removed: there is nobody to ask; -y removes without asking" in said
    assert full["mine"].exists()
    assert execute(["rm", "-y", "mine", "none"]) == 2  # all or none
    assert full["mine"].exists()
    capsys.readouterr()
    assert execute(["rm", "-y", "mine", "org/hub-GGUF"]) == 0
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "clarion: removed mine, 1.0 kB",
        "clarion: removed org/hub-GGUF:Q4_K_M, 1.0 kB",
    ]
    assert not full["mine"].exists()
    assert execute(["rm", "-y", "llama3.2:1b"]) == 2
    assert execute(["rm", "-y", "--force", "llama3.2:1b"]) == 0
    assert not full["llama3.2:1b"].exists()


def test_show(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = put_hub(home, "org/tale", "tale-Q8_0.gguf", BUILT_IN.read_bytes())
    assert execute(["show", "org/tale"]) == 0
    rows = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    rows = {name.strip(): value.strip() for name, value in rows.items()}
    assert rows["name"] == "org/tale:Q8_0"
    assert rows["architecture"] == "llama"
    assert rows["chat template"] == "none"
    assert rows["file"] == str(path)
    assert execute(["show", "tale", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    with clarion.gguf.File.open(path) as file:
        assert report["context"] == file.metadata["llama.context_length"]
        assert report["parameters"] == sum(tensor.n_elements for tensor in file.tensors.values())
    assert report["source"] == "hub"
    assert execute(["show", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["source"] == "file"
    assert execute(["show"]) == 0
    assert "place          clarion" in capsys.readouterr().out
    assert execute(["show", "none"]) == 2


def test_files_are_written_with_the_users_rights(home: Path) -> None:
    """As other files: what the umask allows, so that others may read a shared cache."""
    from clarion.library.hub_cache import HubCache

    HubCache(hub_cache(home)).remember("org/repo", "main", COMMIT)
    mode = stat.S_IMODE((hub_cache(home) / "models--org--repo/refs/main").stat().st_mode)
    umask = os.umask(0)
    os.umask(umask)
    assert mode == 0o666 & ~umask
