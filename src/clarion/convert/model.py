"""A Hugging Face checkpoint as a GGUF file."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from clarion.convert import families, judges, kept, sentences, vocabulary
from clarion.convert.checkpoint import Checkpoint
from clarion.convert.encode import ENCODERS
from clarion.convert.hub import Repository
from clarion.convert.output import Planned, write
from clarion.errors import ParameterError
from clarion.gguf import format_named
from clarion.gguf.kinds import no_checkpoint
from clarion.gguf.texts import name_text
from clarion.gguf.writable import check_writable
from clarion.models.keys import TOKEN_TYPES

WeightType = Literal["f16", "bf16", "f32", "q8_0"]
_QUANTIZATION_VERSION = 2  # of the block formats' layout


def convert(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    type: WeightType | None = None,
    *,
    max_bytes: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    report: Callable[[str], None] = lambda line: None,
) -> list[Path]:
    """Writes the model of a checkpoint and returns its files.

    Vectors and routers are written in float32, matrices in `type`; where a row is no whole number of blocks,
    in F16. Without a `type`, quantised matrices are kept as they are where a format holds their values.

    Args:
        source: the checkpoint's folder, or a repository of Hugging Face's hub, as `owner/name` or
            `owner/name@revision`; what is not in the hub's cache on this machine is downloaded.
        path: the file to write.
        type: of the matrices; None: bf16 where most are that are not kept, and none is ternary, else f16.
        max_bytes: of tensors in a file; None: one file, else parts (`-00001-of-0000N.gguf`).
        progress: hears of the bytes written, and of all that there are.
        report: hears what becomes of quantised matrices, a line for each kind, before anything is written.

    Raises:
        FileError, FormatError: a file cannot be read, downloaded or written, or breaks its format.
        UnsupportedError: a family, option, tensor or tokenizer that is not implemented; the message names it.
        ModelError: a tensor is missing, of another shape, or holds values that are not finite.
        ParameterError: `type` is unknown.
    """
    check_writable(path)
    if type is not None:
        _check_type(type)
    folder = Path(source)
    name = os.path.basename(os.path.realpath(folder))
    if folder.exists() and not folder.is_dir():
        raise no_checkpoint(folder)
    if not folder.is_dir():
        repository = Repository.parse(os.fspath(source))
        folder, name = repository.download(), repository.name
    checkpoint = Checkpoint(folder)
    judges_words = judges.is_judge(name, checkpoint.config)
    change = partial(judges.judging, checkpoint=checkpoint) if judges_words else None
    model = families.convert(checkpoint.config, checkpoint, str(folder), change)
    wanted = None if type is None else type.upper()
    written = kept.choose(model.targets, wanted)
    tokenizer = vocabulary.convert(checkpoint, model.n_vocab)
    metadata: dict[str, Any] = {
        **model.metadata,
        **sentences.convert(checkpoint, model.metadata, tokenizer),
        **(judges.METADATA if judges_words else {}),
        "general.type": "model",
        "general.name": name_text(name),
        "general.file_type": np.uint32(kept.file_type(written, wanted)),
    }
    types = next((target for target in model.targets if target.name == "token_types.weight"), None)
    if types is not None:
        metadata[TOKEN_TYPES] = np.uint32(types.shape[0])
    if any(one.format.block_size > 1 for one in written):
        metadata["general.quantization_version"] = np.uint32(_QUANTIZATION_VERSION)
    total = sum(one.n_bytes for one in written)
    check_writable(path, total)
    for line in kept.described(written):
        report(line)
    done = 0

    def advance(n_bytes: int) -> None:
        nonlocal done
        done += n_bytes
        progress(done, total)

    entries = [
        Planned(one.target.name, one.target.shape, one.format, partial(one.chunks, advance))
        for one in written
    ]
    for tensor, factors in model.rope_factors.items():
        entries.append(Planned(tensor, factors.shape, format_named("F32"), lambda factors=factors: factors))  # type: ignore[misc]
    return write(Path(path), {**metadata, **tokenizer}, entries, max_bytes=max_bytes)


def _check_type(type: str) -> None:
    if type.upper() not in ENCODERS:
        known = ", ".join(map(str.lower, ENCODERS))
        raise ParameterError(
            f"type is {type!r}, expected {known}; clarion quantize makes other formats of such a file"
        )
