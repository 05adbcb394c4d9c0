"""The tensors of a checkpoint, by the names that a file has for them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, assert_never

from clarion.convert import quantization
from clarion.convert.matrix import Matrix
from clarion.convert.parts import made_of, part_of
from clarion.convert.pieces import Piece, Target
from clarion.convert.quantization import Method
from clarion.convert.stored import Stored
from clarion.errors import ModelError, UnsupportedError
from clarion.gguf import Format, format_named
from clarion.models.family import LAYER, TENSORS, HuggingFace, Made, Name, Part
from clarion.plan.ir import Tensor

# Tables that the configuration gives as well, and the scales of activations, which are not rounded here.
_IGNORED = re.compile(
    r".*\.(rotary_emb\.inv_freq|masked_bias|activation_scale"
    r"|(input|output|k|v|q|prob)(_global)?_(scale|scale_ub|zero_point))"
)
# Ends of the names of quantised weights, and those of the weights.
_QUANTIZED = {".qweight": ".weight", ".weight_packed": ".weight", "_blocks": ""}
_SHOWN = 5
_ROOT = "model."  # of the names in `TENSORS`
_F32, _NO_BYTES = format_named("F32"), memoryview(b"")
_NAME = re.compile(r"(?:blk\.(\d+)\.)?(cls\.\w+(?=\.)|\w+)(?:\.(\w+))?")


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
        method: how the checkpoint is quantised.
        n_further: layers behind the last that predict further tokens, and are left out.
    """

    def __init__(
        self,
        tensors: Mapping[str, Stored],
        kind: HuggingFace,
        metadata: Mapping[str, Any],
        method: Method,
        n_further: int = 0,
    ) -> None:
        self._tensors = tensors
        self._kind = kind
        self._metadata = metadata
        self._method = method
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
        found = self._found(str(key))
        return found is not None and self._find(found[0].format(expert=0)) is not None

    def __getitem__(self, key: str) -> Tensor:
        """The tensor's shape, under the checkpoint's name for it.

        Raises:
            KeyError: neither the family nor `TENSORS` has a name for it.
            ModelError: the checkpoint lacks it, it has several shapes, or one that it is not made of.
            UnsupportedError: it has scales that are not understood.
        """
        name, found = _Name.parse(key), self._found(key)
        if name is None or found is None:
            raise KeyError(key)
        if name not in self._targets:
            self._targets[name] = self._target(key, name, *found)
        return _Shape(found[0], self._targets[name].shape)

    def __iter__(self) -> Iterator[str]:
        return (target.name for target in self._targets.values())

    def __len__(self) -> int:
        return len(self._targets)

    def drop(self, stem: str) -> None:
        """Takes the weight of this name away, whether it is there or not."""
        found = self._found(f"{stem}.weight")
        matrix = None if found is None else self._find(found[0])
        self._used.update(() if matrix is None else matrix.parts)
        self._names = {key: name for key, name in self._names.items() if key.partition(".")[0] != stem}

    def in_order(self) -> list[Target]:
        """The targets that were asked for, in the file's order: what lies before the layers, each layer, the
        rest."""
        keys = list(self._names)
        first = min(i for i, theirs in enumerate(self._names.values()) if "{layer}" in _patterns(theirs)[0])

        def place(name: _Name) -> tuple[float, int, bool]:
            index = next(i for i, key in enumerate(keys) if f"{key}.".startswith(f"{name.stem}."))
            outside = -math.inf if index < first else math.inf
            return (outside if name.layer is None else name.layer, index, name.leaf == "bias")

        return [self._targets[name] for name in sorted(self._targets, key=place)]

    def refuse_other_methods(self) -> None:
        """Raises ModelError if a weight is quantised in a way that the configuration does not speak of."""
        for name in self._tensors:
            end = next((end for end in _QUANTIZED if name.endswith(end)), "")
            whole = name.removesuffix(end) + _QUANTIZED.get(end, "")
            if end and not name.startswith(self._beside) and self._find(whole) is None:
                raise ModelError(
                    f"tensor {whole!r} is missing, but {name!r} is there: quantization_config does not say so"
                )

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

    def _found(self, key: str) -> tuple[str, Part | Made | None] | None:
        """What the checkpoint calls a tensor, with `{expert}` where it has one for each, and how that of the
        file is made of it; None: nothing."""
        name = _Name.parse(key)
        if name is None:
            return None
        own, of_stem = self._names.get(name.key), self._names.get(name.stem)
        among: tuple[str | Part | Made, ...]
        if own is not None:
            among = own if isinstance(own, tuple) else (own,)
        elif isinstance(of_stem, str | Part):
            among = (of_stem,)
        else:
            return None
        if ("{layer}" in _patterns(among[0])[0]) != (name.layer is not None):
            return None
        completed = [(self._complete(one, name, whole=own is not None), one) for one in among]
        there = (pair for pair in completed if self._find(pair[0].format(expert=0)) is not None)
        theirs, made = next(there, completed[0])
        return theirs, None if isinstance(made, str) else made

    def _complete(self, one: str | Part | Made, name: _Name, *, whole: bool) -> str:
        """The checkpoint's name for a tensor; `whole`: it is not that of all below a stem."""
        theirs = _patterns(one)[0].replace("{layer}", str(name.layer))
        if theirs.startswith(_ROOT):
            theirs = self._root + theirs.removeprefix(_ROOT)
        if whole:
            return theirs
        if isinstance(one, Part) and one.parameter:
            return theirs if name.leaf == "weight" else f"{theirs}_{name.leaf}"
        return f"{theirs}.{name.leaf}"

    def _target(self, key: str, name: _Name, theirs: str, made: Part | Made | None) -> Target:
        head_dim = self._metadata["attention.key_length"] if name.stem in self._kind.interleaved else 0
        ternary = name.stem in self._kind.ternary and name.leaf == "weight"

        def piece(one: str) -> Piece:
            matrix = self._find(one)
            if matrix is None:
                raise ModelError(f"tensor {one!r} is missing")
            self._used.update(matrix.parts)
            if isinstance(made, Part):
                matrix = part_of(matrix, made, vector=name.leaf != "weight")
            elif made is not None:
                matrix = made_of(matrix, made, self._metadata)
            return Piece(matrix, head_dim, ternary)

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


def _patterns(name: Name) -> list[str]:
    """The checkpoint's names in what a family says of a tensor."""
    if isinstance(name, tuple):
        return [pattern for one in name for pattern in _patterns(one)]
    match name:
        case Part(name=theirs) | Made(theirs=theirs):
            return [theirs]
        case str():
            return [name]
        case _:
            assert_never(name)
