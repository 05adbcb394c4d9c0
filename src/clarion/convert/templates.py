"""A checkpoint's chat templates as metadata of a GGUF file."""

from __future__ import annotations

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
    if isinstance(found, str):
        return {"default": found}
    named = found
    if isinstance(found, list) and all(isinstance(entry, dict) for entry in found):
        named = {entry.get("name"): entry.get("template") for entry in found}
    texts = [text for pair in named.items() for text in pair] if isinstance(named, dict) else [None]
    if not all(isinstance(text, str) for text in texts):
        raise FormatError(
            f"{checkpoint.folder}/{name}: chat_template is {found!r:.80}, expected a text or texts with names"
        )
    return dict(named)
