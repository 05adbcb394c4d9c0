"""A plan computed by the definitions of the operation table, in whatever an array module calculates with.

With numpy in float64 this is the engine `exact`, and what every machine is tested against. Nothing here knows
a processor: values are arrays, states are the arrays that were written to them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any, assert_never

from clarion.plan.ir import Node, Value
from clarion.plan.operations import OPERATIONS, Batch
from clarion.plan.state import Latent, Paged, Recurrent, State
from clarion.plan.weight import Weight


class Text:
    """One text from its beginning, and its states: a `Batch` of the table."""

    def __init__(self, xp: Any, tokens: Any, first: int, states: Iterable[State]) -> None:
        """tokens: [T]; the rows of those from `first` on are wanted."""
        self.tokens = tokens
        self.positions = xp.arange(len(tokens))
        self.sequences = xp.zeros(len(tokens), dtype=int)
        self.outputs = xp.arange(first, len(tokens))
        self.states: Sequence[Any] = [arrays(state, self) for state in states]

    def distances(self) -> tuple[Any, Any]:
        """By how many positions each token lies before each other, and that all are of one text."""
        distance = self.positions[:, None] - self.positions
        return distance, distance == distance


def arrays(state: State, text: Text) -> Any:
    """A state of a text's sequence, empty: what `Batch.states` holds for its kind."""
    match state:
        case Paged():
            return _PagedArrays(state, text)
        case Latent():
            return _LatentArrays(text)
        case Recurrent():
            return _RecurrentArrays()
        case _:
            assert_never(state)


class _PagedArrays:
    """The keys and values of a text's tokens."""

    def __init__(self, shape: Paged, text: Text) -> None:
        self._shape = shape
        self._text = text

    def write(self, k: Any, v: Any) -> None:
        self._k = k.reshape(-1, self._shape.n_head, self._shape.dim_k)
        self._v = v.reshape(-1, self._shape.n_head, self._shape.dim_v)

    def read(self) -> tuple[Any, Any, Any, Any]:
        return self._k, self._v, *self._text.distances()


class _LatentArrays:
    """The rows of a text's tokens."""

    def __init__(self, text: Text) -> None:
        self._text = text

    def write(self, rows: Any) -> None:
        self._rows = rows

    def read(self) -> tuple[Any, Any, Any]:
        return self._rows, *self._text.distances()


class _RecurrentArrays:
    """What a text's tokens changed one after the other."""

    def scan(self, xp: Any, n_tokens: int, zero: Any, step: Callable[[Any, int], tuple[Any, Any]]) -> Any:
        state, results = zero, []
        for token in range(n_tokens):
            state, result = step(state, token)
            results.append(result)
        return xp.stack(results)


def interpret(
    xp: Any,
    nodes: Sequence[Node],
    kept: Collection[Value],
    stored: Callable[[Weight, int], Any],
    batch: Batch,
) -> dict[str, Any]:
    """Computes nodes in their order; the arrays of the values `kept`, by name.

    Args:
        xp: the array module.
        stored: the array of a weight with so many axes; it may decode what of it is indexed or made an array.
        batch: the tokens that are computed.
    """
    last_use = {value: at for at, node in enumerate(nodes) for value in (*node.inputs, *node.outputs)}
    values: dict[Value, Any] = {}
    for at, node in enumerate(nodes):
        results = OPERATIONS[node.op].compute(
            xp,
            [values[value] for value in node.inputs],
            [None if weight is None else partial(stored, weight) for weight in node.weights],
            {**node.ints, **node.floats, **node.arrays},
            batch,
            len(node.outputs),
        )
        values.update(zip(node.outputs, results, strict=True))
        for value in {*node.inputs, *node.outputs}:
            if last_use[value] == at and value not in kept:
                del values[value]
    return {value.name: values[value] for value in kept}
