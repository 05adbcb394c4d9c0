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
from clarion.plan.state import Latent, Paged, Recurrent

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
    state: Paged | Latent | Recurrent | None = None
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


def temperature(rng: Rng) -> Case:
    """Batches of these tests reach positions of a few pages."""
    return Case({}, {"slope": float(rng.uniform(0, 2)), "length": int(rng.integers(1, 30))})


def rope_table(rng: Rng) -> Case:
    inv_freq = tuple(rng.uniform(0, 1, width(rng, 40)).tolist())
    return Case({}, {"inv_freq": inv_freq, "magnitude": float(rng.uniform(0.1, 3))})


def embed_positions(rng: Rng) -> Case:
    """Of up to 40 tokens, at positions from 0 on."""
    return Case({"n_positions": 40 + width(rng), "n": width(rng)})


def rms_norm(rng: Rng) -> Case:
    return Case({"n": width(rng, 700)}, {"eps": 1e-5}, maybe(rng, "gain"), scale=30)


def layer_norm(rng: Rng) -> Case:
    return Case({"n": width(rng, 700)}, {"eps": 1e-5}, maybe(rng, "gain", "shift"), scale=30)


def head_norm(rng: Rng) -> Case:
    parameters = {"n_head": width(rng, 5), "head_dim": width(rng, 60), "eps": 1e-5}
    parameters["scale"] = parameters["head_dim"] ** float(rng.choice([0, -0.5]))
    gain = parameters["head_dim"] * (parameters["n_head"] if rng.integers(2) else 1)
    return Case({"m": gain}, parameters, maybe(rng, "gain"), scale=5)


def gelu(rng: Rng) -> Case:
    return Case({"n": width(rng)}, {"tanh": int(rng.integers(2))}, tolerance=3 * UNIT, scale=2)


def tanh(rng: Rng) -> Case:
    return Case({"n": width(rng)}, {"cap": float(rng.uniform(0.5, 50))}, scale=20)


def scale(rng: Rng) -> Case:
    return Case({"n": width(rng)}, {"factor": float(rng.uniform(-9, 9))})


def swiglu_clamped(rng: Rng) -> Case:
    parameters = {"alpha": float(rng.uniform(0.5, 2)), "limit": float(rng.uniform(1, 9)), "shift": 1.0}
    return Case({"n": width(rng)}, parameters, scale=5)


def mul_vector(rng: Rng) -> Case:
    n = width(rng)
    return Case({"n": n, "m": n if rng.integers(2) else 1})


def columns(rng: Rng) -> Case:
    head_dim = width(rng, 60)
    first = int(rng.integers(head_dim))
    size = width(rng, head_dim - first)
    parameters = {"n_head": width(rng, 5), "head_dim": head_dim, "first": first, "size": size}
    return Case({}, parameters, tolerance=0)


def join(rng: Rng) -> Case:
    parameters = {"n_head": width(rng, 5), "dim_x": width(rng, 40), "dim_y": width(rng, 40)}
    n = parameters["n_head"] * (parameters["dim_x"] + parameters["dim_y"])
    return Case({"n": n}, parameters, tolerance=0)


def repeat_heads(rng: Rng) -> Case:
    parameters = {"n_head": width(rng, 5), "head_dim": width(rng, 40), "times": width(rng, 4)}
    return Case({}, parameters, tolerance=0)


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
    state = Paged(width(rng, 3), width(rng, 40), width(rng, 40))
    sizes = {"k_width": state.n_head * state.dim_k, "v_width": state.n_head * state.dim_v}
    return Case(sizes, {}, tolerance=SUM, state=state)


def rope_kv(rng: Rng) -> Case:
    parameters = {**heads(rng), **rotation(rng), "dim_v": width(rng, 50)}
    state = Paged(parameters["n_head_kv"], parameters["head_dim"], parameters["dim_v"])
    return Case({}, parameters, maybe(rng, "q_gain", "k_gain"), tolerance=SUM, state=state)


