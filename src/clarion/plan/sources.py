"""The bytes of a plan's weights: where a weight is bound to the tensors of one file, or of several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, assert_never

from clarion.errors import ModelError
from clarion.plan.weight import Slice, Weight, Whole


class Stored(Protocol):
    """Something with bytes, as a tensor of a file: `view` is a memoryview, or an array, of uint8."""

    @property
    def view(self) -> Any: ...


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """The bytes of a part of a tensor."""

    view: Any


class Sources(Mapping[str, Stored]):
    """The bytes of weights by the weights' names. Of several files that have a tensor of one name, the first
    gives the bytes."""

    def __init__(self, weights: Iterable[Weight], *files: Mapping[str, Stored]) -> None:
        self._weights = {weight.name: weight for weight in weights}
        self._files = files

    def __getitem__(self, name: str) -> Stored:
        weight = self._weights[name]
        match weight.source:
            case Whole(tensor):
                return self._tensor(tensor)
            case Slice(tensor=tensor, begin=begin):
                return Piece(self._tensor(tensor).view[begin : begin + weight.n_bytes])
            case _:
                assert_never(weight.source)

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

    def _tensor(self, name: str) -> Stored:
        for tensors in self._files:
            if name in tensors:
                return tensors[name]
        raise ModelError(f"tensor {name!r} is missing: none of {len(self._files)} sources has it")
