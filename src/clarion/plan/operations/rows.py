"""Operations on rows: tables, norms, activations, sums, and the choice of rows and of columns."""

from __future__ import annotations

from typing import Any

from clarion.plan.operation import ANY_FLOAT, ENCODED, Call, Input, Output, Tensor, operation
from clarion.plan.operations.common import (
    Array,
    Batch,
    Floats,
    log_of_one_and_exp,
    normal_distribution,
    normalized,
    sigmoid,
)

# ---- from tokens to rows ----------------------------------------------------------------------------------


@operation(outputs=[Output("x", "n", "T")], weights=[Tensor("table", ("vocabulary", "n"), read="row")])
def embed(xp: Any, table: Array, *, batch: Batch, scale: float) -> Array:
    """The rows of the tokens' ids, times `scale`."""
    return table[batch.tokens] * scale


@operation(
    outputs=[Output("x", "n", "T")],
    weights=[Tensor("table", ("n_positions", "n"), read="row")],
    module="operations",
)
def embed_positions(xp: Any, table: Array, *, batch: Batch) -> Array:
    """The rows of the tokens' positions; the table has one for each position that there can be."""
    return table[batch.positions]


@operation(outputs=[Output("r", "2·inv_freq", "T")])
def rope_table(xp: Any, *, batch: Batch, inv_freq: Floats, magnitude: float) -> Array:
    """Cosines, then sines, of position · inv_freq, times `magnitude`."""
    angles = batch.positions[:, None] * xp.asarray(inv_freq)
    return xp.concatenate((xp.cos(angles), xp.sin(angles)), -1) * magnitude


def _counts_positions(call: Call) -> None:
    if call.sizes["length"] < 1:
        call.fail(f"length is {call.sizes['length']}, expected at least 1")


