"""Where this system keeps what a program writes for itself."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def cache_folder() -> Path:
    """What can be made or fetched again; XDG_CACHE_HOME goes before the system's custom."""
    return _folder("XDG_CACHE_HOME", macos="Library/Caches", other=".cache")


def state_folder() -> Path:
    """What a program remembers of its user; XDG_STATE_HOME goes before the system's custom."""
    return _folder("XDG_STATE_HOME", macos="Library/Application Support", other=".local/state")


def _folder(variable: str, *, macos: str, other: str) -> Path:
    """The folder that a variable of the environment names, else one in the user's home."""
    chosen = os.environ.get(variable)
    if chosen and os.path.isabs(chosen):
        return Path(chosen)
    if platform.system() == "Windows":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local")
    return Path.home() / (macos if platform.system() == "Darwin" else other)