def attention(rng: Rng) -> Case:
    window, causal = int(rng.integers(0, 50)) * int(rng.integers(2)), int(rng.integers(2))
    parameters = {
        **heads(rng),
        "head_dim": width(rng, 100),
        "dim_v": width(rng, 100),
        "scale": float(rng.uniform(0.05, 0.3)),
        "cap": float(rng.uniform(0.5, 20)) * int(rng.integers(2)),
        "window": window,
        "chunked": int(rng.integers(2)) if window and causal else 0,
        "causal": causal,
    }
    slopes = rng.uniform(-1, 1, parameters["n_head"] * int(rng.integers(2)))
    state = Paged(parameters["n_head_kv"], parameters["head_dim"], parameters["dim_v"])
    parameters["slopes"] = tuple(slopes.tolist())
    return Case({}, parameters, maybe(rng, "sinks"), tolerance=SUM, state=state)


def latent_write(rng: Rng) -> Case:
    state = Latent(width(rng), 1)
    return Case({"dim": state.dim}, {}, tolerance=SUM, state=state)


def latent_attention(rng: Rng) -> Case:
    dim = width(rng)
    state = Latent(dim, width(rng, dim))
    parameters = {"n_head": width(rng, 9), "dim": dim, "dim_v": state.dim_v}
    parameters["n_head"] *= 1 + 15 * int(rng.integers(2))
    return Case({}, parameters | {"scale": float(rng.uniform(0.05, 0.3))}, tolerance=SUM, state=state)


def select(rng: Rng) -> Case:
    return Case({"n": width(rng)}, tolerance=0)


def route(rng: Rng) -> Case:
    """Scores are so small that no two of a hundred are taken for equal."""
    n_group, size = width(rng, 6), width(rng, 12)
    used = width(rng, n_group)
    parameters = {
        "k": width(rng, used * size),
        "gating": int(rng.integers(4)),
        "n_group": n_group,
        "n_group_used": used,
        "group_top": width(rng, min(size, 2)),
        "normalize": int(rng.integers(2)),
        "scale": float(rng.uniform(0.5, 3)),
    }
    return Case({"experts": n_group * size}, parameters, maybe(rng, "bias"), tolerance=SUM)


def experts_of(rng: Rng) -> dict[str, int]:
    experts = width(rng, 6)
    return {"experts": experts, "k": width(rng, experts)}


def expert_linear(rng: Rng) -> Case:
    n_outputs = int(rng.integers(1, 3))
    sizes = {"n": width(rng), **experts_of(rng)} | {f"m_i{i}": width(rng) for i in range(n_outputs)}
    return Case(sizes, {}, maybe(rng, "b"), n_outputs=n_outputs, tolerance=SUM * 8)


def chosen(rng: Rng) -> Case:
    return Case(experts_of(rng), tolerance=0)


def mul_slots(rng: Rng) -> Case:
    return Case({"n": width(rng), "k": width(rng, 6)})


def heads_to_slots(rng: Rng) -> Case:
    return Case({}, {"k": width(rng, 6), "n": width(rng)}, tolerance=0)


def slots_to_heads(rng: Rng) -> Case:
    sizes = {"n": width(rng), **experts_of(rng)}
    return Case(sizes, {"k": sizes["k"]}, tolerance=0)


def expert_sum(rng: Rng) -> Case:
    return Case({"n": width(rng), "k": width(rng, 6)}, {}, maybe(rng, "residual"))


def square_sums(rng: Rng) -> Case:
    """Without experts' ids all rows are one expert's."""
    sizes, without = {"n": width(rng), **experts_of(rng)}, maybe(rng, "ids")
    return Case(sizes, {"experts": 1 if without else sizes["experts"]}, without, tolerance=SUM)


geglu = gelu
ELEMENTWISE = (
    "silu",
    "mul",
    "add",
    "swiglu",
    "relu_squared",
    "logistic",
    "softplus",
    "mul_rows",
    "add_vector",
)
ELEMENTWISE += ("mean_rows",)  # which depends on other rows, but has sizes like these


def causal_conv(rng: Rng) -> Case:
    n, taps = width(rng, 600), int(rng.integers(2, 6))
    parameters = {"taps": taps, "silu": int(rng.integers(2))}
    return Case({"n": n}, parameters, maybe(rng, "b"), state=Recurrent((taps - 1) * n, n))


def delta_rule(rng: Rng) -> Case:
    """A key is about as long as 1 and no decay is above 1, so no token enlarges the errors of those before
    it, and they grow with the number of tokens, of which there are up to 40."""
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
    name: elementwise if name in ELEMENTWISE else globals()[name] for name in OPERATIONS
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
