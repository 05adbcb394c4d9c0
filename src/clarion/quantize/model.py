"""A GGUF model in formats of fewer bits."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clarion.convert.output import Planned, part_names, write
from clarion.errors import ModelError, ParameterError
from clarion.evaluate.imatrix import Imatrix
from clarion.gguf import File, Format, Tensor
from clarion.gguf.file_types import Recipe
from clarion.gguf.texts import name_text
from clarion.gguf.writable import check_writable
from clarion.gguf.writer import Chunk
from clarion.host import native
from clarion.library import located
from clarion.quantize.recipes import Choice, choose_formats, is_quantizable, recipe_named
from clarion.quantize.tensor import Values, encode_rows

CHUNK_BYTES = 64 * 1024 * 1024  # of float32 values in memory at once, or one row where that is more
_QUANTIZATION_VERSION = 2  # of the block formats' layout
_FLOATS = ("F64", "F32", "F16", "BF16")
# Formats that lose so much that which columns matter decides over the text.
_LOSSY = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS")


@dataclass(frozen=True, slots=True)
class Quantized:
    """What was written.

    Attributes:
        paths: the files.
        choices: each tensor's format, in the file's order.
        notes: what a person should know: each fallback, then what the recipe or the importance lacks.
    """

    paths: list[Path]
    choices: list[Choice]
    notes: list[str]

    @property
    def bits_per_weight(self) -> tuple[float, float]:
        """Before and after, over all tensors."""
        n = sum(choice.tensor.n_elements for choice in self.choices)
        before = sum(choice.tensor.n_bytes for choice in self.choices)
        after = sum(choice.format.n_bytes(choice.tensor.shape) for choice in self.choices)
        return 8 * before / max(n, 1), 8 * after / max(n, 1)

    @property
    def formats(self) -> dict[str, int]:
        """How many tensors have each format, most first."""
        return dict(Counter(choice.format.name for choice in self.choices).most_common())

    @property
    def summary(self) -> list[str]:
        """The notes, but one line for all fallbacks of a kind: large models have hundreds."""
        kinds: dict[tuple[int, Format, Format], list[Choice]] = {}
        for choice in self.choices:
            if choice.format != choice.wanted:
                key = choice.tensor.shape[-1], choice.wanted, choice.format
                kinds.setdefault(key, []).append(choice)
        n = sum(map(len, kinds.values()))
        return [*(_fallback(*choices) for choices in kinds.values()), *self.notes[n:]]

    def report(self) -> dict[str, Any]:
        """All figures as plain values."""
        files = [{"path": os.fspath(path), "bytes": path.stat().st_size} for path in self.paths]
        before, after = self.bits_per_weight
        return {
            "files": files,
            "bytes": sum(path.stat().st_size for path in self.paths),
            "formats": self.formats,
            "bits_per_weight": after,
            "bits_per_weight_before": before,
            "notes": self.notes,
        }


def quantize(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    type: str,
    *,
    imatrix: str | os.PathLike[str] | None = None,
    overrides: Iterable[tuple[str, str]] = (),
    allow_requantize: bool = False,
    keep_split: bool = False,
    threads: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Quantized:
    """Writes a model in the formats of a recipe.

    Args:
        source: a GGUF file, or any part of a split one.
        path: the file to write; of parts, the name that their numbers are put into.
        type: a recipe, as `Q4_K_M`, or a format.
        imatrix: an importance matrix of the same model.
        overrides: patterns of names and the formats of tensors that they find, before the recipe.
        allow_requantize: also where a tensor is quantized already, which adds its error to the new one.
        keep_split: in parts as the source; else one file.
        threads: None: one for each core.
        progress: hears of the source's bytes that are done, and of all.

    Raises:
        FileError, FormatError: a file cannot be read or written, if possible found before the work.
            Nothing is left then.
        ParameterError: an unknown recipe, a pattern that finds nothing, or the source as the file to write.
        ModelError: a weight is not finite or too large, a tensor is quantized already, or the importance
            matrix is of another model.
    """
    recipe = recipe_named(type)
    if not keep_split or not os.fspath(path):  # parts have other names
        check_writable(path)
    importance = Imatrix.read(imatrix) if imatrix is not None else None
    with File.open(located(source)) as file:
        choices = choose_formats(file, recipe, overrides, imatrix=importance is not None)
        metadata = imatrix_metadata(imatrix, importance) if imatrix is not None and importance else {}
        paths = write_quantized(
            file,
            Path(path),
            choices,
            recipe,
            importance=importance,
            metadata=metadata,
            allow_requantize=allow_requantize,
            keep_split=keep_split,
            threads=threads,
            progress=progress,
        )
        return Quantized(paths, choices, notes(choices, importance, recipe))


def write_quantized(
    file: File,
    path: Path,
    choices: Sequence[Choice],
    recipe: Recipe,
    *,
    importance: Imatrix | None = None,
    metadata: dict[str, Any] | None = None,
    allow_requantize: bool = False,
    keep_split: bool = False,
    threads: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Writes a model with a format chosen for each tensor, see `quantize`; `recipe` only names the file's
    type."""
    check_source(file, path, choices, allow_requantize)
    in_parts = keep_split and len(file.parts) > 1
    first = path.with_name(part_names(path, len(file.parts))[0]) if in_parts else path
    check_writable(first, sum(choice.format.n_bytes(choice.tensor.shape) for choice in choices))
    kept = written_metadata(file, recipe, metadata or {})
    total = sum(choice.tensor.n_bytes for choice in choices)
    done = 0

    def encode(choice: Choice) -> Iterator[Chunk]:
        nonlocal done
        for chunk, n_bytes in _chunks(file, choice, importance, threads):
            yield chunk
            file.check()
            done += n_bytes
            progress(done, total)

    entries = [
        Planned(c.tensor.name, c.tensor.shape, c.format, lambda c=c: encode(c))  # type: ignore[misc]
        for c in choices
    ]
    parts = None
    if in_parts:
        parts = [
            [entry for entry, choice in zip(entries, choices, strict=True) if choice.tensor.part == part]
            for part in range(len(file.parts))
        ]
    return write(path, kept, entries, parts=parts, alignment=file.alignment)


