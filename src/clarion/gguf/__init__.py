"""GGUF model files: read, validated, written. What a tensor is for, others know."""

from typing import TYPE_CHECKING

from clarion.gguf.file import File
from clarion.gguf.formats import Format, format_named, format_of, formats
from clarion.gguf.metadata import Metadata, Strings
from clarion.gguf.part import Tensor

if TYPE_CHECKING:
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


def __getattr__(name: str) -> object:
    """The writer is imported when it is used: who runs a model needs none."""
    if name != "Writer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from clarion.gguf.writer import Writer

    return Writer
