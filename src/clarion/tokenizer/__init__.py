"""Text to token ids and back, and chat templates, from the metadata of a GGUF file alone."""

from clarion.tokenizer.template import render
from clarion.tokenizer.tokenizer import Stream, Tokenizer

__all__ = ["Stream", "Tokenizer", "render"]
