"""A folder as Hugging Face lays it out: config.json, and tensors in one file or in shards with an index."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from clarion.convert import pickles, safetensors, texts
from clarion.convert.stored import Stored
from clarion.errors import FileError, FormatError, ModelError
from clarion.gguf.kinds import no_checkpoint

_INDEX = ".index.json"
# What weights are looked for under, and their readers: the first that is there holds all of them. One file
# goes before an index beside it, as in transformers.
WEIGHTS: dict[str, Callable[[Path], dict[str, Stored]]] = {
    "model.safetensors": safetensors.read,
    "model.safetensors" + _INDEX: safetensors.read,
    "pytorch_model.bin": pickles.read,
    "pytorch_model.bin" + _INDEX: pickles.read,
}
# What Sentence Transformers says of the model's texts: the first that is there counts.
SENTENCE_LIMITS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
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
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "modules.json",
    "config_sentence_transformers.json",
    *SENTENCE_LIMITS,
)
_TEMPLATES = "additional_chat_templates"  # a folder of chat templates that are called as their files
# The modules of Sentence Transformers have folders of their own, most of them called as 1_Pooling.
_BESIDE = re.compile(
    rf"{_TEMPLATES}/[^/]+\.jinja|(?!\.\.?/)[^/\\\0]+/config\.json|\d+_Dense/model\.safetensors"
)
_TIED = "lm_head.weight"  # where the embedding is the output, an index may name it and no file hold it


def is_beside(name: str) -> bool:
    """Whether a file, named by its path in the checkpoint, is read beside the weights."""
    return name in BESIDE or _BESIDE.fullmatch(name) is not None


def weights_among(names: Container[str], where: str) -> str:
    """Which of the files holds the weights, or lists those that do; `where` begins the message of an error.

    Raises:
        FileError: none of them.
    """
    for name in WEIGHTS:
        if name in names:
            return name
    raise FileError(f"{where}: no weights, expected one of {', '.join(WEIGHTS)}")


def is_index(name: str) -> bool:
    """Whether the file only says in which others the tensors are."""
    return name.endswith(_INDEX)


def is_tied(config: Mapping[str, Any]) -> bool:
    """Whether the embedding is the output as well."""
    return config.get("tie_word_embeddings") is True


def shards(places: Mapping[str, str], config: Mapping[str, Any], there: Callable[[str], bool]) -> list[str]:
    """The files that an index names, without those that are not there and hold but the tied output."""
    needed = {file for name, file in places.items() if not (name == _TIED and is_tied(config))}
    return sorted(file for file in set(places.values()) if file in needed or there(file))


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
        for path in sorted(folder.glob("[0-9]*_Dense/model.safetensors")):
            for name, stored in safetensors.read(path).items():
                full = f"{path.parent.name}.{name}"
                self._tensors[full] = replace(stored, name=full)

    def json(self, name: str) -> dict[str, Any] | None:
        """The object in a file of the folder, None where there is no such file."""
        raw = self.raw(name)
        return None if raw is None else texts.json(raw, str(self.folder / name))

    def list(self, name: str) -> list[dict[str, Any]]:
        """The objects in the list that a file of the folder holds; none where there is no such file.

        Raises:
            FormatError: it holds something else.
        """
        raw = self.raw(name)
        where = str(self.folder / name)
        return [] if raw is None else texts.objects(raw, where)

    def text(self, name: str) -> str | None:
        """The text of a file of the folder, None where there is no such file; lines end with a newline."""
        raw = self.raw(name)
        return None if raw is None else texts.text(raw, str(self.folder / name))

    def templates(self) -> dict[str, str]:
        """The chat templates that have files of their own, by name; `default` is the checkpoint's first.

        Raises:
            FileError: a file cannot be read.
            FormatError: one is not UTF-8.
        """
        found = {}
        default = self.text("chat_template.jinja")
        if default is not None:
            found["default"] = default
        for path in sorted((self.folder / _TEMPLATES).glob("*.jinja")):
            found[path.stem] = self.text(f"{_TEMPLATES}/{path.name}") or ""
        return found

    def raw(self, name: str) -> bytes | None:
        """The bytes of a file of the folder, None where there is no such file.

        Raises:
            FileError: it cannot be read.
            FormatError: no checkpoint has a file of this name, which another file gives.
        """
        if not is_beside(name) and name not in WEIGHTS:
            raise FormatError(f"{self.folder}: no file of a checkpoint is called {name!r:.80}")
        path = self.folder / name
        try:
            return path.read_bytes()
        except FileNotFoundError:
            if path.is_symlink():
                raise FileError(f"{path}: is a link to {os.readlink(path)}, which is not there") from None
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
        name = weights_among(
            [name for name in WEIGHTS if os.path.lexists(self.folder / name)], str(self.folder)
        )
        return self._read_shards(name) if is_index(name) else WEIGHTS[name](self.folder / name)

    def _read_shards(self, index: str) -> dict[str, Stored]:
        files = places(self.json(index) or {}, str(self.folder / index))
        optional = {_TIED} if is_tied(self.config) else set()
        tensors: dict[str, Stored] = {}
        for file in shards(files, self.config, lambda file: os.path.lexists(self.folder / file)):
            if not (self.folder / file).exists():
                raise FileError(
                    f"{self.folder / file}: is not there, though {index} names it: download it too"
                )
            for name, tensor in WEIGHTS[index](self.folder / file).items():
                if name not in files and name not in optional:
                    raise ModelError(f"{self.folder / file}: tensor {name!r} is missing from {index}")
                if files.get(name, file) == file:
                    tensors[name] = tensor
        missing = [name for name in files if name not in tensors and name not in optional]
        if missing:
            name = missing[0]
            raise ModelError(
                f"{self.folder / files[name]}: tensor {name!r} is missing, which {index} says is there"
            )
        return tensors