@operation(outputs=[Output("s", "1", "T")], check=_counts_positions, module="operations")
def temperature(xp: Any, *, batch: Batch, slope: float, length: int) -> Array:
    """What a query at position p is times, that attention stays sharp over long texts: 1 + slope · ln(1 +
    p // length). [Nakanishi, 2025, Scalable-Softmax; Meta, 2025, Llama 4]"""
    return 1 + slope * xp.log(1.0 + batch.positions[:, None] // length)


# ---- norms ------------------------------------------------------------------------------------------------


@operation(
    inputs=[Input("x", "n")],
    outputs=[Output("y", "n", kinds=ANY_FLOAT), Output("encoded", "n", kinds=ENCODED, copy_of="y")],
    weights=[Tensor("gain", ("n",), optional=True)],
)
def rms_norm(xp: Any, x: Array, gain: Array | None, *, eps: float) -> Array:
    """x / sqrt(mean(x²) + eps) · gain, over rows. [Zhang & Sennrich, 2019, RMSNorm]"""
    y = normalized(xp, x, eps)
    return y if gain is None else y * xp.asarray(gain)


@operation(
    inputs=[Input("x", "n")],
    outputs=[Output("y", "n", kinds=ANY_FLOAT), Output("encoded", "n", kinds=ENCODED, copy_of="y")],
    weights=[Tensor("gain", ("n",), optional=True), Tensor("shift", ("n",), optional=True)],
    module="operations",
)
def layer_norm(xp: Any, x: Array, gain: Array | None, shift: Array | None, *, eps: float) -> Array:
    """(x - mean(x)) / sqrt(variance(x) + eps) · gain + shift, over rows. [Ba et al., 2016, Layer
    Normalization]"""
    y = normalized(xp, x - xp.mean(x, axis=-1, keepdims=True), eps)
    y = y if gain is None else y * xp.asarray(gain)
    return y if shift is None else y + xp.asarray(shift)


def _norms_heads(call: Call) -> None:
    sizes = call.sizes
    if call.weights[0] is not None and sizes["m"] not in (
        sizes["head_dim"],
        sizes["n_head"] * sizes["head_dim"],
    ):
        call.fail(f"the gain has {sizes['m']} elements, expected those of a head or of all heads")


@operation(
    inputs=[Input("x", "n_head·head_dim")],
    outputs=[Output("y", "n_head·head_dim", may_alias="x")],
    weights=[Tensor("gain", ("m",), optional=True)],
    check=_norms_heads,
    module="operations",
)
def head_norm(
    xp: Any, x: Array, gain: Array | None, *, n_head: int, head_dim: int, eps: float, scale: float
) -> Array:
    """`rms_norm` of each head (or group of elements) apart, times `scale`. The gain is one for all heads, or
    one for each. With a scale of 1/√head_dim and eps/head_dim it is the L2 norm x / sqrt(Σx² + eps)."""
    y = normalized(xp, x.reshape(len(x), n_head, head_dim), eps) * scale
    if gain is not None:
        gain = xp.asarray(gain)
        y = y * (gain if len(gain) == head_dim else gain.reshape(n_head, head_dim))
    return y.reshape(x.shape)


# ---- element by element -----------------------------------------------------------------------------------


@operation(inputs=[Input("x", "n")], outputs=[Output("y", "n", kinds=ENCODED)])
def encode(xp: Any, x: Array) -> Array:
    """x, ready to be multiplied: an encoding stands for the values that it was made of."""
    return x


@operation(inputs=[Input("x", "n")], outputs=[Output("y", "n")])
def silu(xp: Any, x: Array) -> Array:
    """x · sigmoid(x)."""
    return x * sigmoid(xp, x)


@operation(inputs=[Input("x", "n")], outputs=[Output("y", "n", kinds=ANY_FLOAT)], module="operations")
def gelu(xp: Any, x: Array, *, tanh: bool) -> Array:
    """x times the part of a standard normal distribution below x; where `tanh`, that is taken as
    sigmoid(√(8/π) · (x + 0.044715 x³)). [Hendrycks & Gimpel, 2016, Gaussian Error Linear Units]"""
    if tanh:
        return x * sigmoid(xp, (8 / xp.pi) ** 0.5 * (x + 0.044715 * x * x * x))
    return x * normal_distribution(xp, x)


@operation(inputs=[Input("x", "n")], outputs=[Output("y", "n", kinds=ANY_FLOAT)], module="operations")
def relu_squared(xp: Any, x: Array) -> Array:
    """max(x, 0)². [So et al., 2021, Primer]"""
    return xp.clip(x, 0, None) ** 2


@operation(inputs=[Input("x", "n")], outputs=[Output("y", "n", may_alias="x")], module="operations")
def logistic(xp: Any, x: Array) -> Array:
    """1 / (1 + exp(-x))."""
    return sigmoid(xp, x)


@operation(inputs=[Input("x", "n")], outputs=[Output("y", "n", may_alias="x")], module="operations")
def tanh(xp: Any, x: Array, *, cap: float) -> Array:
    """cap · tanh(x / cap): numbers far below the cap stay, and none exceeds it."""
    return cap * xp.tanh(x / cap)


@operation(inputs=[Input("x", "n")], outputs=[Output("y", "n", may_alias="x")], module="operations")
def softplus(xp: Any, x: Array) -> Array:
    """ln(1 + exp(x))."""
    return log_of_one_and_exp(xp, x)


@operation(inputs=[Input("x", "n")], outputs=[Output("y", "n", may_alias="x")], module="operations")
def scale(xp: Any, x: Array, *, factor: float) -> Array:
    """x · factor."""
    return x * factor


@operation(inputs=[Input("x", "n"), Input("y", "n")], outputs=[Output("z", "n", may_alias="x")])
def mul(xp: Any, x: Array, y: Array) -> Array:
    """x · y."""
    return x * y


@operation(inputs=[Input("x", "n"), Input("y", "n")], outputs=[Output("z", "n", may_alias="x")])
def add(xp: Any, x: Array, y: Array) -> Array:
    """x + y."""
    return x + y


@operation(
    inputs=[Input("x", "n"), Input("s", "1")], outputs=[Output("y", "n", may_alias="x")], module="operations"
)
def mul_rows(xp: Any, x: Array, s: Array) -> Array:
    """Each row of x times the number that its row of s holds."""
    return x * s


def _one_or_all(call: Call) -> None:
    if call.sizes["m"] not in (1, call.sizes["n"]):
        call.fail(f"the vector has {call.sizes['m']} elements, expected 1 or {call.sizes['n']}")


@operation(
    inputs=[Input("x", "n")],
    outputs=[Output("y", "n", may_alias="x")],
    weights=[Tensor("v", ("m",))],
    check=_one_or_all,
    module="operations",
)
def mul_vector(xp: Any, x: Array, v: Array) -> Array:
    """Each row of x times a vector, or times one number."""
    return x * xp.asarray(v)


@operation(
    inputs=[Input("x", "n")],
    outputs=[Output("y", "n", may_alias="x")],
    weights=[Tensor("v", ("n",))],
    module="operations",
)
def add_vector(xp: Any, x: Array, v: Array) -> Array:
    """Each row of x plus a vector."""
    return x + xp.asarray(v)


@operation(inputs=[Input("g", "n"), Input("u", "n")], outputs=[Output("y", "n", kinds=ANY_FLOAT)])
def swiglu(xp: Any, g: Array, u: Array) -> Array:
    """silu(g) · u. [Shazeer, 2020, GLU Variants]"""
    return silu.definition(xp, g) * u


@operation(
    inputs=[Input("g", "n"), Input("u", "n")],
    outputs=[Output("y", "n", kinds=ANY_FLOAT)],
    module="operations",
)
def geglu(xp: Any, g: Array, u: Array, *, tanh: bool) -> Array:
    """gelu(g) · u. [Shazeer, 2020, GLU Variants]"""
    return gelu.definition(xp, g, tanh=tanh) * u


@operation(
    inputs=[Input("g", "n"), Input("u", "n")],
    outputs=[Output("y", "n", kinds=ANY_FLOAT)],
    module="operations",
)
def swiglu_clamped(xp: Any, g: Array, u: Array, *, alpha: float, limit: float, shift: float) -> Array:
    """g' · sigmoid(alpha · g') · (u' + shift), where g' is g up to `limit`, and u' is u between -limit and
    limit. [OpenAI, 2025, gpt-oss]"""
    g, u = xp.clip(g, None, limit), xp.clip(u, -limit, limit)
    return g * sigmoid(xp, alpha * g) * (u + shift)


# ---- which rows, which columns ----------------------------------------------------------------------------


@operation(inputs=[Input("x", "n", "T")], outputs=[Output("y", "n", "O")], selects=True)
def select(xp: Any, x: Array, *, batch: Batch) -> Array:
    """The rows of the tokens whose outputs are wanted."""
    return x[batch.outputs]


@operation(inputs=[Input("x", "n", "T")], outputs=[Output("y", "n", "O")], module="operations")
def mean_rows(xp: Any, x: Array, *, batch: Batch) -> Array:
    """For each wanted output the mean of the rows of its sequence, as far as they are in the batch."""
    own = batch.sequences[batch.outputs][:, None] == batch.sequences  # [O, T]
    own = own.astype(x.dtype)
    return own @ x / own.sum(-1, keepdims=True)


def _within_heads(call: Call) -> None:
    sizes = call.sizes
    if not 0 <= sizes["first"] < sizes["first"] + sizes["size"] <= sizes["head_dim"]:
        call.fail(f"elements {sizes['first']} to {sizes['first'] + sizes['size']} of {sizes['head_dim']}")


@operation(
    inputs=[Input("x", "n_head·head_dim")],
    outputs=[Output("y", "n_head·size")],
    check=_within_heads,
    module="operations",
)
def columns(xp: Any, x: Array, *, n_head: int, head_dim: int, first: int, size: int) -> Array:
    """Of each head the `size` elements from `first` on; with one head, some columns of x."""
    return x.reshape(len(x), n_head, head_dim)[:, :, first : first + size].reshape(len(x), -1)


def _holds_both(call: Call) -> None:
    n = call.sizes["n_head"] * (call.sizes["dim_x"] + call.sizes["dim_y"])
    if call.sizes["n"] != n:
        call.fail(f"the result has {call.sizes['n']} columns, expected {n}, those of both")


@operation(
    inputs=[Input("x", "n_head·dim_x"), Input("y", "n_head·dim_y")],
    outputs=[Output("z", "n")],
    check=_holds_both,
    module="operations",
)
def join(xp: Any, x: Array, y: Array, *, n_head: int, dim_x: int, dim_y: int) -> Array:
    """Of each head the elements of x, then those of y."""
    heads = xp.concatenate((x.reshape(len(x), n_head, dim_x), y.reshape(len(y), n_head, dim_y)), -1)
    return heads.reshape(len(x), -1)


@operation(
    inputs=[Input("x", "n_head·head_dim")],
    outputs=[Output("y", "n_head·times·head_dim")],
    module="operations",
)
def repeat_heads(xp: Any, x: Array, *, n_head: int, head_dim: int, times: int) -> Array:
    """Each head `times` times, one behind the other."""
    heads = x.reshape(len(x), n_head, 1, head_dim)
    return xp.concatenate([heads] * times, 2).reshape(len(x), -1)
