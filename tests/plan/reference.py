"""The plan's operations in plain numpy, float64, one short function each: what every machine must compute.

`Reference(spec).run(...)` takes the same specification and the same batch as the native program. Encoded
buffers (`fast`, `high`) hold their values unrounded, so results are those of exact activations. Buffers share
memory as the specification says: writing one fills those that overlap it with NaN, which a wrong layout lets
reach the logits.
"""

from __future__ import annotations

import gguf
import numpy as np

PAGE = 64


def row_bytes(kind, width):
    """Bytes of a row, for plans made without the native module: room for values and one scale for each 32."""
    per_value = {"f32": 4, "i32": 4, "fast": 1, "high": 2, "bf16": 2}[kind]
    return -(-(width * per_value + (4 * -(-width // 32) if kind in ("fast", "high") else 0)) // 64) * 64


def dequantize(weight):
    """The weight's values as float64 [experts, rows, cols]."""
    kind = gguf.GGMLQuantizationType(weight["format"])
    data = np.ascontiguousarray(weight["data"]).view(np.uint8)
    values = gguf.quants.dequantize(data.reshape(weight["experts"] * weight["rows"], -1), kind)
    return values.astype(np.float64).reshape(weight["experts"], weight["rows"], weight["cols"])


class Cache:
    """Keys and values of every layer, in pages."""

    def __init__(self, layers, pages, page_size=PAGE):
        self.page_size = page_size
        self.k = [np.full((pages, page_size, heads, dim), np.nan) for heads, dim, _ in layers]
        self.v = [np.full((pages, page_size, heads, dim), np.nan) for heads, _, dim in layers]


class Reference:
    def __init__(self, spec):
        self.spec = spec
        self.weights = [dequantize(weight) for weight in spec["weights"]]
        self.index = {buffer["name"]: i for i, buffer in enumerate(spec["buffers"])}
        self.values = [None] * len(spec["buffers"])
        ends = [b["offset"] + self._max_rows(b) * row_bytes(b["kind"], b["width"]) for b in spec["buffers"]]
        self.extents = [(b["offset"], end) for b, end in zip(spec["buffers"], ends, strict=True)]

    def run(self, cache, tokens, positions, sequences, pages, outputs):
        self.cache, self.pages = cache, np.atleast_2d(pages)
        self.tokens, self.positions, self.sequences, self.outputs = map(
            np.asarray, (tokens, positions, sequences, outputs)
        )
        for op in self.spec["ops"]:
            inputs = [self.values[i] for i in op["inputs"]]
            weights = [None if i < 0 else self.weights[i] for i in op["weights"]]
            parameters = {**op["ints"], **op["floats"], **op["arrays"]}
            results = getattr(self, op["op"])(inputs, weights, **parameters)
            if op["op"] == "norm":  # the same twice: f32 and encoded
                results *= len(op["outputs"])
            for i, result in zip(op["outputs"], results, strict=True):
                self._write(i, result)

    def buffer(self, name):
        return self.values[self.index[name]]

    def _max_rows(self, buffer):
        tokens = self.spec["max_tokens"]
        most = {"tokens": tokens, "outputs": self.spec["max_outputs"], "batch": 1}
        return most.get(buffer["rows"], tokens * buffer["slots_per_token"])

    def _write(self, i, result):
        start, end = self.extents[i]
        for j, (other_start, other_end) in enumerate(self.extents):
            if j != i and start < other_end and other_start < end and self.values[j] is not None:
                self.values[j] = np.full(self.values[j].shape, np.nan)
        buffer = self.spec["buffers"][i]
        rows = {
            "tokens": len(self.tokens),
            "outputs": len(self.outputs),
            "slots": len(self.tokens) * buffer["slots_per_token"],
            "batch": 1,
        }
        assert result.shape == (rows[buffer["rows"]], buffer["width"]), (buffer["name"], result.shape)
        self.values[i] = result

    # ---- operations: lists of inputs and weights in, list of outputs out
    # ----

    def embed(self, inputs, weights, scale):
        return [weights[0][0][self.tokens] * scale]

    def rope_table(self, inputs, weights, inv_freq, magnitude):
        angles = self.positions[:, None] * np.asarray(inv_freq)
        return [np.concatenate([np.cos(angles), np.sin(angles)], -1) * magnitude]

    def norm(self, inputs, weights, eps):
        return [rms_norm(inputs[0], eps) * weights[0].ravel()]

    def encode(self, inputs, weights):
        return [inputs[0]]

    def linear(self, inputs, weights):
        n = len(weights) // 2
        results = [inputs[0] @ w[0].T for w in weights[:n]]
        results = [y if b is None else y + b.ravel() for y, b in zip(results, weights[n:], strict=True)]
        return [results[0] + inputs[1]] if len(inputs) > 1 else results

    def rope(self, inputs, weights, n_head, head_dim, n_rot, neox, eps):
        x = inputs[0].reshape(-1, n_head, head_dim)
        if weights[0] is not None:
            x = rms_norm(x, eps) * weights[0].ravel()
        return [rotate(x, inputs[1], n_rot, neox).reshape(inputs[0].shape)]

    def kv_write(self, inputs, weights, layer):
        k, v = inputs
        page = self.pages[self.sequences, self.positions // self.cache.page_size]
        slot = self.positions % self.cache.page_size
        self.cache.k[layer][page, slot] = k.reshape(len(k), *self.cache.k[layer].shape[2:])
        self.cache.v[layer][page, slot] = v.reshape(len(v), *self.cache.v[layer].shape[2:])
        return []

    def rope_kv(self, inputs, weights, n_head, n_head_kv, layer, **rotation):
        q, k, v, r = inputs
        (q,) = self.rope([q, r], weights[:1], n_head=n_head, **rotation)
        (k,) = self.rope([k, r], weights[1:], n_head=n_head_kv, **rotation)
        self.kv_write([k, v], [], layer)
        return [q]

    def attention(self, inputs, weights, layer, n_head, n_head_kv, head_dim, window, scale):
        q = inputs[0].reshape(-1, n_head, head_dim)
        out = np.empty_like(q)
        for t, (p, s) in enumerate(zip(self.positions, self.sequences, strict=True)):
            seen = np.arange(max(0, p - window + 1) if window else 0, p + 1)
            page, slot = self.pages[s, seen // self.cache.page_size], seen % self.cache.page_size
            k, v = self.cache.k[layer][page, slot], self.cache.v[layer][page, slot]  # [P, H_kv, D]
            for h in range(n_head):
                g = h // (n_head // n_head_kv)
                out[t, h] = softmax(k[:, g] @ q[t, h] * scale) @ v[:, g]
        return [out.reshape(len(out), -1)]

    def silu(self, inputs, weights):
        return [silu(inputs[0])]

    def mul(self, inputs, weights):
        return [inputs[0] * inputs[1]]

    def add(self, inputs, weights):
        return [inputs[0] + inputs[1]]

    def gate(self, inputs, weights):
        return [silu(inputs[0]) * inputs[1]]

    def select(self, inputs, weights):
        return [inputs[0][self.outputs]]

    def route(self, inputs, weights, k, normalize):
        p = softmax(inputs[0])
        ids = np.argsort(-p, axis=-1, kind="stable")[:, :k]
        w = np.take_along_axis(p, ids, -1)
        return [ids, w / w.sum(-1, keepdims=True) if normalize else w]

    def expert_linear(self, inputs, weights):
        a, ids = inputs
        slots = ids.ravel()
        a = a if len(a) == len(slots) else np.repeat(a, ids.shape[1], axis=0)
        return [np.einsum("sof,sf->so", w[slots], a) for w in weights]

    def expert_sum(self, inputs, weights):
        y, w = inputs[:2]
        x = (y.reshape(*w.shape, -1) * w[:, :, None]).sum(1)
        return [x + inputs[2] if len(inputs) > 2 else x]

    def square_sums(self, inputs, weights, experts):
        x = inputs[0]
        ids = inputs[1] if len(inputs) > 1 else np.zeros((len(x), 1), np.int64)
        x = x if len(x) == ids.size else np.repeat(x, ids.shape[1], axis=0)
        chosen = ids.reshape(-1, 1) == np.arange(experts)  # [S, E]
        return [(chosen.T @ (x * x)).reshape(1, -1), chosen.sum(0, keepdims=True)]


def rms_norm(x, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def silu(x):
    return x / (1 + np.exp(-x))


def rotate(x, table, n_rot, neox):
    """x [T, H, D], table [T, n_rot]: cosines, then sines."""
    half = n_rot // 2
    cos, sin = table[:, None, :half], table[:, None, half:]
    first = slice(0, half) if neox else slice(0, n_rot, 2)
    second = slice(half, n_rot) if neox else slice(1, n_rot, 2)
    y = x.copy()
    y[..., first] = x[..., first] * cos - x[..., second] * sin
    y[..., second] = x[..., first] * sin + x[..., second] * cos
    return y
