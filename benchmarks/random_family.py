"""Write GGUF files of real models' shapes in any family, filled with random weights.

    python benchmarks/random_family.py FOLDER                        # all of shapes.py, 5 GB
    python benchmarks/random_family.py FOLDER gemma3-1b bert-base    # these

`random_model.py` says why random weights do. A family's graph is built over a checkpoint that has whatever is
asked for and remembers it: so a file holds the tensors that the family reads. Their formats are those of
published quantisations. Equal names give equal bytes. Needs the `gguf` package (`pip install .[test]`).
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from random_model import WEIGHT_STD, vocabulary
from random_weights import random_rows
from shapes import SHAPES, Shape

from clarion.gguf import File, Format, Writer, format_named
from clarion.models import FAMILIES
from clarion.models.keys import Keys
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.weight import Weight, Whole
from clarion.quantize.recipes import choose_formats, recipe_named

_CHUNK = 64 << 20  # weights that are drawn at once


class Asked(Checkpoint):
    """A checkpoint that has whatever is asked for; `found` has the shapes by name."""

    def __init__(self, shape: Shape, found: dict[str, tuple[int, ...]], prefix: str = "") -> None:
        super().__init__({}, prefix)
        self._shape = shape
        self._found = found

    def __getitem__(self, name: str | int) -> Asked:
        return Asked(self._shape, self._found, f"{self.prefix}.{name}" if self.prefix else str(name))

    def __contains__(self, leaf: str) -> bool:
        name = re.sub(r"^blk\.\d+\.", "", f"{self.prefix}.{leaf}")
        return re.fullmatch(self._shape.optional, name) is not None

    def n_rows(self) -> int:
        return {"token_embd": self._shape.vocabulary, **self._shape.heights}[self.prefix]

    def leave(self, *, kept: bool = True) -> None:
        """What nothing reads is not in the file."""

    def _take(self, leaf: str, shape: tuple[int, ...]) -> Weight:
        name = f"{self.prefix}.{leaf}"
        self._found[name] = shape
        plain = format_named("F32")
        experts, rows, cols = (1,) * (3 - len(shape)) + shape
        return Weight(name, Whole(name), plain.name, plain.type_id, rows, cols, experts, plain.n_bytes(shape))


@dataclass(frozen=True, slots=True)
class Unformatted:
    """A tensor as a recipe sees it, before it has a format."""

    name: str
    shape: tuple[int, ...]
    format: Format


@dataclass(frozen=True, slots=True)
class Outline:
    """What a recipe reads of a file: metadata, and tensors without bytes."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, Unformatted]


def metadata_of(shape: Shape) -> dict[str, Any]:
    """The file's metadata without its vocabulary."""
    keys = {f"{shape.architecture}.{key}": value for key, value in shape.keys.items()}
    return {"general.architecture": shape.architecture, **keys, **shape.others}


def tensors(shape: Shape) -> dict[str, tuple[Format, tuple[int, ...]]]:
    """Format and shape of each tensor that the family reads, in the order in which it asks for them."""
    metadata, found = metadata_of(shape), dict[str, tuple[int, ...]]()
    FAMILIES[shape.architecture].build(Keys(metadata), Asked(shape, found))
    plain = format_named("F32")
    outline = Outline(metadata, {name: Unformatted(name, size, plain) for name, size in found.items()})
    choices = choose_formats(cast(File, outline), recipe_named(shape.recipe))
    return {choice.tensor.name: (choice.format, tuple(choice.tensor.shape)) for choice in choices}


def values(
    generator: np.random.Generator, name: str, format: Format, shape: tuple[int, ...]
) -> Iterator[NDArray[Any]]:
    """The bytes of a tensor, in chunks: norms are near 1, states fade, all else has the mean 0."""
    if name.endswith("ssm_a"):
        yield -np.exp(generator.uniform(-2, 2, shape)).astype(np.float32)
    elif len(shape) == 1 and not name.endswith("norm.weight"):
        yield (generator.standard_normal(shape, np.float32) * np.float32(WEIGHT_STD)).view(np.uint8)
    elif len(shape) == 1:
        yield random_rows(generator, format.name, shape, WEIGHT_STD)
    else:
        rows, cols = math.prod(shape[:-1]), shape[-1]
        most = max(_CHUNK // cols, 1)
        for first in range(0, rows, most):
            yield random_rows(generator, format.name, (min(most, rows - first), cols), WEIGHT_STD)


def write(path: Path, name: str, shape: Shape, seed: int = 1) -> None:
    """Write the model. The file appears at `path` only when it is complete."""
    tokens, kinds, merges = vocabulary(shape.vocabulary)
    begin, end = (np.uint32(tokens.index(token)) for token in ("<|begin_of_text|>", "<|end_of_text|>"))
    metadata = metadata_of(shape) | {
        "general.name": f"random {name}",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": begin,
        "tokenizer.ggml.eos_token_id": end,
        "tokenizer.ggml.add_bos_token": True,
    }
    generator = np.random.default_rng(seed)
    with Writer(path, metadata) as writer:
        for tensor, (format, size) in tensors(shape).items():
            writer.add(tensor, size, format, values(generator, tensor, format, size))


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Write GGUF files of real models' shapes, filled with random weights."
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SHAPES)} (default: all)")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(SHAPES)
    if unknown:
        parser.error(f"unknown shapes {', '.join(sorted(unknown))}; known: {', '.join(SHAPES)}")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or SHAPES:
        path = arguments.folder / f"{name}.gguf"
        write(path, name, SHAPES[name])
        print(f"{path}: {path.stat().st_size / 1e9:.2f} GB", flush=True)


if __name__ == "__main__":
    main()
