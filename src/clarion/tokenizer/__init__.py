"""Text to token ids and back, and chat templates (`template.render`), from a GGUF file's metadata alone."""

from clarion.tokenizer.tokenizer import Stream, Tokenizer

__all__ = ["Stream", "Tokenizer"]
