"""The tensors of a checkpoint, by the names that a file has for them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from clarion.convert.pieces import Piece, Target
from clarion.convert.stored import Stored
from clarion.errors import ModelError, UnsupportedError
from clarion.gguf import Format, format_named
from clarion.models.family import TENSORS, HuggingFace, Part
from clarion.plan.ir import Tensor

# Tables that the configuration gives as well, and the scales of activations, which are not rounded here.
_IGNORED = re.compile(r".*\.(rotary_emb\.inv_freq|masked_bias|input_scale|input_scale_ub|activation_scale)")
_SCALES = ("_scale_inv", "_scale")
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
        block: rows and columns that share a scale of float8.
    """

    def __init__(
        self,
        tensors: Mapping[str, Stored],
        kind: HuggingFace,
        metadata: Mapping[str, Any],
        block: tuple[int, int],
    ) -> None:
        self._tensors = tensors
        self._kind = kind
        self._metadata = metadata
        self._block = block
        self._names = {stem: _part(theirs) for stem, theirs in {**TENSORS, **kind.tensors}.items()}
        starts = (root for root in kind.roots if any(name.startswith(root) for name in tensors))
        self._root = next(starts, kind.roots[-1])
        self._targets: dict[_Name, Target] = {}
        self._used: set[str] = set()

    def __contains__(self, key: object) -> bool:
        name = _Name.parse(str(key))
        theirs = name and self._theirs(name)
        return theirs is not None and theirs.format(expert=0) in self._tensors

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
        self._used.add(f"{self._names.pop(stem).name}.weight")

    def in_order(self) -> list[Target]:
        """The targets that were asked for, in the file's order: what lies before the layers, each layer, the
        rest."""
        stems = list(dict.fromkeys(stem.split(".")[0] for stem in self._names))
        layers = (stem for stem, part in self._names.items() if "{layer}" in part.name)
        first = min(stems.index(stem.split(".")[0]) for stem in layers)

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
        own = self._names.get(f"{name.stem}.{name.leaf}")
        part = own or self._names.get(name.stem)
        if part is None or ("{layer}" in part.name) != (name.layer is not None):
            return None
        theirs = part.name.replace("{layer}", str(name.layer))
        if theirs.startswith(_ROOT):
            theirs = self._root + theirs.removeprefix(_ROOT)
        if own:
            return theirs
        if part.parameter:
            return theirs if name.leaf == "weight" else f"{theirs}_{name.leaf}"
        return f"{theirs}.{name.leaf}"

    def _target(self, key: str, name: _Name, theirs: str) -> Target:
        head_dim = self._metadata["attention.key_length"] if name.stem in self._kind.interleaved else 0
        ternary = name.stem in self._kind.ternary and name.leaf == "weight"
        plus = float(name.stem in self._kind.plus_one)
        part = self._names.get(f"{name.stem}.{name.leaf}") or self._names[name.stem]

        def piece(one: str) -> Piece:
            made = self._piece(one, head_dim, ternary)
            return replace(made, part=part, vector=name.leaf != "weight", plus=plus)

        if "{expert}" not in theirs:
            return Target(key, (piece(theirs),))
        each = (theirs.format(expert=e) for e in range(self._metadata["expert_count"]))
        pieces = tuple(map(piece, each))
        expected = pieces[0].stored.shape
        for stored in (piece.stored for piece in pieces):
            if stored.shape != expected:
                raise ModelError(
                    f"{stored.path.name}: tensor {stored.name!r} has shape {list(stored.shape)}, expected "
                    f"that of the first expert, {list(expected)}"
                )
        return Target(key, pieces, stacked=True)

    def _piece(self, name: str, head_dim: int, ternary: bool) -> Piece:
        if name not in self._tensors:
            raise ModelError(f"tensor {name!r} is missing")
        stored = self._tensors[name]
        where = f"{stored.path.name}: tensor {name!r} holds {stored.dtype}"
        scales = [name + suffix for suffix in _SCALES if name + suffix in self._tensors]
        self._used |= {name, *scales}
        if stored.dtype.startswith("F8") and not scales:
            raise ModelError(f"{where}, and {name}_scale is missing")
        if len(scales) > 1 or (scales and not stored.dtype.startswith("F8")):
            raise UnsupportedError(f"{where} and has {scales}")
        return Piece(stored, self._tensors[scales[0]] if scales else None, self._block, head_dim, ternary)


def _part(theirs: str | Part) -> Part:
    return theirs if isinstance(theirs, Part) else Part(theirs)
