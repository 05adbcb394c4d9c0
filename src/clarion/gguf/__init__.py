"""GGUF model files: read, validated, written. What a tensor is for, others know."""

from clarion.gguf.file import File
from clarion.gguf.formats import Format, format_named, format_of, formats
from clarion.gguf.metadata import Metadata, Strings
from clarion.gguf.part import Tensor
from clarion.gguf.writer import Writer

__all__ = [
    "File",
    "Format",
    "Metadata",
    "Strings",
    "Tensor",
    "Writer",
    "format_named",
    "format_of",
    "formats",
]
