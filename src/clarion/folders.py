"""Where this system keeps what can be made or fetched again."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def cache_folder() -> Path:
    """The user's cache; XDG_CACHE_HOME goes before the system's custom."""
    chosen = os.environ.get("XDG_CACHE_HOME")
    if chosen and os.path.isabs(chosen):
        return Path(chosen)
    if platform.system() == "Darwin":
        return Path.home() / "Library/Caches"
    if platform.system() == "Windows":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local")
    return Path.home() / ".cache"
