"""The golden vocabularies, and small ones for single rules."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from clarion.tokenizer import Tokenizer

FOLDER = Path(__file__).with_name("goldens")
TEXTS: list[str] = json.loads((FOLDER / "texts.json").read_text())
VOCABULARIES = ("gpt2", "gpt2-text", "llama", "t5", "bert", "rwkv")


@cache
def golden(name: str) -> Any:
    """What a golden file holds; not to be changed."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def ggml(**values: Any) -> dict[str, Any]:
    """Metadata of a tokenizer."""
    return {f"tokenizer.ggml.{key}": value for key, value in values.items()}


@cache
def tokenizer(name: str, pre: str = "gpt-2") -> Tokenizer:
    """The tokenizer of a golden vocabulary."""
    return Tokenizer.from_metadata(
        {**golden(name)["metadata"], **ggml(pre=pre if name == "gpt2" else "gemma4")}
    )
