"""A Hugging Face checkpoint as a GGUF file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from clarion.convert import families, vocabulary
from clarion.convert.checkpoint import Checkpoint
from clarion.convert.encode import ENCODERS, FILE_TYPES
from clarion.convert.hub import Repository
from clarion.convert.output import Planned, write
from clarion.convert.pieces import Target
from clarion.errors import ParameterError
from clarion.gguf import Format, format_named
from clarion.gguf.kinds import no_checkpoint
from clarion.gguf.texts import name_text
from clarion.gguf.writable import check_writable

WeightType = Literal["f16", "bf16", "f32", "q8_0"]
_QUANTIZATION_VERSION = 2  # of the block formats' layout
_FLOATS = ("ffn_gate_inp", "ffn_gate_inp_shexp", "ssm_conv1d")  # small matrices that stay in float32


def convert(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    type: WeightType | None = None,
    *,
    max_bytes: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Writes the model of a checkpoint and returns its files.

    Vectors, routers, convolutions and what is no weight are written in float32, matrices in `type`; where a
    row is no whole number of blocks, in F16.

    Args:
        source: the checkpoint's folder, or a repository of Hugging Face's hub, as `owner/name` or
            `owner/name@revision`; what is not in the hub's cache on this machine is downloaded.
        path: the file to write.
        type: of the matrices; None: bf16 where the checkpoint's are and none is ternary, else f16.
        max_bytes: of tensors in a file; None: one file, else parts (`-00001-of-0000N.gguf`).
        progress: hears of the bytes written, and of all that there are.

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
    model = families.convert(checkpoint.config, checkpoint, str(folder))
    format = _format(type, model.targets)
    tokenizer = vocabulary.convert(checkpoint, model.n_vocab)
    metadata: dict[str, Any] = {
        **model.metadata,
        "general.type": "model",
        "general.name": name_text(name),
        "general.file_type": np.uint32(FILE_TYPES[format]),
    }
    if format == "Q8_0":
        metadata["general.quantization_version"] = np.uint32(_QUANTIZATION_VERSION)
    formats = [_format_of(target, format) for target in model.targets]
    total = sum(f.n_bytes(target.shape) for target, f in zip(model.targets, formats, strict=True))
    check_writable(path, total)
    done = 0

    def advance(n_bytes: int) -> None:
        nonlocal done
        done += n_bytes
        progress(done, total)

    entries = [
        Planned(t.name, t.shape, f, lambda t=t, f=f: t.encode(f.name, advance))  # type: ignore[misc]
        for t, f in zip(model.targets, formats, strict=True)
    ]
    if model.rope_factors is not None:
        factors = model.rope_factors
        entries.append(Planned("rope_freqs.weight", factors.shape, format_named("F32"), lambda: factors))
    return write(Path(path), {**metadata, **tokenizer}, entries, max_bytes=max_bytes)


def _format(type: str | None, targets: list[Target]) -> str:
    """The name of the format that matrices are written in."""
    if type is None:
        n_elements: Counter[str] = Counter()
        for target in targets:
            for piece in target.pieces:
                # A ternary matrix is one scale, of which float16 keeps more digits.
                n_elements["F16" if piece.ternary else piece.stored.dtype] += piece.stored.n_elements
        return "BF16" if n_elements.most_common(1)[0][0] in ("BF16", "F8_E4M3", "F8_E5M2") else "F16"
    return type.upper()


def _check_type(type: str) -> None:
    if type.upper() not in ENCODERS:
        known = ", ".join(map(str.lower, ENCODERS))
        raise ParameterError(
            f"type is {type!r}, expected {known}; clarion quantize makes other formats of such a file"
        )


def _format_of(target: Target, wanted: str) -> Format:
    *_, stem, leaf = target.name.split(".")
    if len(target.shape) == 1 or leaf != "weight" or stem.endswith("_norm") or stem in _FLOATS:
        return format_named("F32")
    format = format_named(wanted)
    return format if target.shape[-1] % format.block_size == 0 else format_named("F16")
