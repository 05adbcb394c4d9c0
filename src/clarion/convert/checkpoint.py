"""A folder as Hugging Face lays it out: config.json, and tensors in one file or in shards with an index."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from clarion.convert import pickles, safetensors
from clarion.convert.safetensors import parse_json
from clarion.convert.stored import Stored
from clarion.errors import FileError, FormatError, ModelError
from clarion.gguf.kinds import instead, no_checkpoint

_INDEX = ".index.json"
# What weights are looked for under, and their readers: the first that is there holds all of them.
WEIGHTS: dict[str, Callable[[Path], dict[str, Stored]]] = {
    "model.safetensors" + _INDEX: safetensors.read,
    "model.safetensors": safetensors.read,
    "pytorch_model.bin" + _INDEX: pickles.read,
    "pytorch_model.bin": pickles.read,
}
# What is read beside them, where it is there: whoever fetches a checkpoint fetches these.
BESIDE = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)


def weights_among(names: Container[str], where: str) -> str:
    """Which of the files holds the weights, or lists those that do; `where` begins the message of an error.

    Raises:
        FileError: none of them.
    """
    for name in WEIGHTS:
        if name in names:
            return name
    raise FileError(f"{where}: no weights, expected one of {', '.join(WEIGHTS)}")


def _explained(error: FormatError, path: Path, wanted: str) -> FormatError:
    """The error, with what stands in the place of the file where something does."""
    found = instead(path, wanted, any_kind=False)
    return type(error)(f"{error}: {found}") if found else error


def is_index(name: str) -> bool:
    """Whether the file only says in which others the tensors are."""
    return name.endswith(_INDEX)


def places(index: Mapping[str, Any], where: str) -> dict[str, str]:
    """The files beside an index by the names of the tensors in them.

    Raises:
        FormatError: it holds something else.
    """
    found = index.get("weight_map")
    if not isinstance(found, dict) or not all(isinstance(file, str) for file in found.values()):
        raise FormatError(f"{where}: weight_map is {found!r:.80}, expected names of tensors and files")
    for file in found.values():
        if os.path.basename(file) != file or file in ("", ".", ".."):
            raise FormatError(f"{where}: weight_map names {file!r:.80}, expected a file beside it")
    return found


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
            raise no_checkpoint(folder)
        self.config = config
        self._tensors = self._read()

    def json(self, name: str) -> dict[str, Any] | None:
        """The object in a file of the folder, None where there is no such file."""
        raw = self.raw(name)
        path = self.folder / name
        try:
            return None if raw is None else parse_json(raw, str(path))
        except FormatError as error:
            raise _explained(error, path, "JSON") from error

    def text(self, name: str) -> str | None:
        """The text of a file of the folder, None where there is no such file."""
        raw = self.raw(name)
        try:
            return None if raw is None else raw.decode()
        except UnicodeDecodeError as error:
            raise FormatError(f"{self.folder / name}: offset {error.start}: not UTF-8") from None

    def raw(self, name: str) -> bytes | None:
        """The bytes of a file of the folder, None where there is no such file."""
        assert name in BESIDE or name in WEIGHTS, name
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
        name = weights_among([name for name in WEIGHTS if (self.folder / name).exists()], str(self.folder))
        return self._read_shards(name) if is_index(name) else self._read_file(name, name)

    def _read_file(self, name: str, file: str) -> dict[str, Stored]:
        """Reads a file as `WEIGHTS[name]` does."""
        path = self.folder / file
        try:
            return WEIGHTS[name](path)
        except FormatError as error:
            raise _explained(error, path, "weights") from error

    def _read_shards(self, index: str) -> dict[str, Stored]:
        files = places(self.json(index) or {}, str(self.folder / index))
        tensors: dict[str, Stored] = {}
        for file in sorted(set(files.values())):
            for name, tensor in self._read_file(index, file).items():
                if name not in files:
                    raise ModelError(f"{self.folder / file}: tensor {name!r} is missing from {index}")
                if files[name] == file:
                    tensors[name] = tensor
        missing = [name for name in files if name not in tensors]
        if missing:
            name = missing[0]
            raise ModelError(
                f"{self.folder / files[name]}: tensor {name!r} is missing, which {index} says is there"
            )
        return tensors
