"""The text: from a folder with `train.txt.xz` and `valid.txt.xz` to token ids on the disk.

A text is plain, its documents end with a line that holds only `<|endoftext|>`. Ids are those of the built-in
model's tokenizer, which all models of the zoo share; token 0 begins every document.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clarion.errors import FileError, FormatError
from clarion.gguf import File
from clarion.gguf.encode import encode_pair
from clarion.tokenizer import Tokenizer

# Whatever has this file's tokenizer can be compared with it, and can draft for it.
TOKENIZER = Path(__file__).parent.parent / "src" / "clarion" / "data" / "tale-q8_0.gguf"
SPLITS = ("train", "valid")

_END = "<|endoftext|>"


@dataclass(frozen=True, slots=True)
class Tokens:
    """A split as ids.

    Attributes:
        ids: of all documents after each other, each with token 0 before it, uint16 [N].
        starts: where each document begins in `ids`, and at last N, int64 [D + 1].
    """

    ids: NDArray[np.uint16]
    starts: NDArray[np.int64]


def tokenizer_digest() -> str:
    """SHA-256 of the tokenizer's metadata: not of the weights beside it, which change."""
    digest = hashlib.sha256()
    for key, value in tokenizer_metadata().items():
        digest.update(encode_pair(key, value))
    return digest.hexdigest()


def tokenizer_metadata() -> dict[str, object]:
    """The keys of the tokenizer as every file of the zoo has them."""
    metadata = File.open(TOKENIZER).metadata.exact()
    return {key: value for key, value in metadata.items() if key.startswith("tokenizer.")}


def documents(text: Iterator[str]) -> Iterator[str]:
    """The documents of a text that comes line by line, without the empty ones."""
    lines: list[str] = []
    for line in text:
        if line.rstrip("\n") == _END:
            yield from _document(lines)
            lines = []
        else:
            lines.append(line)
    yield from _document(lines)


def read_text(folder: Path, split: str) -> str:
    """A split as one text, documents divided by an empty line: what `clarion eval` is given.

    Raises:
        FileError: it cannot be read.
    """
    return "\n\n".join(_read(folder, split)) + "\n"


def prepare(folder: Path, cache: Path) -> dict[str, Tokens]:
    """Both splits as ids; made once, and again when a text or the tokenizer has changed.

    Args:
        folder: holds `train.txt.xz` and `valid.txt.xz`.
        cache: where the ids are kept.

    Raises:
        FileError: a text cannot be read, or the ids cannot be written.
        FormatError: a split holds no text.
    """
    cache.mkdir(parents=True, exist_ok=True)
    return {split: _prepared(folder, split, cache) for split in SPLITS}


def _prepared(folder: Path, split: str, cache: Path) -> Tokens:
    digest = hashlib.sha256(_bytes(folder, split) + tokenizer_digest().encode()).hexdigest()
    path = cache / f"{split}-{digest[:16]}.npz"
    if not path.exists():
        made = _tokenize(_read(folder, split), f"{folder}: {split}")
        temporary = path.with_name(f".{secrets.token_hex(8)}.npz")
        np.savez(temporary, ids=made.ids, starts=made.starts)
        os.replace(temporary, path)
    with np.load(path) as arrays:
        return Tokens(arrays["ids"], arrays["starts"])


def _tokenize(texts: Iterator[str], where: str) -> Tokens:
    with File.open(TOKENIZER) as file:
        tokenizer = Tokenizer.from_metadata(file.metadata)
        parts = [np.array(tokenizer.encode(text), np.uint16) for text in texts]
    if not parts:
        raise FormatError(f"{where} holds no text")
    starts = np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64)
    return Tokens(np.concatenate(parts), starts)


def _read(folder: Path, split: str) -> Iterator[str]:
    try:
        with lzma.open(folder / f"{split}.txt.xz", "rt", encoding="utf-8") as lines:
            yield from documents(lines)
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise FileError(f"{folder / split}.txt.xz: cannot be read: {error}") from error


def _bytes(folder: Path, split: str) -> bytes:
    try:
        return (folder / f"{split}.txt.xz").read_bytes()
    except OSError as error:
        raise FileError(f"{folder / split}.txt.xz: cannot be read: {error.strerror}") from error


def _document(lines: list[str]) -> Iterator[str]:
    text = "".join(lines).strip("\n")
    if text:
        yield text
