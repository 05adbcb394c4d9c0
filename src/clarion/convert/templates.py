"""A checkpoint's chat templates as metadata of a GGUF file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from clarion.convert.checkpoint import Checkpoint
from clarion.errors import FormatError


def convert(checkpoint: Checkpoint, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The chat template, and others by their names.

    A default in a file of its own goes before tokenizer_config.json, as in transformers, and that before
    chat_template.json, which only processors have. Of two with the same name, that in a file of its own is
    taken.

    Raises:
        FormatError: what stands there is neither a text nor texts with names.
    """
    named = checkpoint.templates()
    if "default" not in named:
        stored, name = settings.get("chat_template"), "tokenizer_config.json"
        if stored is None:
            stored, name = (
                (checkpoint.json("chat_template.json") or {}).get("chat_template"),
                "chat_template.json",
            )
        named = _named(stored, checkpoint, name) | named
    metadata: dict[str, Any] = {
        "tokenizer.chat_template" if name == "default" else f"tokenizer.chat_template.{name}": template
        for name, template in named.items()
    }
    others = [name for name in named if name != "default"]
    return metadata | ({"tokenizer.chat_templates": others} if others else {})


def _named(found: Any, checkpoint: Checkpoint, name: str) -> dict[str, str]:
    if found is None:
        return {}
    if _is_text(found):
        return {"default": found}
    pairs = list(found.items()) if isinstance(found, dict) else [found]
    if isinstance(found, list) and all(isinstance(entry, dict) for entry in found):
        pairs = [(entry.get("name"), entry.get("template")) for entry in found]
    if not all(isinstance(pair, tuple) and all(_is_text(text) for text in pair) for pair in pairs):
        raise FormatError(
            f"{checkpoint.folder}/{name}: chat_template is {found!r:.80}, expected a text or texts with names"
        )
    return dict(pairs)


def _is_text(value: Any) -> bool:
    """Whether it is a text that a file can hold: without half a surrogate pair."""
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)
