"""A model in a line: its family, how many parameters in which formats, how many bytes."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from clarion.gguf import File
from clarion.gguf.texts import size_text


@dataclass(frozen=True, slots=True)
class Summary:
    """What a file holds.

    Attributes:
        architecture: as the file names it; "unknown" where it does not.
        parameters: elements of all tensors.
        type: the recipe that it was written by, as Q4_K_M, where file and tensors agree on it; else the
            format of most parameters.
        bytes: of all its parts.
    """

    architecture: str
    parameters: int
    type: str
    bytes: int

    @classmethod
    def of(cls, file: File) -> Summary:
        architecture = file.metadata.get("general.architecture")
        return cls(
            architecture if isinstance(architecture, str) else "unknown",
            sum(tensor.n_elements for tensor in file.tensors.values()),
            _type(file),
            sum(part.stat().st_size for part in file.parts),
        )

    def report(self) -> dict[str, Any]:
        """All figures as plain values."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.architecture} {parameters_text(self.parameters)} {self.type}, {size_text(self.bytes)}"


def parameters_text(n: int) -> str:
    """A number of parameters, as 135 M or 7.2 B."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if n >= size:
            return f"{n / size:.0f} {unit}" if n >= 100 * size else f"{n / size:.1f} {unit}"
    return str(n)


def _type(file: File) -> str:
    from clarion.gguf.file_types import RECIPES

    counts: Counter[str] = Counter()
    for tensor in file.tensors.values():
        counts[tensor.format.name] += tensor.n_elements
    if not counts:
        return "no tensors"
    most = counts.most_common(1)[0][0]
    stated = file.metadata.plain("general.file_type")
    for name, recipe in RECIPES.items():
        if recipe.file_type == stated and recipe.format == most:
            return name
    return most
