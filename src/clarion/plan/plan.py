"""The plan: what a model computes, as a flat list of operations over named values.

It is frozen data, and portable: operations on float32 values, the states that they use, the weights that they
read and the outputs that somebody wants. It holds no bytes, knows no processor and chooses no precision; it
can be printed, compared, pickled, written as JSON and read again without the model's file.
`clarion.plan.compile` makes a program of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, Self

from clarion.errors import PlanError
from clarion.plan.hyperparameters import Hyperparameters
from clarion.plan.ir import Node, Value
from clarion.plan.output import Output
from clarion.plan.plain import tagged, untagged
from clarion.plan.state import State
from clarion.plan.weight import Weight, WeightSource


@dataclass(frozen=True, slots=True)
class Op:
    """One operation. Numbers index the values of a plan, or the buffers of a program, and the weights; -1
    stands for a weight that is absent."""

    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    weights: tuple[int, ...]
    ints: Mapping[str, int]
    floats: Mapping[str, float]
    arrays: Mapping[str, tuple[float, ...]]
    fallback: str = ""  # of a program: the name of what stands in for the better way, "" where this is it

    @classmethod
    def of(cls, node: Node, values: Mapping[Value, int], weights: Mapping[str, int]) -> Self:
        """The operation of a node; `values` and `weights` (by name) are the numbers."""
        return cls(
            node.op,
            tuple(values[value] for value in node.inputs),
            tuple(values[value] for value in node.outputs),
            tuple(-1 if weight is None else weights[weight.name] for weight in node.weights),
            node.ints,
            node.floats,
            node.arrays,
            node.fallback,
        )

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Self:
        """The operation of what JSON makes of one, in which tuples are lists."""
        tuples = {name: tuple(plain[name]) for name in ("inputs", "outputs", "weights")}
        arrays = {name: tuple(values) for name, values in plain["arrays"].items()}
        return cls(**plain | tuples | {"arrays": arrays})


def weights_of(nodes: Iterable[Node]) -> tuple[Weight, ...]:
    """The weights that nodes read, each once, in the order in which they are read."""
    return tuple(
        {weight.name: weight for node in nodes for weight in node.weights if weight is not None}.values()
    )


class Declared(Protocol):
    """What a plan and its programs both declare."""

    @property
    def states(self) -> tuple[State, ...]: ...
    @property
    def weights(self) -> tuple[Weight, ...]: ...
    @property
    def outputs(self) -> tuple[Output, ...]: ...


def plain_declared(made: Declared) -> dict[str, Any]:
    """States, weights and outputs as JSON has them."""
    return {
        "states": [tagged(state) for state in made.states],
        "weights": [asdict(weight) | {"source": tagged(weight.source)} for weight in made.weights],
        "outputs": [tagged(output) for output in made.outputs],
    }


def declared_from_plain(plain: dict[str, Any]) -> dict[str, Any]:
    """What `plain_declared` wrote, and the hyperparameters and operations beside it, by name."""
    return {
        "hyperparameters": Hyperparameters(**plain["hyperparameters"]),
        "states": tuple(untagged(State, state) for state in plain["states"]),
        "weights": tuple(
            Weight(**weight | {"source": untagged(WeightSource, weight["source"])})
            for weight in plain["weights"]
        ),
        "ops": tuple(map(Op.from_plain, plain["ops"])),
        "outputs": tuple(untagged(Output, output) for output in plain["outputs"]),
    }


@dataclass(frozen=True, slots=True)
class Plan:
    """What a model computes.

    Attributes:
        values: what operations read and write, each written once.
        states: what a sequence keeps between runs; an operation's parameter `state` is an index here.
        outputs: what is computed for the caller.
    """

    hyperparameters: Hyperparameters
    values: tuple[Value, ...]
    states: tuple[State, ...]
    weights: tuple[Weight, ...]
    ops: tuple[Op, ...]
    outputs: tuple[Output, ...]

    @classmethod
    def of(
        cls,
        hyperparameters: Hyperparameters,
        nodes: Sequence[Node],
        states: Iterable[State],
        outputs: Iterable[Output],
    ) -> Self:
        """The plan of a list of nodes. It is not verified: `clarion.plan.verify` does that."""
        values = {value: i for i, value in enumerate(dict.fromkeys(_values(nodes)))}
        weights = weights_of(nodes)
        index = {weight.name: i for i, weight in enumerate(weights)}
        ops = tuple(Op.of(node, values, index) for node in nodes)
        return cls(hyperparameters, tuple(values), tuple(states), weights, ops, tuple(outputs))

    @property
    def n_vocab(self) -> int:
        return self.hyperparameters.n_vocab

    def nodes(self) -> list[Node]:
        """The operations as passes rewrite them."""
        return [
            Node(
                op.op,
                tuple(self.values[i] for i in op.inputs),
                tuple(self.values[i] for i in op.outputs),
                tuple(None if i < 0 else self.weights[i] for i in op.weights),
                op.ints,
                op.floats,
                op.arrays,
            )
            for op in self.ops
        ]

    def kept(self) -> list[Value]:
        """The values of the outputs."""
        by_name = {value.name: value for value in self.values}
        return [by_name[output.value] for output in self.outputs]

    def to_json(self) -> str:
        """The whole plan, which `from_json` reads."""
        return json.dumps(asdict(self) | plain_declared(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The plan that `to_json` wrote. It is not verified: `clarion.plan.verify` does that.

        Raises:
            PlanError: the text is no plan.
        """
        try:
            plain = json.loads(text)
            values = tuple(Value(**value) for value in plain["values"])
            return cls(**plain | declared_from_plain(plain) | {"values": values})
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise PlanError(f"the text is no plan: {error}") from error

    def __str__(self) -> str:
        from clarion.plan.show import show_plan

        return show_plan(self)


def _values(nodes: Iterable[Node]) -> Iterable[Value]:
    for node in nodes:
        yield from node.inputs
        yield from node.outputs
