"""Importance matrices: for each column of a weight matrix, the mean square of what it is multiplied with.

The expected squared error of a product is the error of the weights, squared and weighted by these means, as
far as columns of the input are independent: a quantizer that minimizes this keeps the outputs. The files are
those of llama.cpp's llama-imatrix: GGUF with general.type "imatrix", and for each matrix NAME.in_sum2
[experts, columns] and NAME.counts [experts, 1], both float32.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from clarion.errors import FormatError, ModelError
from clarion.gguf import File, Tensor, Writer
from clarion.gguf.texts import name_text

Doubles = npt.NDArray[np.float64]

TYPE = "imatrix"
DATASETS, CHUNK_COUNT, CHUNK_SIZE = "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"
_SUMS, _COUNTS = ".in_sum2", ".counts"


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of one matrix, or of each expert's: sums of squared inputs [E, K], and of how many inputs [E]."""

    sums: Doubles
    counts: Doubles

    @property
    def means(self) -> Doubles:
        """[E, K]. An expert that no token went to gets the mean over all of them, or ones."""
        total = self.counts.sum()
        others = self.sums.sum(0) / total if total else np.ones(self.sums.shape[1])  # [K]
        seen = self.counts[:, None] > 0
        return np.where(seen, self.sums / np.where(seen, self.counts[:, None], 1), others)

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics(self.sums + other.sums, self.counts + other.counts)


@dataclass(frozen=True, slots=True)
class Imatrix:
    """Statistics by the weight's name, and of which text.

    Attributes:
        datasets: names of the texts.
        chunk_count: chunks of them that were computed.
        chunk_size: tokens in a chunk.
    """

    statistics: Mapping[str, Statistics]
    datasets: tuple[str, ...]
    chunk_count: int
    chunk_size: int

    def importance(self, name: str, experts: int, cols: int) -> Doubles | None:
        """Of each column of the matrix `name`: [experts, cols]; None where the file does not have it.

        Raises:
            ModelError: it is of a matrix of another shape.
        """
        found = self.statistics.get(name)
        if found is None:
            return None
        if found.sums.shape != (experts, cols):
            raise ModelError(
                f"the importance matrix has {list(found.sums.shape)} for {name!r}, expected "
                f"{[experts, cols]}: it is of another model"
            )
        return found.means

    def __add__(self, other: Imatrix) -> Imatrix:
        """Both texts' statistics together.

        Raises:
            ModelError: they are of models with matrices of other shapes.
        """
        merged = dict(self.statistics)
        for name, statistics in other.statistics.items():
            mine = merged.get(name, statistics)
            if mine.sums.shape != statistics.sums.shape:
                shapes = f"{list(mine.sums.shape)} and {list(statistics.sums.shape)}"
                raise ModelError(f"{name!r} is {shapes} in importance matrices to be added")
            merged[name] = mine + statistics if name in self.statistics else statistics
        return Imatrix(
            merged,
            (*self.datasets, *other.datasets),
            self.chunk_count + other.chunk_count,
            other.chunk_size,
        )

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Reads a file.

        Raises:
            FileError: it cannot be read.
            FormatError: it is no importance matrix, or breaks the layout.
        """
        with File.open(path, wanted="an importance matrix") as file:
            kind = file.metadata.get("general.type")
            if not isinstance(kind, str) or kind != TYPE:  # an array of numbers has no one truth
                what = "" if "general.architecture" not in file.metadata else ": the file holds a model"
                raise FormatError(f"{file.path}: general.type is {kind!r:.80}, expected {TYPE!r}{what}")
            statistics = {
                name.removesuffix(_SUMS): _statistics(file, name.removesuffix(_SUMS))
                for name in file.tensors
                if name.endswith(_SUMS)
            }
            if not statistics:
                raise FormatError(f"{file.path}: no tensor's name ends in {_SUMS!r}")
            datasets = file.metadata.get(DATASETS)
            found = cls(
                statistics,
                tuple(str(text) for text in datasets) if isinstance(datasets, Sequence) else (),
                _integer(file, CHUNK_COUNT),
                _integer(file, CHUNK_SIZE),
            )
            file.check()
            return found

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes a file, or none.

        Raises:
            FileError: it cannot be written.
        """
        metadata = {
            "general.type": TYPE,
            DATASETS: list(map(name_text, self.datasets)),
            CHUNK_COUNT: np.uint32(self.chunk_count),
            CHUNK_SIZE: np.uint32(self.chunk_size),
        }
        with Writer(path, metadata) as writer:
            for name, found in sorted(self.statistics.items()):
                experts, cols = found.sums.shape
                outer = (experts,) if experts > 1 else ()
                writer.add(name + _SUMS, (*outer, cols), "F32", found.sums.astype(np.float32))
                writer.add(name + _COUNTS, (*outer, 1), "F32", found.counts.astype(np.float32))


def _statistics(file: File, name: str) -> Statistics:
    if name + _COUNTS not in file.tensors:
        raise FormatError(f"{file.path}: tensor {name + _SUMS!r} has no {name + _COUNTS!r} beside it")
    counts = _values(file.path, file.tensors[name + _COUNTS]).ravel()  # [E]
    sums = _values(file.path, file.tensors[name + _SUMS])
    if not len(counts) or sums.size % len(counts) or not sums.size:
        raise FormatError(
            f"{file.path}: tensor {name + _SUMS!r} has shape {list(sums.shape)}, "
            f"expected rows for {len(counts)} counts"
        )
    return Statistics(sums.reshape(len(counts), -1), counts)


def _values(path: Path, tensor: Tensor) -> Doubles:
    if tensor.format.name != "F32":
        raise FormatError(f"{path}: tensor {tensor.name!r} is {tensor.format.name}, expected F32")
    values = np.asarray(tensor.data).view("<f4").astype(np.float64).reshape(tensor.shape)
    if not np.isfinite(values).all() or (values < 0).any():
        raise FormatError(f"{path}: tensor {tensor.name!r} has values that are no sums of squares or counts")
    return values


def _integer(file: File, key: str) -> int:
    value: Any = file.metadata.get(key)
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and 0 <= value < 2**32:
        return int(value)
    raise FormatError(f"{file.path}: {key} is {value!r:.80}, expected a number of chunks or tokens")
