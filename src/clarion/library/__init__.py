"""Models by name: which lie on this machine, and fetching others.

| file | what it is |
|---|---|
| `reference.py` | what a name names, by its letters |
| `quants.py` | what names of files say: quantisations, parts, and which one is preferred |
| `places.py` | the table of places; `hub_cache.py`, `ollama.py`, `addresses.py`, `others.py` are its rows |
| `search.py` | which model of these places a name means |
| `fetch.py` | the way of a name to what fetches it: `hub.py`, `ollama.py`, `addresses.py` |
| `download.py`, `http.py` | one file from the network to the disk; requests and what becomes of failures |
| `remove.py` | what goes with a model that is removed |
| `environment.py` | variables and folders |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clarion.library.fetch import fetched, hub_name, pull
    from clarion.library.found import Found
    from clarion.library.http import Report
    from clarion.library.search import every, find, is_here, located

# Where each name lives: whoever only looks for a model imports nothing that fetches one.
_HOMES = {
    "Found": "found",
    "Report": "http",
    "every": "search",
    "fetched": "fetch",
    "find": "search",
    "hub_name": "fetch",
    "is_here": "search",
    "located": "search",
    "pull": "fetch",
}

__all__ = ["Found", "Report", "every", "fetched", "find", "hub_name", "is_here", "located", "pull"]


def __getattr__(name: str) -> object:
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'clarion.library' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"clarion.library.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
