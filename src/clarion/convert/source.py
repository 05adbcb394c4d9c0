"""The tensors of a checkpoint, by the names that a file has for them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from clarion.convert import quantization
from clarion.convert.matrix import Matrix
from clarion.convert.parts import part_of
from clarion.convert.pieces import Piece, Target
from clarion.convert.quantization import Method
from clarion.convert.stored import Stored
from clarion.errors import ModelError, UnsupportedError
from clarion.gguf import Format, format_named
from clarion.models.family import TENSORS, HuggingFace, Part
from clarion.plan.ir import Tensor

# Tables that the configuration gives as well, and the scales of activations, which are not rounded here.
_IGNORED = re.compile(
    r".*\.(rotary_emb\.inv_freq|masked_bias|activation_scale"
    r"|(input|output|k|v|q|prob)(_global)?_(scale|scale_ub|zero_point))"
)
_SHOWN = 5
_ROOT = "model."  # of the names in `TENSORS`
_F32, _NO_BYTES = format_named("F32"), memoryview(b"")
_NAME = re.compile(r"(?:blk\.(\d+)\.)?(\w+)\.(\w+)")


class _Name(NamedTuple):
    """A tensor's name in a file: `blk.3.attn_q.bias` is (3, "attn_q", "bias"); outside the layers, None."""

    layer: int | None
    stem: str
    leaf: str

    @classmethod
    def parse(cls, name: str) -> _Name | None:
        match = _NAME.fullmatch(name)
        return cls(None if match[1] is None else int(match[1]), match[2], match[3]) if match else None


@dataclass(frozen=True, slots=True)
class _Shape:
    """A target as a graph sees tensors: no bytes, and a format that any operation reads."""

    name: str
    shape: tuple[int, ...]
    format: Format = _F32
    view: memoryview = _NO_BYTES


