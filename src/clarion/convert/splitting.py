"""A GGUF model in one file as parts, and parts as one file. No weight is changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from clarion.convert.output import Planned, write
from clarion.errors import ParameterError
from clarion.gguf import File, Tensor
from clarion.gguf.writable import check_writable
from clarion.gguf.writer import Chunk
from clarion.library import located

_CHUNK_BYTES = 16 * 1024 * 1024


def split(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    max_bytes: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Writes a model as parts of at most `max_bytes` of tensors and returns their paths.

    Raises:
        FileError: a file cannot be read or written, or the source changed meanwhile. Nothing is left then.
    """
    return _copy(source, path, max_bytes, progress)


def merge(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Writes a split model, of which `source` is any part, as one file.

    Raises:
        FileError: a file cannot be read or written, or the source changed meanwhile. Nothing is left then.
    """
    return _copy(source, path, None, progress)


def _copy(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    max_bytes: int | None,
    progress: Callable[[int, int], None],
) -> list[Path]:
    path = Path(path)
    with File.open(located(source)) as file:
        if any(path.resolve() == part.resolve() for part in file.parts):
            raise ParameterError(f"{path}: is what is read; write to another file")
        metadata = file.metadata.exact()
        total = sum(tensor.n_bytes for tensor in file.tensors.values())
        check_writable(path, total)
        done = 0

        def chunks(tensor: Tensor) -> Iterator[Chunk]:
            nonlocal done
            for begin in range(0, tensor.n_bytes, _CHUNK_BYTES):
                chunk = tensor.data[begin : begin + _CHUNK_BYTES]
                yield chunk
                file.check()
                done += len(chunk)
                progress(done, total)

        entries = [
            Planned(tensor.name, tensor.shape, tensor.format, lambda tensor=tensor: chunks(tensor))  # type: ignore[misc]
            for tensor in file.tensors.values()
        ]
        return write(path, metadata, entries, max_bytes=max_bytes, alignment=file.alignment)
