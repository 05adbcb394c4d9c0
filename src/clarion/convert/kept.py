"""Which format each tensor of a file is written in, and what that means for what was quantised."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from clarion.convert.matrix import Bytes
from clarion.convert.pieces import Target
from clarion.gguf import Format, format_named
from clarion.gguf.file_types import RECIPES

# Matrices that stay in float32: they are small, or added to rows.
_FLOATS = ("ffn_gate_inp", "ffn_gate_inp_shexp", "ssm_conv1d", "position_embd", "token_types")
_FILE_TYPES = {recipe.format: recipe.file_type for recipe in RECIPES.values() if recipe.name == recipe.format}


@dataclass(frozen=True, slots=True)
class Written:
    """A tensor and its format.

    Attributes:
        exact: whether the format is one that holds exactly its quantised values, so that it is only repacked.
    """

    target: Target
    format: Format
    exact: bool

    @property
    def n_bytes(self) -> int:
        return self.format.n_bytes(self.target.shape)

    def chunks(self, progress: Callable[[int], None]) -> Iterator[Bytes]:
        """Its bytes; see `Target.encode`."""
        write = self.target.repack if self.exact else self.target.encode
        return write(self.format.name, progress)


def choose(targets: Sequence[Target], type: str | None) -> list[Written]:
    """The formats of tensors.

    Args:
        type: what people ask matrices to be in; None: quantised ones are kept where a format holds their
            values, and others are in BF16 where most come from such values or from float8, else in F16.
    """
    formats = {target.name: target.formats() for target in targets if not _is_f32(target)}
    n_elements: Counter[str] = Counter()
    for target in targets:
        for piece in target.pieces if not formats.get(target.name) else ():
            # A ternary matrix is one scale, of which float16 keeps more digits.
            n_elements["F16" if piece.ternary else piece.matrix.dtype] += piece.matrix.n_elements
    common = n_elements.most_common(1)
    other = "BF16" if common and common[0][0] in ("BF16", "F8_E4M3", "F8_E5M2") else "F16"
    return [_written(target, formats.get(target.name), type, other) for target in targets]


def _written(target: Target, held: tuple[str, ...] | None, type: str | None, other: str) -> Written:
    if held is None:
        return Written(target, format_named("F32"), exact=False)
    name = type or (held[0] if held else other)
    format = format_named(name)
    if target.shape[-1] % format.block_size:
        format = format_named("F16")
    return Written(target, format, exact=format.name in held)


def _is_f32(target: Target) -> bool:
    """Vectors, among them those of each expert, routers, convolutions, and what is no weight."""
    *_, stem, leaf = target.name.split(".")
    return len(target.shape) == 1 or leaf != "weight" or stem.endswith("_norm") or stem in _FLOATS


def file_type(written: Sequence[Written], type: str | None) -> int:
    """general.file_type: what people asked for, else the format of most that is kept, or of most."""
    if type is not None:
        return _FILE_TYPES[type]
    matrices = [one for one in written if not _is_f32(one.target)]
    n_elements: Counter[str] = Counter()
    for one in [one for one in matrices if one.exact] or matrices:
        n_elements[one.format.name] += math.prod(one.target.shape)
    return _FILE_TYPES[n_elements.most_common(1)[0][0]]


def described(written: Iterable[Written]) -> list[str]:
    """What becomes of the quantised tensors, a line for each kind of them in a person's words."""
    counted: Counter[tuple[str, str, bool]] = Counter()
    for one in written:
        methods = {piece.matrix.method for piece in one.target.pieces} - {""}
        if methods:
            counted["; ".join(sorted(methods)), one.format.name, one.exact] += 1
    return [
        f"{method}: {n} tensor{'s' if n > 1 else ''} "
        + (f"kept as {format}, without loss" if exact else f"dequantized, written as {format}")
        for (method, format, exact), n in counted.items()
    ]
