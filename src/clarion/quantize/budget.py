"""A model in so many bytes: for each matrix the format that the whole is served best by."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clarion.errors import ParameterError
from clarion.evaluate.chunks import beginning
from clarion.evaluate.collect import collect
from clarion.evaluate.imatrix import Imatrix
from clarion.gguf import File, Writer
from clarion.gguf.file_types import ALIASES, RECIPES, Recipe
from clarion.gguf.part import padded
from clarion.gguf.writable import check_writable
from clarion.library import located
from clarion.quantize.frontier import Frontier, Offer
from clarion.quantize.measure import CANDIDATES, Measured, measure, own_text
from clarion.quantize.model import (
    Quantized,
    check_source,
    imatrix_metadata,
    notes,
    write_quantized,
    written_metadata,
)
from clarion.quantize.recipes import (
    Choice,
    choose_formats,
    is_quantizable,
    recipe_named,
)
from clarion.tokenizer import Tokenizer

CHUNK, MOST_CHUNKS = 512, 64  # of the text, for the importance: more of it changes little
OWN_TOKENS = 1024

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Mixture:
    """A format for each measured matrix.

    Attributes:
        measured: the matrices, in the order of the frontier.
        offers: what was chosen for each.
        n_bytes: of the file.
        cost: the estimated divergence from the source, in nats.
        others: bytes of the file that are not measured matrices.
        n_weights: in all tensors of the file.
    """

    measured: list[Measured]
    frontier: Frontier
    offers: list[Offer]
    others: int
    n_weights: int

    @property
    def n_bytes(self) -> int:
        return self.others + sum(offer.n_bytes for offer in self.offers)

    @property
    def cost(self) -> float:
        return sum(offer.cost for offer in self.offers)

    def report(self) -> dict[str, Any]:
        """All figures as plain values."""
        return {
            "bytes": self.n_bytes,
            "estimated_divergence": self.cost,
            "frontier": [
                {"bytes": point.n_bytes + self.others, "estimated_divergence": point.cost}
                for point in self.frontier.points
            ],
            "matrices": [
                {
                    "name": matrix.tensor.name,
                    "format": chosen.format,
                    "influence": matrix.influence,
                    "offers": [
                        {"format": offer.format, "bytes": offer.n_bytes, "estimated_divergence": offer.cost}
                        for offer in matrix.offers
                    ],
                }
                for matrix, chosen in zip(self.measured, self.offers, strict=True)
            ],
        }


def choose(measured: Sequence[Measured], budget: int, others: int, n_weights: int) -> Mixture:
    """The mixture with the least cost within a budget.

    Args:
        budget: bytes of the whole file.
        others: those of them that are not measured matrices.

    Raises:
        ParameterError: even the smallest mixture is larger; the message names its size.
    """
    frontier = Frontier([matrix.offers for matrix in measured])
    least = frontier.points[0].n_bytes + others
    if budget < least:
        raise ParameterError(
            f"a budget of {size_text(budget)} cannot be reached with these formats: "
            f"the smallest file is {size_text(least)} ({least} bytes)"
        )
    return Mixture(list(measured), frontier, frontier.within(budget - others), others, n_weights)


def quantize_to_budget(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    budget: int,
    *,
    text: str | None = None,
    imatrix: str | os.PathLike[str] | None = None,
    candidates: Sequence[str] = CANDIDATES,
    overrides: Sequence[tuple[str, str]] = (),
    allow_requantize: bool = False,
    threads: int | None = None,
    progress: Progress = lambda what, done, total: None,
) -> tuple[Quantized, Mixture]:
    """Writes a model as a file of at most `budget` bytes.

    Args:
        text: what to measure with; None: what the model itself writes.
        imatrix: an importance matrix of the model; None: it is collected from the text.
        candidates: formats to choose from, beside the source's own.
        overrides: patterns of names and the formats of tensors that they find, whatever they cost.
        progress: hears what is being done, how much of it is, and how much it is in all.
        others: as `clarion.quantize.model.quantize`.

    Raises:
        ParameterError: the budget is less than the smallest mixture, the text is too short, or as `quantize`.
        FileError, FormatError, UnsupportedError, ModelError: as `quantize` and `clarion.load`.
    """
    check_writable(path)
    path = Path(path)
    importance = Imatrix.read(imatrix) if imatrix is not None else None
    with File.open(located(source)) as file:
        as_they_are = choose_formats(file, recipe_named("F16"), overrides, imatrix=True)
        fixed = [re.compile(pattern) for pattern, _ in overrides]
        tensors = [
            tensor
            for tensor in file.tensors.values()
            if is_quantizable(tensor) and not any(pattern.search(tensor.name) for pattern in fixed)
        ]
        if not tensors:
            raise ParameterError(f"{file.path}: has no matrices to choose formats for")
        names = {tensor.name for tensor in tensors}
        check_source(file, path, [c for c in as_they_are if c.tensor.name in names], allow_requantize)
        # The file is no larger than the source, whose own formats are among those to choose from.
        check_writable(path, min(budget, sum(tensor.n_bytes for tensor in file.tensors.values())))
        tokenizer = Tokenizer.from_metadata(file.metadata)
        tokens = tokenizer.encode(text) if text is not None else own_text(file.path, OWN_TOKENS, threads)
        if importance is None:
            importance = collect(
                file,
                tokens,
                dataset="" if text is not None else "written by the model",
                bos=beginning(tokenizer),
                chunk=min(CHUNK, len(tokens)),
                n_chunks=MOST_CHUNKS,
                output=True,
                threads=threads,
                progress=lambda done, total: progress("importance", done, total),
            )
        measured = measure(
            file,
            tensors,
            tokens=tokens,
            imatrix=importance,
            candidates=[name.upper() for name in candidates],
            threads=threads,
            progress=lambda done, total: progress("measure", done, total),
        )
        metadata = imatrix_metadata(imatrix or "", importance)
        others = _others(file, written_metadata(file, recipe_named("F16"), metadata), as_they_are, names)
        n_weights = sum(tensor.n_elements for tensor in file.tensors.values())
        mixture = choose(measured, budget, others, n_weights)
        chosen = [
            (f"^{re.escape(matrix.tensor.name)}$", offer.format)
            for matrix, offer in zip(measured, mixture.offers, strict=True)
        ]
        choices = choose_formats(file, recipe_named("F16"), [*overrides, *chosen], imatrix=True)
        paths = write_quantized(
            file,
            path,
            choices,
            _most_used(choices),
            importance=importance,
            metadata=metadata,
            allow_requantize=allow_requantize,
            threads=threads,
            progress=lambda done, total: progress("quantize", done, total),
        )
        return Quantized(paths, choices, notes(choices, importance)), mixture


def size_text(n_bytes: int) -> str:
    """A size for people, in decimal units."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.4g} {unit}"
    return f"{n_bytes} bytes"


def _others(file: File, metadata: dict[str, Any], choices: Sequence[Choice], names: Collection[str]) -> int:
    """Bytes of the file to be written that are not data of the tensors with these names."""
    writer = Writer("", metadata, file.alignment)
    measured = 0
    for choice in choices:
        writer.add(choice.tensor.name, choice.tensor.shape, choice.format, b"")
        if choice.tensor.name in names:
            measured += padded(choice.format.n_bytes(choice.tensor.shape), file.alignment)
    return writer.n_bytes - measured


def _most_used(choices: Sequence[Choice]) -> Recipe:
    """What the file calls itself: the recipe of the format that most weights have."""
    counts: Counter[str] = Counter()
    for choice in choices:
        counts[choice.format.name] += choice.tensor.n_elements
    (name, _), *_ = counts.most_common()
    named = ALIASES.get(name, name)
    return RECIPES.get(named) or next(recipe for recipe in RECIPES.values() if recipe.format == name)