def check_source(file: File, path: Path, choices: Iterable[Choice], allow_requantize: bool) -> None:
    """Refuses to write over what is read, and unless it is allowed, to quantize twice."""
    if any(path.resolve() == part.resolve() for part in file.parts):
        raise ParameterError(f"{path}: is what is read; write to another file")
    if not allow_requantize:
        _check_floats(file, choices)


def written_metadata(file: File, recipe: Recipe, more: Mapping[str, Any]) -> dict[str, Any]:
    """The source's, with what says how the weights are stored."""
    return file.metadata.exact() | {
        "general.file_type": np.uint32(recipe.file_type),
        "general.quantization_version": np.uint32(_QUANTIZATION_VERSION),
        **more,
    }


def read_rows(tensor: Tensor, begin: int, end: int) -> Values:
    """Rows of a tensor, [end - begin, cols]: float16 as it is, of bfloat16 the bits, else float32."""
    cols = tensor.shape[-1]
    size = tensor.format.n_bytes((1, cols))
    raw = np.asarray(tensor.data)[begin * size : end * size]
    kind = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8"}.get(tensor.format.name)
    if kind is None:
        rows: Values = native().dequantize(
            tensor.format.type_id, np.ascontiguousarray(raw), (end - begin) * cols
        )
    else:
        rows = raw.view(kind)
    if kind == "<f8":
        with np.errstate(over="ignore"):  # what float32 does not hold becomes infinite, and is refused
            rows = rows.astype(np.float32)
    return rows.reshape(end - begin, cols)


