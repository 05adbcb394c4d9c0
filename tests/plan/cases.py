"""One generator of random cases for each operation: what its declaration leaves open.

A case says how wide things are and what the parameters are; `Drawn` makes operands of it, by the declaration:
kinds, rows, widths and weights. A new operation needs a function of its name here, and no test of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clarion.plan.ir import Kind
from clarion.plan.operation import Call, Operation
from clarion.plan.operations import OPERATIONS
from clarion.plan.state import Paged, Recurrent

UNIT = 2.0**-24  # of float32's rounding
FEW, SUM = 16 * UNIT, 64 * UNIT  # for few roundings, and for sums of up to 1000 products


@dataclass(frozen=True)
class Case:
    """What a declaration leaves open.

    Attributes:
        sizes: those that no parameter names; `m0`, `m1` .. of several outputs.
        parameters: all of them, but `state`.
        without: the optional operands that are absent.
        n_outputs: how many there are of one sort, where there can be several.
        kind: of the results, but integers.
        tolerance: of a result, relative to the largest element of operands and result.
        state: the shape of the state that is used.
        scale: of the inputs.
        between: operands that are drawn evenly from an interval, where others are normally distributed.
    """

    sizes: Mapping[str, int] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    without: frozenset[str] = frozenset()
    n_outputs: int = 1
    kind: Kind = "f32"
    tolerance: float = FEW
    state: Paged | Recurrent | None = None
    scale: float = 1.0
    between: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def draw(self, rng: np.random.Generator, name: str, *shape: int) -> np.ndarray:
        """Values of an operand."""
        if name in self.between:
            return rng.uniform(*self.between[name], shape).astype(np.float32)
        return (rng.standard_normal(shape) * self.scale).astype(np.float32)


Rng = np.random.Generator


def width(rng: Rng, most: int = 100) -> int:
    return int(rng.integers(1, most + 1))


def maybe(rng: Rng, *names: str) -> frozenset[str]:
    """Some of the names."""
    return frozenset(name for name in names if rng.integers(2))


def rotation(rng: Rng) -> dict[str, Any]:
    head_dim = int(rng.integers(2, 51))
    n_rot = 2 * int(rng.integers(1, head_dim // 2 + 1))
    return {"head_dim": head_dim, "n_rot": n_rot, "neox": int(rng.integers(2)), "eps": 1e-5}


def heads(rng: Rng) -> dict[str, int]:
    n_head_kv = width(rng, 3)
    return {"n_head": n_head_kv * width(rng, 3), "n_head_kv": n_head_kv}


def elementwise(rng: Rng) -> Case:
    return Case({"n": width(rng)}, scale=5)


def embed(rng: Rng) -> Case:
    return Case({"vocabulary": width(rng), "n": width(rng)}, {"scale": float(rng.uniform(0.5, 9))})


def rope_table(rng: Rng) -> Case:
    inv_freq = tuple(rng.uniform(0, 1, width(rng, 40)).tolist())
    return Case({}, {"inv_freq": inv_freq, "magnitude": float(rng.uniform(0.1, 3))})


def rms_norm(rng: Rng) -> Case:
    return Case({"n": width(rng, 700)}, {"eps": 1e-5}, scale=30)


def encode(rng: Rng) -> Case:
    """An element errs by up to 2^-8 or 2^-16 of its block's greatest one. A sum of products of it, at random
    signs, errs as its terms do: by sqrt(n) of them, as the sum itself is large; eight times that is room."""
    kind, tolerance = [("fast", 2.0**-5), ("high", 2.0**-13)][int(rng.integers(2))]
    return Case({"n": 32 * width(rng, 20)}, kind=kind, tolerance=tolerance)


def linear(rng: Rng) -> Case:
    """A residual stands beside one output only."""
    n_outputs = int(rng.integers(1, 4))
    sizes = {"n": width(rng, 300)} | {f"m_i{i}": width(rng) for i in range(n_outputs)}
    without = maybe(rng, "b") | ({"residual"} if n_outputs > 1 else maybe(rng, "residual"))
    return Case(sizes, {}, without, n_outputs, tolerance=SUM * 8)


def rope(rng: Rng) -> Case:
    return Case({}, {"n_head": width(rng, 5), **rotation(rng)}, maybe(rng, "gain"))


def kv_write(rng: Rng) -> Case:
    """Attention, which reads what was written, has heads of one size."""
    n_head, dim = width(rng, 3), width(rng, 40)
    sizes = {"k_width": n_head * dim, "v_width": n_head * dim}
    return Case(sizes, {}, tolerance=SUM, state=Paged(n_head, dim, dim))


def rope_kv(rng: Rng) -> Case:
    parameters = {**heads(rng), **rotation(rng)}
    state = Paged(parameters["n_head_kv"], parameters["head_dim"], parameters["head_dim"])
    return Case({}, parameters, maybe(rng, "q_gain", "k_gain"), tolerance=SUM, state=state)


def attention(rng: Rng) -> Case:
    head_dim = int(rng.integers(2, 51))
    window, scale = int(rng.integers(0, 50)), float(rng.uniform(0.05, 0.3))
    parameters = {**heads(rng), "head_dim": head_dim, "window": window, "scale": scale}
    state = Paged(parameters["n_head_kv"], head_dim, head_dim)
    return Case({}, parameters, tolerance=SUM, state=state)


def select(rng: Rng) -> Case:
    return Case({"n": width(rng)}, tolerance=0)


def route(rng: Rng) -> Case:
    experts = width(rng, 70)
    parameters = {"k": width(rng, experts), "normalize": int(rng.integers(2))}
    return Case({"experts": experts}, parameters, tolerance=SUM, scale=3)


def experts_of(rng: Rng) -> dict[str, int]:
    experts = width(rng, 6)
    return {"experts": experts, "k": width(rng, experts)}


def expert_linear(rng: Rng) -> Case:
    n_outputs = int(rng.integers(1, 3))
    sizes = {"n": width(rng), **experts_of(rng)} | {f"m_i{i}": width(rng) for i in range(n_outputs)}
    return Case(sizes, {}, n_outputs=n_outputs, tolerance=SUM * 8)


def expert_sum(rng: Rng) -> Case:
    return Case({"n": width(rng), "k": width(rng, 6)}, {}, maybe(rng, "residual"))


def square_sums(rng: Rng) -> Case:
    """Without experts' ids all rows are one expert's."""
    sizes, without = {"n": width(rng), **experts_of(rng)}, maybe(rng, "ids")
    return Case(sizes, {"experts": 1 if without else sizes["experts"]}, without, tolerance=SUM)


def causal_conv(rng: Rng) -> Case:
    n, taps = width(rng, 600), int(rng.integers(2, 6))
    parameters = {"taps": taps, "silu": int(rng.integers(2))}
    return Case({"n": n}, parameters, maybe(rng, "b"), state=Recurrent((taps - 1) * n, n))


def delta_rule(rng: Rng) -> Case:
    """A key is about as long as 1 and no decay is above 1, so no token enlarges the errors of those before it,
    and they grow with the number of tokens, of which there are up to 40."""
    n_head_k, dim_k, dim_v = width(rng, 3), width(rng), width(rng)
    n_head, decays = n_head_k * width(rng, 3), 1 if rng.integers(2) else dim_k
    sizes = {"n_head": n_head, "n_head_k": n_head_k, "dim_k": dim_k, "dim_v": dim_v}
    parameters = {**sizes, "tiled": int(rng.integers(2)), "scale": float(rng.uniform(0.1, 1))}
    log = n_head_k * dim_k + n_head * (dim_v + decays + 1)
    key = (3 / dim_k) ** 0.5
    return Case(
        {"decays": n_head * decays},
        parameters,
        tolerance=40 * FEW,
        state=Recurrent(n_head * dim_k * dim_v, log),
        between={"k": (-key, key), "decay": (-1, 0), "beta": (0, 1)},
    )


# Decays are below 1, as in `delta_rule`.
SCANNED = {"dt": (0.0, 1.0), "a": (-2.0, 0.0)}


def selective_scan(rng: Rng) -> Case:
    n, d_state = width(rng, 300), width(rng, 20)
    state = Recurrent(n * d_state, 2 * n + d_state)
    return Case({"n": n, "d_state": d_state}, tolerance=40 * FEW, state=state, between=SCANNED)


def state_space_scan(rng: Rng) -> Case:
    n_group, head_dim, d_state = width(rng, 3), width(rng, 70), width(rng)
    n_head = n_group * width(rng, 3)
    parameters = {"n_head": n_head, "head_dim": head_dim, "n_group": n_group, "d_state": d_state}
    state = Recurrent(n_head * head_dim * d_state, n_head * (head_dim + 1) + n_group * d_state)
    return Case({}, parameters, tolerance=40 * FEW, state=state, between=SCANNED)


CASES: dict[str, Callable[[Rng], Case]] = {
    name: elementwise if name in ("silu", "mul", "add", "swiglu") else globals()[name] for name in OPERATIONS
}


class Drawn:
    """A case with operands: buffers and their rows, weights, as a specification for `Builder`."""

    def __init__(self, builder, entry: Operation, case: Case, rng: Rng, n_outputs: int) -> None:
        """n_outputs: wanted outputs of the batch, at most the builder's."""
        self.builder, self.entry, self.case, self.rng = builder, entry, case, rng
        tokens = builder.spec["max_tokens"]
        self.rows = {"tokens": tokens, "outputs": n_outputs, "batch": 1}
        self.given: dict[str, np.ndarray] = {}
        self.sizes = {**case.sizes, **{k: v for k, v in case.parameters.items() if isinstance(v, int)}}
        self.sizes |= {k: len(v) for k, v in case.parameters.items() if isinstance(v, tuple)}
        operands = (*entry.inputs, *entry.outputs)
        free = all(operand.rows in ("R", "B", "S", "B|S") for operand in operands)
        self.base = "outputs" if free and n_outputs and rng.integers(2) else "tokens"

    def add(self) -> list[str]:
        """Adds the operation; the names of its results."""
        b, entry, case = self.builder, self.entry, self.case
        present = [operand for operand in entry.inputs if operand.name not in case.without]
        inputs = [self.input(operand) for operand in present]
        declared = [
            output
            for output in entry.outputs
            if not output.copy_of
            for _ in range(case.n_outputs if output.many else 1)
        ]
        outputs = []
        for i, operand in enumerate(declared):
            at, must = entry.alias(i) or (len(inputs), False)
            if must or (at < len(inputs) and self.rng.integers(2)):
                outputs.append(inputs[at])
            else:
                outputs.append(self.buffer(operand, f"{operand.name}.out{i}", i))
        weights = [
            -1
            if tensor.name in case.without
            else b.weight(self.values(tensor.name, *(self.size(s, i) for s in tensor.shape)))
            for tensor, i in entry.each_weight(len(outputs))
        ]
        types = {
            name: {k: v for k, v in self.parameters().items() if k in getattr(entry, name)}
            for name in ("ints", "floats", "arrays")
        }
        b.op(entry.name, inputs, outputs, weights, **types)
        return [b.spec["buffers"][i]["name"] for i in outputs]

    def parameters(self) -> dict[str, Any]:
        return {**self.case.parameters, **({"state": 0} if self.entry.state else {})}

    def input(self, operand) -> int:
        i = self.buffer(operand, operand.name, 0)
        buffer = self.builder.spec["buffers"][i]
        n = self.rows[buffer["rows"]] * buffer["slots_per_token"]
        if buffer["kind"] == "i32":
            experts = range(self.sizes["experts"])
            ids = [self.rng.permutation(experts)[: buffer["width"]] for _ in range(n)]
            self.given[operand.name] = np.array(ids, np.int32).reshape(n, -1)
        else:
            self.given[operand.name] = self.values(operand.name, n, buffer["width"])
        return i

    def buffer(self, operand, name: str, i: int) -> int:
        slots = 1
        if operand.rows == "S" or (operand.rows == "B|S" and self.rng.integers(2)):
            slots = self.sizes["k"]
        rows = {"T": "tokens", "O": "outputs", "1": "batch"}.get(operand.rows, self.base)
        kind = "i32" if "i32" in operand.kinds else "f32" if operand in self.entry.inputs else self.case.kind
        return self.builder.buffer(name, self.size(operand.width, i), kind, rows, slots)

    def size(self, expression: str, i: int = 0) -> int:
        return Call("", self.entry, [], [], [], self.sizes).size(expression, i)

    def values(self, name: str, *shape: int) -> np.ndarray:
        return self.case.draw(self.rng, name, *shape)
