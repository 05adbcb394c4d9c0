"""A model written as one GGUF file, or as parts: all of it, or nothing."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from clarion.errors import FileError, ParameterError
from clarion.gguf import Format, Writer
from clarion.gguf.writer import Chunk

MAX_PARTS = 99_999


@dataclass(frozen=True, slots=True)
class Planned:
    """A tensor to be written. `data` makes its bytes when their turn comes."""

    name: str
    shape: tuple[int, ...]
    format: Format
    data: Callable[[], Chunk | Iterable[Chunk]]

    @property
    def n_bytes(self) -> int:
        return self.format.n_bytes(self.shape)


def part_names(path: Path, count: int) -> list[str]:
    """The names of a model's parts, of the name that their numbers are put into."""
    stem = path.name.removesuffix(".gguf")
    return [f"{stem}-{i + 1:05d}-of-{count:05d}.gguf" for i in range(count)]


def write(
    path: Path,
    metadata: Mapping[str, Any],
    entries: Sequence[Planned],
    *,
    max_bytes: int | None = None,
    parts: Sequence[Sequence[Planned]] | None = None,
    alignment: int = 32,
) -> list[Path]:
    """Writes the model and returns its files.

    Args:
        path: the file; of parts, the name that their numbers are put into, with or without `.gguf`.
        max_bytes: of the tensors of a part, at most; None: one file. A larger tensor has its own part.
        parts: the entries as they are to be distributed, in the place of `max_bytes`.

    Raises:
        ParameterError: more parts than names can count, or what does not fit the format.
        FileError: a file cannot be written. Nothing is left then.
    """
    if parts is None and max_bytes is not None:
        parts = _distribute(entries, max_bytes)
    if parts is None:
        with Writer(path, metadata, alignment) as writer:
            for entry in entries:
                writer.add(entry.name, entry.shape, entry.format, entry.data())
        return [path]
    if len(parts) > MAX_PARTS:
        raise ParameterError(f"{max_bytes} bytes a part make {len(parts)} parts, allowed: {MAX_PARTS}")
    names = part_names(path, len(parts))
    folder = path.with_name(f".{os.urandom(8).hex()}.partial")
    try:
        folder.mkdir()
        for i, (name, part) in enumerate(zip(names, parts, strict=True)):
            split = {
                "split.no": np.uint16(i),
                "split.count": np.uint16(len(parts)),
                "split.tensors.count": np.int32(len(entries)),
            }
            with Writer(folder / name, {**(metadata if i == 0 else {}), **split}, alignment) as writer:
                for entry in part:
                    writer.add(entry.name, entry.shape, entry.format, entry.data())
        for name in names:
            os.replace(folder / name, path.with_name(name))
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return [path.with_name(name) for name in names]


def parse_size(text: str) -> int:
    """Bytes of a size as `2G`, `4.5GB`, `500M`, `100K`, in powers of 1000, or `2GiB`, in powers of 1024.

    Raises:
        ParameterError: anything else.
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)([KMG])(?:B|(iB))?", text, re.ASCII)
    unit = 0 if match is None else (1024 if match[3] else 1000) ** (1 + "KMG".index(match[2]))
    n_bytes = 0 if match is None else int(Decimal(match[1]) * unit)
    if not n_bytes:
        raise ParameterError(f"size is {text!r}, expected a number and K, M or G, as 2G or 4.5GB")
    return n_bytes


def _distribute(entries: Sequence[Planned], max_bytes: int) -> list[list[Planned]]:
    """Tensors in their order, as many in a part as fit; one part where there are none."""
    parts: list[list[Planned]] = [[]]
    size = 0
    for entry in entries:
        if parts[-1] and size + entry.n_bytes > max_bytes:
            parts.append([])
            size = 0
        parts[-1].append(entry)
        size += entry.n_bytes
    return parts
