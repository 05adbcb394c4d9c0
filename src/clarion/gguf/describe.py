"""A model file as plain values, for programs."""

from __future__ import annotations

import math
from array import array
from typing import Any

from clarion.gguf.file import File
from clarion.gguf.metadata import Metadata, Strings


def describe(file: File) -> dict[str, Any]:
    """All of a file but the weights.

    Arrays are whole. Bytes of strings in arrays that are no UTF-8 are lone surrogates, and a number that is
    none in JSON is a string: "nan", "inf", "-inf".

    Raises:
        FormatError: a string that stands alone is no UTF-8.
    """
    return {
        "path": str(file.path),
        "parts": [str(part) for part in file.parts],
        "version": file.version,
        "alignment": file.alignment,
        "bytes": sum(tensor.n_bytes for tensor in file.tensors.values()),
        "metadata": {key: _plain(file.metadata, key) for key in file.metadata},
        "types": {key: file.metadata.type(key) for key in file.metadata},
        "tensors": [
            {
                "name": tensor.name,
                "format": tensor.format.name,
                "shape": list(tensor.shape),
                "bytes": tensor.n_bytes,
                "offset": tensor.offset,
                "part": tensor.part,
            }
            for tensor in file.tensors.values()
        ],
    }


def _plain(metadata: Metadata, key: str) -> Any:
    value = metadata.plain(key)
    if isinstance(value, Strings):
        return value.texts()
    if isinstance(value, array | list):
        return [_number(item) for item in value]
    return value if isinstance(value, str) else _number(value)


def _number(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
