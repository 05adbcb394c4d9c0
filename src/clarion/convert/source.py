"""The tensors of a checkpoint, by the names that a file has for them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from clarion.convert.pieces import Piece, Target
from clarion.convert.stored import Stored
from clarion.errors import ModelError, UnsupportedError
from clarion.gguf import Format, format_named
from clarion.models.family import LAYER, TENSORS, HuggingFace, Made, Name
from clarion.plan.ir import Tensor

# Tables that the configuration gives as well, and the scales of activations, which are not rounded here.
_IGNORED = re.compile(r".*\.(rotary_emb\.inv_freq|masked_bias|input_scale|input_scale_ub|activation_scale)")
_SCALES = ("_scale_inv", "_scale")
_SHOWN = 5
_ROOT = "model."  # of the names in `TENSORS`
_F32, _NO_BYTES = format_named("F32"), memoryview(b"")
_NAME = re.compile(r"(?:blk\.(\d+)\.)?(\w+)(?:\.(\w+))?")


class _Name(NamedTuple):
    """A tensor's name in a file: `blk.3.attn_q.bias` is (3, "attn_q", "bias"); outside the layers, None, and
    without a leaf, ""."""

    layer: int | None
    stem: str
    leaf: str

    @property
    def key(self) -> str:
        return f"{self.stem}.{self.leaf}" if self.leaf else self.stem

    @classmethod
    def parse(cls, name: str) -> _Name | None:
        match = _NAME.fullmatch(name)
        return cls(None if match[1] is None else int(match[1]), match[2], match[3] or "") if match else None


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
        n_further: layers behind the last that predict further tokens, and are left out.
    """

    def __init__(
        self,
        tensors: Mapping[str, Stored],
        kind: HuggingFace,
        metadata: Mapping[str, Any],
        block: tuple[int, int],
        n_further: int = 0,
    ) -> None:
        self._tensors = tensors
        self._kind = kind
        self._metadata = metadata
        self._block = block
        self._names: dict[str, Name] = {**TENSORS, **kind.tensors}
        starts = (root for root in kind.roots if any(name.startswith(root) for name in tensors))
        self._root = next(starts, kind.roots[-1])
        first = metadata["block_count"]
        layer = LAYER.replace(_ROOT, self._root, 1)
        further = tuple(layer.format(layer=i) for i in range(first, first + n_further))
        self._beside = (*kind.beside, *further)
        self._targets: dict[_Name, Target] = {}
        self._used: set[str] = set()

    def __contains__(self, key: object) -> bool:
        name = _Name.parse(str(key))
        made = self._made(name) if name else None
        return made is not None and made.theirs.format(expert=0) in self._tensors

    def __getitem__(self, key: str) -> Tensor:
        """The tensor's shape, under the checkpoint's name for it.

        Raises:
            KeyError: neither the family nor `TENSORS` has a name for it.
            ModelError: the checkpoint lacks it, it has several shapes, or one that it is not made of.
            UnsupportedError: it has scales that are not understood.
        """
        name = _Name.parse(key)
        made = self._made(name) if name else None
        if name is None or made is None:
            raise KeyError(key)
        if name not in self._targets:
            self._targets[name] = self._target(key, name, made)
        return _Shape(made.theirs, self._targets[name].shape)

    def __iter__(self) -> Iterator[str]:
        return (target.name for target in self._targets.values())

    def __len__(self) -> int:
        return len(self._targets)

    def drop(self, stem: str) -> None:
        """Takes the weight of this name away, whether it is there or not."""
        made = self._made(_Name(None, stem, "weight"))
        if made is not None:
            self._used.add(made.theirs)
        del self._names[stem]

    def in_order(self) -> list[Target]:
        """The targets that were asked for, in the file's order: what lies before the layers, each layer, the
        rest."""
        stems = [key.partition(".")[0] for key in self._names]
        first = min(i for i, theirs in enumerate(self._names.values()) if "{layer}" in _patterns(theirs)[0])

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
            if name not in self._used and not _IGNORED.fullmatch(name) and not name.startswith(self._beside)
        ]
        if unused:
            more = f" and {len(unused) - _SHOWN} more" if len(unused) > _SHOWN else ""
            raise UnsupportedError(
                f"tensors that this family does not have: {', '.join(map(repr, unused[:_SHOWN]))}{more}"
            )

    def _made(self, name: _Name) -> Made | None:
        """Of what of the checkpoint's a tensor is made, with `{expert}` where it has one for each; None:
        nothing."""
        found, stem = self._names.get(name.key), self._names.get(name.stem)
        if found is None and isinstance(stem, str):
            found = f"{stem}.{name.leaf}"
        if found is None:
            return None
        among = [self._complete(one, name) for one in (found if isinstance(found, tuple) else (found,))]
        there = (made for made in among if made.theirs.format(expert=0) in self._tensors)
        made = next(there, among[0])
        return made if ("{layer}" in _patterns(found)[0]) == (name.layer is not None) else None

    def _complete(self, one: str | Made, name: _Name) -> Made:
        made = one if isinstance(one, Made) else Made(one)
        theirs = made.theirs.replace("{layer}", str(name.layer))
        if theirs.startswith(_ROOT):
            theirs = self._root + theirs.removeprefix(_ROOT)
        return replace(made, theirs=theirs)

    def _target(self, key: str, name: _Name, made: Made) -> Target:
        head_dim = self._metadata["attention.key_length"] if name.stem in self._kind.interleaved else 0
        ternary = name.stem in self._kind.ternary and name.leaf == "weight"

        def piece(theirs: str, matrix: int | None = None) -> Piece:
            return self._piece(theirs, made, matrix, head_dim, ternary)

        if made.each:
            if made.theirs not in self._tensors:
                raise ModelError(f"tensor {made.theirs!r} is missing")
            n = self._tensors[made.theirs].shape[0] if self._tensors[made.theirs].shape else 0
            return Target(key, tuple(piece(made.theirs, i) for i in range(n)), stacked=True)
        if "{expert}" not in made.theirs:
            return Target(key, (piece(made.theirs),))
        each = (made.theirs.format(expert=e) for e in range(self._metadata["expert_count"]))
        pieces = tuple(piece(one) for one in each)
        expected = pieces[0].shape
        for other in pieces:
            if other.shape != expected:
                raise ModelError(
                    f"{other.stored.path.name}: tensor {other.stored.name!r} has shape {list(other.shape)}, "
                    f"expected that of the first expert, {list(expected)}"
                )
        return Target(key, pieces, stacked=True)

    def _piece(self, name: str, made: Made, matrix: int | None, head_dim: int, ternary: bool) -> Piece:
        """One of the checkpoint's tensors, or a matrix of a stack."""
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
        scale = self._tensors[scales[0]] if scales else None
        if matrix is not None:
            stored, scale = stored.matrix(matrix), scale and scale.matrix(matrix)
        make = made.make and partial(made.make, self._metadata)
        return Piece(stored, scale, self._block, head_dim, ternary, make)


def _patterns(name: Name) -> list[str]:
    among = name if isinstance(name, tuple) else (name,)
    return [one if isinstance(one, str) else one.theirs for one in among]
