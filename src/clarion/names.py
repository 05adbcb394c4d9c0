"""What people call models: addresses, names of hubs, families; and what is said where there is none.

Nothing is looked up here: a name is told by its letters, and by what lies in the folders that it could name.
`clarion.library` knows which models are on this machine.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from clarion.errors import FileError

# Of files that a download has not finished.
UNFINISHED = (".part", ".partial", ".crdownload", ".download", ".opdownload", ".incomplete", ".tmp", ".!ut")
# Of files that hold models or what belongs to them.
_ENDINGS = (".gguf", ".ggml", ".bin", ".safetensors", ".pt", ".pth", ".onnx", ".tflite", ".json", ".txt")
STANDARD_INPUT = "-"
_ADDRESS = re.compile(
    r"[a-z][a-z0-9+.-]+:/|(www\.|hf\.co/|huggingface\.co/|ollama\.com/|modelscope\.cn/)", re.I
)
_HUB_ADDRESS = re.compile(
    r"(?:(?:https?:/{1,2})?(?:hf\.co|huggingface\.co)/|hf:/{1,2})([\w.-]+/[\w.-]+)", re.I
)
_WINDOWS_PATH = re.compile(r"([A-Za-z]:|\.{1,2})\\\S*")
_NAME = re.compile(r"[\w./:@~-]+", re.ASCII)
_HUB = re.compile(r"(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?P<rest>[:@][\w./-]+)?")
_TAG = re.compile(r"[A-Za-z0-9][\w.-]*:[A-Za-z0-9][\w.-]*")
# In whatever word they stand, these mean models.
_FAMILIES = re.compile(
    r"llama|mistral|mixtral|qwen|qwq|deepseek|smollm|codestral|devstral|starcoder|minicpm|internlm|chatglm"
    r"|nemotron|olmo|exaone|bitnet|gguf|ggml"
)
# These as a whole; the others are words of the language too, unless a dash joins them to something.
_SHORT_FAMILIES = frozenset({"gemma", "phi", "gpt", "glm"})
_JOINED_FAMILIES = _SHORT_FAMILIES | {
    *("falcon", "granite", "yi", "orca", "vicuna", "zephyr", "hermes", "dolphin", "command", "bloom", "opt"),
    *("mpt", "kimi", "grok", "solar", "aya", "dbrx", "jamba", "rwkv", "mamba", "pythia", "instruct", "chat"),
}

_NOT_HERE = "not on this machine; to fetch it: clarion pull"


def looks_like_a_model(word: str) -> bool:
    """Whether one word, where a text could stand, is rather meant to name a model or a file.

    A text rarely is one word with a digit, a slash, or a dot or colon inside; "Hello", "Title:", "Wait..."
    and "2+2=" are texts, and so is whatever has a space.
    """
    if _ADDRESS.match(word) or _WINDOWS_PATH.fullmatch(word):
        return True
    if not _NAME.fullmatch(word):
        return False
    if re.search(r"[0-9/~]|[.:](?=[^\W_])", word):
        return True
    lower = word.lower().strip(".:")
    parts = re.split(r"[-_]", lower)
    known = _JOINED_FAMILIES if len(parts) > 1 else _SHORT_FAMILIES
    return bool(_FAMILIES.search(lower)) or any(part in known for part in parts)


def missing(name: str) -> str:
    """Why there is no model of this name, and what to do: for a path that does not exist."""
    if name == STANDARD_INPUT:
        return "a model cannot be read from standard input"
    if _ADDRESS.match(name):
        return advice(name)
    return f"no such file; {advice(name)}" if advice(name) else f"no such file{_meant(Path(name))}"


def not_there(path: Path) -> FileError:
    """The error for a model that is not there."""
    if os.fspath(path) == STANDARD_INPUT:
        return FileError(f"{path}: {missing(STANDARD_INPUT)}")
    if os.path.islink(path):
        return FileError(f"{path}: it is a link to {os.path.realpath(path)}, which does not exist")
    what = f"; {advice(os.fspath(path))}" if advice(os.fspath(path)) else _meant(path)
    return FileError(f"{path}: cannot be opened: {os.strerror(errno.ENOENT)}{what}")


def advice(name: str) -> str:
    """What to do where somebody gives this name, which is that of no file; nothing for a path."""
    if _ADDRESS.match(name):
        hub = _HUB_ADDRESS.match(name)
        checkpoint = hub is not None and not name.lower().split("?")[0].endswith(".gguf")
        return f"an address, {_NOT_HERE} {name}{_or_convert(hub[1]) if hub and checkpoint else ''}"
    if _means_a_file(name):
        return ""
    if hub := _HUB.fullmatch(name):
        return f"as a name of Hugging Face's hub: {_NOT_HERE} {name}{_or_convert(hub['repository'])}"
    if _TAG.fullmatch(name):
        return f"as a name and tag of Ollama's library: {_NOT_HERE} {name}"
    if "/" not in name and looks_like_a_model(name):
        return f"as the name of a model: {_NOT_HERE} {name}"
    return ""


def _or_convert(repository: str) -> str:
    """Repositories named after GGUF hold files to take as they are; many others hold checkpoints."""
    repository = repository.split(":")[0]
    return "" if "gguf" in repository.lower() else f"; of a checkpoint: clarion convert {repository} out.gguf"


def _means_a_file(name: str) -> bool:
    """Whether a name can only be that of a file: by its ending, or since its folder is there."""
    folder = os.path.dirname(name)
    return name.lower().endswith(_ENDINGS) or (folder != "" and os.path.isdir(folder))


def _meant(path: Path) -> str:
    """What may be meant by the name of a file that is not there."""
    text = os.fspath(path)
    for suffix in (*UNFINISHED, ".aria2"):
        if os.path.exists(text + suffix):
            return f": there is {text + suffix}, an unfinished download"
    try:
        names = [name for name in os.listdir(path.parent) if name.lower().endswith(".gguf")]
    except (OSError, ValueError):
        return ""
    if not names:
        return ""
    stem = path.name.removesuffix(".gguf")
    parts = sorted(name for name in names if re.fullmatch(re.escape(stem) + r"-00001-of-\d{5}\.gguf", name))
    if parts:
        return f": it is in parts, of which any opens all: {os.fspath(path.with_name(parts[0]))}"
    from difflib import get_close_matches

    # Without the ending, which makes all short names alike.
    stems = {name[: -len(".gguf")]: name for name in names}
    near = get_close_matches(stem, stems, 1, 0.75)
    return f": is it {os.fspath(path.with_name(stems[near[0]]))}?" if near else ""
