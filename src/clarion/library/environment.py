"""What the environment says of hubs and folders. Everything is read when it is asked for, never at import."""

from __future__ import annotations

import os
from pathlib import Path

from clarion.folders import cache_folder

HUB = "https://huggingface.co"
OLLAMA_REGISTRY = "https://registry.ollama.ai"


def hub_endpoint() -> str:
    """The address of the hub: HF_ENDPOINT, else Hugging Face's."""
    return (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")


def ollama_registry() -> str:
    """The address of Ollama's registry: OLLAMA_REGISTRY, else the public one."""
    return (os.environ.get("OLLAMA_REGISTRY") or OLLAMA_REGISTRY).rstrip("/")


def is_offline() -> bool:
    """Whether nothing may be fetched: HF_HUB_OFFLINE."""
    return (os.environ.get("HF_HUB_OFFLINE") or "").lower() in ("1", "on", "yes", "true")


def hub_home() -> Path:
    """Where programs of the hub keep what is theirs: HF_HOME."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    return _folder("HF_HOME") or default


def hub_cache() -> Path:
    """The hub's cache: HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, else `hub` in HF_HOME."""
    return _folder("HF_HUB_CACHE") or _folder("HUGGINGFACE_HUB_CACHE") or hub_home() / "hub"


def hub_token() -> str | None:
    """What identifies the user to the hub: HF_TOKEN, else the file that `hf auth login` writes."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if token := "".join((os.environ.get(name) or "").split()):
            return token
    try:
        text = (_folder("HF_TOKEN_PATH") or hub_home() / "token").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return "".join(text.split()) or None


def own_folder() -> Path:
    """Where Clarion keeps models that are of no hub: CLARION_HOME, else `clarion/models` in the cache."""
    return _folder("CLARION_HOME") or cache_folder() / "clarion" / "models"


def ollama_folders() -> list[Path]:
    """Where Ollama keeps models: OLLAMA_MODELS, the user's folder, and that of the system's service."""
    chosen = _folder("OLLAMA_MODELS")
    known = [Path.home() / ".ollama" / "models", Path("/usr/share/ollama/.ollama/models")]
    return [chosen, *known] if chosen is not None else known


def lm_studio_folders() -> list[Path]:
    """Where LM Studio keeps models, today and before."""
    return [Path.home() / ".lmstudio" / "models", Path.home() / ".cache" / "lm-studio" / "models"]


def llama_cpp_folders() -> list[Path]:
    """Where llama.cpp keeps what it fetched: LLAMA_CACHE, else the user's cache."""
    chosen = _folder("LLAMA_CACHE")
    return [chosen] if chosen is not None else [cache_folder() / "llama.cpp"]


def _folder(name: str) -> Path | None:
    value = os.environ.get(name)
    return Path(os.path.expanduser(os.path.expandvars(value))) if value else None