def _chunks(
    file: File, choice: Choice, imatrix: Imatrix | None, threads: int | None
) -> Iterator[tuple[Chunk, int]]:
    """A tensor's bytes in its format, and how many bytes of the source they stand for."""
    tensor = choice.tensor
    cols = tensor.shape[-1]
    size = tensor.format.n_bytes((1, cols))
    if choice.copied:
        for at in range(0, tensor.n_bytes, CHUNK_BYTES):
            raw = tensor.data[at : at + CHUNK_BYTES]
            yield raw, len(raw)
        return
    n_rows = math.prod(tensor.shape[:-1])
    n_experts = tensor.shape[0] if len(tensor.shape) == 3 else 1
    importance = None if imatrix is None else imatrix.importance(tensor.name, n_experts, cols)
    step = max(CHUNK_BYTES // (4 * max(cols, 1)), 1)
    each = n_rows // max(n_experts, 1)  # experts have importances of their own
    where = f"{file.parts[tensor.part]}: tensor {tensor.name!r}"
    for expert in range(n_experts):
        weights = None if importance is None else importance[expert]
        for begin in range(0, each, step):
            end = min(begin + step, each)
            rows = read_rows(tensor, expert * each + begin, expert * each + end)
            first = (expert, begin) if n_experts > 1 else (begin,)
            yield encode_rows(rows, choice.format, weights, threads, where, first), (end - begin) * size


def _check_floats(file: File, choices: Iterable[Choice]) -> None:
    for choice in choices:
        if not choice.copied and choice.tensor.format.name not in _FLOATS:
            raise ModelError(
                f"{file.parts[choice.tensor.part]}: tensor {choice.tensor.name!r} is "
                f"{choice.tensor.format.name} already, expected {', '.join(_FLOATS)}; "
                "--allow-requantize adds one error to the other"
            )


def notes(choices: Sequence[Choice], imatrix: Imatrix | None, recipe: Recipe | None = None) -> list[str]:
    """What a person should know: fallbacks, a recipe whose own format nothing has, and matrices without
    importance."""
    found = [_fallback(choice) for choice in choices if choice.format != choice.wanted]
    matrices = [c for c in choices if is_quantizable(c.tensor)]
    if recipe is not None and matrices and all(c.wanted.name != recipe.format for c in matrices):
        formats = ", ".join(Counter(c.format.name for c in matrices))
        hint = ""
        if recipe.name.endswith("_MOE"):
            hint = f", for it is a recipe for experts and there are none; {recipe.format} is for all matrices"
        found.append(f"{recipe.name} writes no matrix of this model as {recipe.format}, but {formats}{hint}")
    inner = [c for c in matrices if not c.copied and c.tensor.name.startswith("blk.")]
    if imatrix is not None:
        missing = [c.tensor.name for c in inner if c.tensor.name not in imatrix.statistics]
        if missing:
            found.append(f"no importance for {len(missing)} of {len(inner)} matrices, first {missing[0]}")
    elif lossy := sorted({c.format.name for c in inner} & set(_LOSSY)):
        found.append(
            f"{', '.join(lossy)} without an importance matrix: clarion imatrix makes one, --imatrix reads it"
        )
    return found


def _fallback(first: Choice, *others: Choice) -> str:
    """What became of tensors with the same columns, wanted format and format."""
    names = f"{1 + len(others)} tensors, first {first.tensor.name}" if others else first.tensor.name
    return (
        f"fallback: {names}: {first.tensor.shape[-1]} columns are no whole blocks of "
        f"{first.wanted.block_size}: {first.wanted.name} → {first.format.name}"
    )


def imatrix_metadata(path: str | os.PathLike[str], imatrix: Imatrix) -> dict[str, Any]:
    """What a file says of the importance matrix that it was made with."""
    return {
        "evaluate.imatrix.file": name_text(path),
        "evaluate.imatrix.dataset": ", ".join(map(name_text, imatrix.datasets)),
        "evaluate.imatrix.entries_count": np.int32(len(imatrix.statistics)),
        "evaluate.imatrix.chunks_count": np.int32(imatrix.chunk_count),
    }
