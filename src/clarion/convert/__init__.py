"""Making GGUF files: from Hugging Face checkpoints, from parts, and in parts."""

from clarion.convert.model import convert
from clarion.convert.output import parse_size
from clarion.convert.splitting import merge, split

__all__ = ["convert", "merge", "parse_size", "split"]
