"""A checkpoint's chat templates as metadata of a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clarion.convert.checkpoint import Checkpoint
from clarion.errors import FormatError


def convert(checkpoint: Checkpoint, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The chat template, and others by their names.

    Files of their own go before chat_template.json, that before tokenizer_config.json, as in transformers.

    Raises:
        FormatError: what stands there is neither a text nor texts with names.
    """
    named = checkpoint.templates()
    if "default" not in named:
        stored = (checkpoint.json("chat_template.json") or {}).get("chat_template")
        name = "tokenizer_config.json" if stored is None else "chat_template.json"
        found = _named(settings.get("chat_template") if stored is None else stored, checkpoint, name)
        # Without a default, the files of their own would be all there is.
        named = {"default": found["default"], **named} if named and "default" in found else named or found
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
