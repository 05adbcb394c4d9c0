"""A folder as Hugging Face lays it out: config.json, and tensors in one file or in shards with an index."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from clarion.convert import pickles, safetensors
from clarion.convert.safetensors import parse_json
from clarion.convert.stored import Stored
from clarion.errors import FileError, FormatError, ModelError

# What weights are looked for under, the first that is there: index, single file, reader.
_LAYOUTS: tuple[tuple[str, str, Callable[[Path], dict[str, Stored]]], ...] = (
    ("model.safetensors.index.json", "model.safetensors", safetensors.read),
    ("pytorch_model.bin.index.json", "pytorch_model.bin", pickles.read),
)


class Checkpoint(Mapping[str, Stored]):
    """The tensors of a checkpoint, and the JSON files beside them."""

    def __init__(self, folder: Path) -> None:
        """Reads config.json and all headers.

        Raises:
            FileError: a file is missing or cannot be read.
            FormatError, UnsupportedError: as the readers of the files.
            ModelError: shards and index contradict each other.
        """
        self.folder = folder
        config = self.json("config.json")
        if config is None:
            raise FileError(f"{folder}: config.json is missing, expected a Hugging Face checkpoint")
        self.config = config
        self._tensors = self._read()

    def json(self, name: str) -> dict[str, Any] | None:
        """The object in a file of the folder, None where there is no such file."""
        raw = self.raw(name)
        return None if raw is None else parse_json(raw, str(self.folder / name))

    def text(self, name: str) -> str | None:
        """The text of a file of the folder, None where there is no such file."""
        raw = self.raw(name)
        try:
            return None if raw is None else raw.decode()
        except UnicodeDecodeError as error:
            raise FormatError(f"{self.folder / name}: offset {error.start}: not UTF-8") from None

    def raw(self, name: str) -> bytes | None:
        """The bytes of a file of the folder, None where there is no such file."""
        path = self.folder / name
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FileError(f"{path}: cannot be read: {error.strerror}") from error

    def __getitem__(self, name: str) -> Stored:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def _read(self) -> dict[str, Stored]:
        for index_name, single_name, read in _LAYOUTS:
            if (self.folder / index_name).exists():
                return self._read_shards(index_name, read)
            if (self.folder / single_name).exists():
                return read(self.folder / single_name)
        names = ", ".join(name for layout in _LAYOUTS for name in layout[:2])
        raise FileError(f"{self.folder}: no weights, expected one of {names}")

    def _read_shards(self, index_name: str, read: Callable[[Path], dict[str, Stored]]) -> dict[str, Stored]:
        index = self.json(index_name) or {}
        places = index.get("weight_map")
        path = self.folder / index_name
        if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
            raise FormatError(f"{path}: weight_map is {places!r:.80}, expected names of tensors and files")
        tensors: dict[str, Stored] = {}
        for file in sorted(set(places.values())):
            if os.path.basename(file) != file or file in ("", ".", ".."):
                raise FormatError(f"{path}: weight_map names {file!r:.80}, expected a file beside it")
            for name, tensor in read(self.folder / file).items():
                if name not in places:
                    raise ModelError(f"{self.folder / file}: tensor {name!r} is missing from {index_name}")
                if places[name] == file:
                    tensors[name] = tensor
        missing = [name for name in places if name not in tensors]
        if missing:
            name = missing[0]
            raise ModelError(
                f"{self.folder / places[name]}: tensor {name!r} is missing, which {index_name} says is there"
            )
        return tensors
