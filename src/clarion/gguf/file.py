"""A GGUF model: one file, or all the parts of a split one."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Self

from clarion.errors import ClosedError, FileError, FormatError
from clarion.gguf.metadata import Metadata
from clarion.gguf.part import Part, Tensor, read_part
from clarion.gguf.texts import as_path

_PART_NAME = re.compile(r"(?P<prefix>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


class File:
    """An open model file. Tensors and arrays are views into the mapping, which lives as long as any of them.

    If the file is cut or changed meanwhile, the views read as zeros or as the new bytes; `check` tells.
    """

    __slots__ = ("_parts", "_tensors", "path")

    def __init__(self, path: Path, parts: tuple[Part, ...]) -> None:
        self.path = path
        self._parts = parts
        self._tensors: Mapping[str, Tensor] = MappingProxyType(_merge(parts))

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, wanted: str = "a model") -> Self:
        """Opens a file, and where it is a part of a split model, all the other parts beside it.

        Args:
            wanted: what the caller takes, for the error that says what the file is instead.

        Raises:
            FileError: a file is missing, cannot be read, or changed meanwhile.
            FormatError: a file breaks a rule of the format, or the parts contradict each other.
            UnsupportedError: a version, byte order or weight format that is not implemented.
            ParameterError: `path` is no name of a file.
        """
        path = as_path(path)
        first = read_part(path, wanted)
        if first.split.count == 1:
            return cls(path, (first,))
        paths = _part_paths(first)
        for i, other in enumerate(paths):
            if not other.exists():
                raise FileError(
                    f"{other}: cannot be opened: {os.strerror(errno.ENOENT)}: it is part {i + 1} of "
                    f"{len(paths)} of the model that {path.name} belongs to"
                )
        return cls(
            path,
            tuple(first if i == first.split.number else read_part(p, wanted) for i, p in enumerate(paths)),
        )

    @property
    def parts(self) -> tuple[Path, ...]:
        return tuple(part.path for part in self._open_parts())

    @property
    def version(self) -> int:
        return self._open_parts()[0].version

    @property
    def alignment(self) -> int:
        """In bytes, of the tensors in the first part."""
        return self._open_parts()[0].alignment

    @property
    def metadata(self) -> Metadata:
        """Of the first part; the others only repeat what concerns the split."""
        return self._open_parts()[0].metadata

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """By name, in the order of the parts and of their tables."""
        self._open_parts()
        return self._tensors

    def check(self) -> None:
        """Raises FileError if a part was cut or changed since it was opened.

        Whoever computes with the weights asks this afterwards: what was computed may be wrong.
        """
        for part in self._open_parts():
            part.check()

    def populate(self) -> None:
        """Begins to map, in the background, what the page cache holds: its first reads then cause no faults.

        For those who will read all of the file. It ends at the first bytes that are on the disk only.
        """
        for part in self._open_parts():
            part.mapping.populate()

    def close(self) -> None:
        """Drops the mapping, as far as no view into it is in use elsewhere."""
        self._parts = ()
        self._tensors = MappingProxyType({})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<File {self.path}>"

    def _open_parts(self) -> tuple[Part, ...]:
        if not self._parts:
            raise ClosedError(f"{self.path}: the file is closed")
        return self._parts


def _part_paths(part: Part) -> list[Path]:
    """Where all parts lie, derived from the name of one: nothing in a file names another file."""
    split = part.split
    # Names count from 1, `split.no` from 0.
    suffix = f"-{split.number + 1:05d}-of-{split.count:05d}.gguf"
    name = _PART_NAME.fullmatch(part.path.name)
    if name is None or not part.path.name.endswith(suffix):
        found = f"{split.number} of {split.count} parts"
        raise part.metadata.error("split.no", found, f"that in a file whose name ends in {suffix!r}")
    prefix = name["prefix"]
    return [
        part.path.with_name(f"{prefix}-{i + 1:05d}-of-{split.count:05d}.gguf") for i in range(split.count)
    ]


def _merge(parts: tuple[Part, ...]) -> dict[str, Tensor]:
    """The tensors of all parts, after a check that the parts belong together."""
    total = parts[0].split.n_tensors
    tensors: dict[str, Tensor] = {}
    for number, part in enumerate(parts):
        for key, found, expected in (
            ("split.count", part.split.count, len(parts)),
            ("split.no", part.split.number, number),
            ("split.tensors.count", part.split.n_tensors, total),
        ):
            if found != expected:
                raise part.metadata.error(key, found, f"{expected}, as part 1 and the file's name have it")
        for name, tensor in part.tensors.items():
            if name in tensors:
                other = parts[tensors[name].part].path.name
                raise FormatError(f"{part.path}: tensor {name!r} comes again, it is in {other} already")
            tensors[name] = tensor
    if total is not None and len(tensors) != total:
        allowed = f"{len(tensors)}, the number of tensors in {len(parts)} parts"
        raise parts[0].metadata.error("split.tensors.count", total, allowed)
    return tensors