class Source(Mapping[str, Tensor]):
    """The checkpoint as the tensors of a file, which a family's graph asks for; it remembers for which.

    Args:
        tensors: the checkpoint's, by its own names.
        metadata: the file's hyperparameters, by their names below the architecture's.
        method: how the checkpoint is quantised.
    """

    def __init__(
        self,
        tensors: Mapping[str, Stored],
        kind: HuggingFace,
        metadata: Mapping[str, Any],
        method: Method,
    ) -> None:
        self._tensors = tensors
        self._kind = kind
        self._metadata = metadata
        self._method = method
        named: dict[str, str | Part] = {**TENSORS, **kind.tensors}
        self._names = {stem: _part(theirs) for stem, theirs in named.items()}
        starts = (root for root in kind.roots if any(name.startswith(root) for name in tensors))
        self._root = next(starts, kind.roots[-1])
        self._targets: dict[_Name, Target] = {}
        self._used: set[str] = set()

    def __contains__(self, key: object) -> bool:
        name = _Name.parse(str(key))
        theirs = name and self._theirs(name)
        return theirs is not None and self._find(theirs.format(expert=0)) is not None

    def __getitem__(self, key: str) -> Tensor:
        """The tensor's shape, under the checkpoint's name for it.

        Raises:
            KeyError: neither the family nor `TENSORS` has a name for it.
            ModelError: the checkpoint lacks it, or it has several shapes.
            UnsupportedError: it has scales that are not understood.
        """
        name = _Name.parse(key)
        theirs = name and self._theirs(name)
        if name is None or theirs is None:
            raise KeyError(key)
        if name not in self._targets:
            self._targets[name] = self._target(key, name, theirs)
        return _Shape(theirs, self._targets[name].shape)

    def __iter__(self) -> Iterator[str]:
        return (target.name for target in self._targets.values())

    def __len__(self) -> int:
        return len(self._targets)

    def drop(self, stem: str) -> None:
        """Takes the weight of this name away, whether it is there or not."""
        theirs = self._theirs(_Name(None, stem, "weight"))
        del self._names[stem]
        found = self._find(theirs) if theirs else None
        self._used.update(() if found is None else found.parts)

    def in_order(self) -> list[Target]:
        """The targets that were asked for, in the file's order: what lies before the layers, each layer, the
        rest."""
        stems = [key.partition(".")[0] for key in self._names]
        first = min(i for i, theirs in enumerate(self._names.values()) if "{layer}" in theirs.name)

        def place(name: _Name) -> tuple[float, int, bool]:
            index = stems.index(name.stem)
            outside = -math.inf if index < first else math.inf
            return (outside if name.layer is None else name.layer, index, name.leaf == "bias")

        return [self._targets[name] for name in sorted(self._targets, key=place)]

    def refuse_unused(self) -> None:
        """Raises UnsupportedError if the checkpoint has tensors that nobody asked for."""
        unused = [
            name
            for name in self._tensors
            if name not in self._used
            and not _IGNORED.fullmatch(name)
            and not name.startswith(self._kind.beside)
        ]
        if unused:
            more = f" and {len(unused) - _SHOWN} more" if len(unused) > _SHOWN else ""
            raise UnsupportedError(
                f"tensors that this family does not have: {', '.join(map(repr, unused[:_SHOWN]))}{more}"
            )

    def _theirs(self, name: _Name) -> str | None:
        """What the checkpoint calls a tensor, with `{expert}` where it has one for each; None: nothing."""
        part = self._part(name)
        if part is None or ("{layer}" in part.name) != (name.layer is not None):
            return None
        theirs = part.name.replace("{layer}", str(name.layer))
        if theirs.startswith(_ROOT):
            theirs = self._root + theirs.removeprefix(_ROOT)
        if f"{name.stem}.{name.leaf}" in self._names:
            return theirs
        if part.parameter:
            return theirs if name.leaf == "weight" else f"{theirs}_{name.leaf}"
        return f"{theirs}.{name.leaf}"

    def _part(self, name: _Name) -> Part | None:
        """Where a tensor is, by its own name or by that of all below its stem."""
        return self._names.get(f"{name.stem}.{name.leaf}") or self._names.get(name.stem)

    def _target(self, key: str, name: _Name, theirs: str) -> Target:
        head_dim = self._metadata["attention.key_length"] if name.stem in self._kind.interleaved else 0
        ternary = name.stem in self._kind.ternary and name.leaf == "weight"
        plus = float(name.stem in self._kind.plus_one)
        part = self._part(name)
        assert part is not None

        def piece(one: str) -> Piece:
            matrix = self._find(one)
            if matrix is None:
                raise ModelError(f"tensor {one!r} is missing{self._instead(one)}")
            self._used.update(matrix.parts)
            return Piece(part_of(matrix, part, vector=name.leaf != "weight"), head_dim, ternary, plus)

        if "{expert}" not in theirs:
            return Target(key, (piece(theirs),))
        each = (theirs.format(expert=e) for e in range(self._metadata["expert_count"]))
        pieces = tuple(map(piece, each))
        expected = pieces[0].matrix.shape
        for matrix in (piece.matrix for piece in pieces):
            if matrix.shape != expected:
                raise ModelError(
                    f"{matrix.path.name}: tensor {matrix.name!r} has shape {list(matrix.shape)}, expected "
                    f"that of the first expert, {list(expected)}"
                )
        return Target(key, pieces, stacked=True)

    def _find(self, name: str) -> Matrix | None:
        return quantization.find(self._method, self._tensors, name)

    def _instead(self, name: str) -> str:
        """What stands where a weight is missing that the configuration does not say is quantised."""
        base = name.removesuffix("weight")
        ends = (base + "qweight", name + "_packed", name + "_blocks")
        found = next((end for end in ends if end in self._tensors), None)
        return f", but {found!r} is there: quantization_config does not say so" if found else ""


def _part(theirs: str | Part) -> Part:
    return theirs if isinstance(theirs, Part) else Part(theirs)
