"""A home without models, and the server that stands in for all others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clarion.library import http
from tests.library.server import Server, running

VARIABLES = (
    *(
        "HF_HOME",
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "HF_TOKEN_PATH",
    ),
    *(
        "HF_HUB_OFFLINE",
        "CLARION_HOME",
        "OLLAMA_MODELS",
        "LLAMA_CACHE",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ),
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder; the working folder is another, empty one."""
    folder = tmp_path / "home"
    folder.mkdir()
    (tmp_path / "here").mkdir()
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / ".cache"))
    monkeypatch.chdir(tmp_path / "here")
    return folder


@pytest.fixture
def server(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """What HF_ENDPOINT and OLLAMA_REGISTRY name. Attempts follow one another at once."""
    with running() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.hub)
        monkeypatch.setenv("OLLAMA_REGISTRY", server.hub)
        monkeypatch.setenv("no_proxy", "*")
        monkeypatch.setattr(http, "FIRST_WAIT", 0.001)
        yield server
