"""The plan: a flat list of operations over named buffers. Whoever understands it understands the system.

It is frozen data. It names weights and holds no bytes of them: it can be printed, compared, pickled, written
as JSON and read again without the model's file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol, Self

from clarion.errors import PlanError
from clarion.plan.cache import CacheFormats
from clarion.plan.graph import Hyperparameters
from clarion.plan.ir import Activations, Kind, Rows, Weight
from clarion.plan.operations import OPERATIONS

OUTPUT = "logits"


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


@dataclass(frozen=True, slots=True)
class Op:
    """One operation. Numbers index the plan's buffers and weights; -1 stands for a weight that is absent."""

    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    weights: tuple[int, ...]
    ints: Mapping[str, int]
    floats: Mapping[str, float]
    arrays: Mapping[str, tuple[float, ...]]
    fallback: str  # the name of what stands in for the better way, "" where this is it

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Self:
        """The operation of what JSON makes of one, in which tuples are lists."""
        tuples = {name: tuple(plain[name]) for name in ("inputs", "outputs", "weights")}
        arrays = {name: tuple(values) for name, values in plain["arrays"].items()}
        return cls(**plain | tuples | {"arrays": arrays})


class Source(Protocol):
    """What has the weights' bytes."""

    def data(self, name: str) -> object:
        """The bytes of a weight: an array of uint8, rows as in a file, or what a store has for it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that the machine needs to run a model, but the bytes."""

    hyperparameters: Hyperparameters
    activations: Activations
    kv: CacheFormats
    context: int
    max_tokens: int
    max_outputs: int
    fused: bool
    n_graph_ops: int
    kv_layers: tuple[tuple[int, int, int], ...]  # (n_head_kv, dim_k, dim_v) for each layer
    arena_bytes: int
    buffers: tuple[Buffer, ...]
    weights: tuple[Weight, ...]
    ops: tuple[Op, ...]
    kept: tuple[str, ...]  # buffers that are read after a run; OUTPUT is the first

    @property
    def n_ops(self) -> int:
        return len(self.ops)

    @property
    def n_vocab(self) -> int:
        return self.hyperparameters.n_vocab

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of the cache that one token takes, over all layers."""
        return sum(n_head * self.kv.position_bytes(dim_k, dim_v) for n_head, dim_k, dim_v in self.kv_layers)

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
                    yield weight, self.buffers[op.outputs[0]].slots_per_token, weight.experts

    def native_spec(self, source: Source) -> dict[str, object]:
        """The plan as the native `Program` takes it, with the weights' bytes."""
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
        }

    def to_json(self) -> str:
        """The whole plan, which `from_json` reads."""
        plain = asdict(self)
        plain["kv"] = str(self.kv)
        return json.dumps(plain, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The plan that `to_json` wrote. It is not verified: `clarion.plan.verify` does that.

        Raises:
            PlanError: the text is no plan.
        """
        try:
            plain = json.loads(text)
            plain["hyperparameters"] = Hyperparameters(**plain["hyperparameters"])
            plain["kv"] = CacheFormats.parse(plain["kv"])
            plain["kv_layers"] = tuple(map(tuple, plain["kv_layers"]))
            plain["kept"] = tuple(plain["kept"])
            plain["buffers"] = tuple(Buffer(**buffer) for buffer in plain["buffers"])
            plain["weights"] = tuple(Weight(**weight) for weight in plain["weights"])
            plain["ops"] = tuple(Op.from_plain(op) for op in plain["ops"])
            return cls(**plain)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise PlanError(f"the text is no plan: {error}") from error

    def __str__(self) -> str:
        from clarion.plan.show import show

        return show(self)
