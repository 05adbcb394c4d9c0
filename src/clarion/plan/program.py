"""The program: a plan made for one machine, with the precision, the fusion and the layout that suit it.

It is a flat list of operations over buffers of one arena, frozen data as the plan is: it names weights and
holds no bytes of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Protocol, Self

from clarion.errors import PlanError
from clarion.plan.cache import CacheFormats
from clarion.plan.hyperparameters import Hyperparameters
from clarion.plan.ir import Activations, Kind, Rows, Value
from clarion.plan.operations import OPERATIONS
from clarion.plan.output import Output
from clarion.plan.plain import tagged, untagged
from clarion.plan.plan import Op, declared_from_plain, plain_declared
from clarion.plan.state import Group, PagedGroup, State, groups, places
from clarion.plan.target import Place
from clarion.plan.weight import Weight


@dataclass(frozen=True, slots=True)
class Buffer:
    """A piece of the arena: `rows` rows of `width` elements, stored as `kind`; n_bytes is for the largest
    batch."""

    name: str
    kind: Kind
    rows: Rows
    width: int
    offset: int
    n_bytes: int
    slots_per_token: int

    @property
    def value(self) -> Value:
        """The value that it holds."""
        return Value(self.name, self.width, self.rows, self.kind, self.slots_per_token)


class Source(Protocol):
    """What has the weights' bytes."""

    def data(self, name: str) -> object:
        """The bytes of a weight: u8[n_bytes], rows as in a file, or what a store has for it."""


@dataclass(frozen=True, slots=True)
class Program:
    """Everything that one machine needs to run a plan, but the bytes.

    Attributes:
        n_plan_ops: operations of the plan.
        outputs: what is computed for the caller; each is in the buffer of its name.
        observed: more buffers that are read after a run.
    """

    hyperparameters: Hyperparameters
    place: Place
    activations: Activations
    kv: CacheFormats
    context: int
    max_tokens: int
    max_outputs: int
    fused: bool
    n_plan_ops: int
    states: tuple[State, ...]
    arena_bytes: int
    buffers: tuple[Buffer, ...]
    weights: tuple[Weight, ...]
    ops: tuple[Op, ...]
    outputs: tuple[Output, ...]
    observed: tuple[str, ...]

    @property
    def n_ops(self) -> int:
        return len(self.ops)

    @property
    def n_vocab(self) -> int:
        return self.hyperparameters.n_vocab

    @property
    def state_groups(self) -> tuple[Group, ...]:
        """The states, those together that a sequence gets and gives back together."""
        return groups(self.states)

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes by which each token makes the states of its sequence larger, however long that is."""
        return sum(
            group.position_bytes(self.kv)
            for group in self.state_groups
            if isinstance(group, PagedGroup) and group.window == 0
        )

    def state_bytes(self, n: int) -> int:
        """Bytes of the states of a sequence of n tokens."""
        return sum(
            group.kept(n) * group.position_bytes(self.kv) if isinstance(group, PagedGroup) else group.n_bytes
            for group in self.state_groups
        )

    @property
    def kept(self) -> tuple[str, ...]:
        """The buffers that are read after a run."""
        return (*(output.value for output in self.outputs), *self.observed)

    @property
    def read_together(self) -> list[tuple[str, ...]]:
        """The matrices that one operation multiplies with its input, for each that does."""
        return [
            tuple(self.weights[i].name for i in op.weights[: len(op.outputs)])
            for op in self.ops
            if OPERATIONS[op.op].multiplies and OPERATIONS[op.op].weights[0].read == "all"
        ]

    def weight_bytes(self, op: Op) -> int:
        """Bytes of weights that an operation reads for one token alone."""
        return sum(weight.n_bytes // of * n for weight, n, of in self.weights_read(op))

    def weights_read(self, op: Op) -> Iterator[tuple[Weight, int, int]]:
        """The weights that an operation reads for one token alone, and how many of how many equal parts."""
        for (tensor, _), i in zip(OPERATIONS[op.op].each_weight(len(op.outputs)), op.weights, strict=True):
            if i < 0:
                continue
            weight = self.weights[i]
            match tensor.read:
                case "all":
                    yield weight, 1, 1
                case "row":
                    yield weight, 1, weight.rows
                case "chosen":
                    axes = (weight.experts, weight.rows, weight.cols)[-len(tensor.shape) :]
                    yield weight, self.buffers[op.outputs[0]].slots_per_token, axes[0]

    def native_spec(self, source: Source) -> dict[str, object]:
        """The program as the native one takes it, with the weights' bytes."""
        return {
            "arena_bytes": self.arena_bytes,
            "max_tokens": self.max_tokens,
            "max_outputs": self.max_outputs,
            "buffers": [
                {
                    "name": buffer.name,
                    "kind": buffer.kind,
                    "rows": buffer.rows,
                    "width": buffer.width,
                    "offset": buffer.offset,
                    "slots_per_token": buffer.slots_per_token,
                }
                for buffer in self.buffers
            ],
            "weights": [
                {
                    "name": weight.name,
                    "format": weight.type_id,
                    "rows": weight.rows,
                    "cols": weight.cols,
                    "experts": weight.experts,
                    "data": source.data(weight.name),
                }
                for weight in self.weights
            ],
            "ops": [
                {
                    "op": op.op,
                    "inputs": list(op.inputs),
                    "outputs": list(op.outputs),
                    "weights": list(op.weights),
                    "ints": dict(op.ints),
                    "floats": dict(op.floats),
                    "arrays": {name: list(values) for name, values in op.arrays.items()},
                }
                for op in self.ops
            ],
            "states": places(self.states),
        }

    def to_json(self) -> str:
        """The whole program, which `from_json` reads."""
        plain = asdict(self)
        plain["kv"] = str(self.kv)
        plain["place"] = tagged(self.place)
        return json.dumps(plain | plain_declared(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The program that `to_json` wrote. It is not verified: `clarion.plan.verify` does that.

        Raises:
            PlanError: the text is no program.
        """
        try:
            plain = json.loads(text)
            plain["place"] = untagged(Place, plain["place"])
            plain["kv"] = CacheFormats.parse(plain["kv"])
            plain["buffers"] = tuple(Buffer(**buffer) for buffer in plain["buffers"])
            plain["observed"] = tuple(plain["observed"])
            return cls(**plain | declared_from_plain(plain))
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise PlanError(f"the text is no program: {error}") from error

    def __str__(self) -> str:
        from clarion.plan.show import show_program

        return show_program(self)
