"""The networks, as the families of `clarion.models` compute them; parameters are named as in GGUF."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from zoo.config import Shape
from zoo.experts import Experts
from zoo.ternary import TernaryLinear, ternary


class Linear(nn.Linear):
    """y = x W^T; the weight is rounded to the activations' type where that is narrower."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(n_in, n_out, bias=False)
        nn.init.normal_(self.weight, std=0.5 / math.sqrt(n_in))


class RmsNorm(nn.Module):
    """x / rms(x) * gain, computed in float32."""

    def __init__(self, n: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x.float(), self.weight.shape, self.weight, self.eps)


class Rope(nn.Module):
    """Rotary positions: of neighbouring elements, or of the halves of a head (`neox`)."""

    cos: Tensor
    sin: Tensor

    def __init__(self, head_dim: int, base: float, context: int, neox: bool) -> None:
        super().__init__()
        inverse = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
        angles = torch.arange(context, dtype=torch.float64)[:, None] * inverse  # [T, D/2]
        self.neox = neox
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        cos, sin = self.cos[: x.shape[-2]].to(x.dtype), self.sin[: x.shape[-2]].to(x.dtype)
        if self.neox:
            a, b = x.chunk(2, dim=-1)
            return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
        a, b = x[..., ::2], x[..., 1::2]
        return torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention [B, H, T, D]."""
    if q.device.type != "cpu":
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    # In bfloat16 and at 256 tokens, two products and a softmax took 0.6 of the fused kernel's time (Zen 4).
    scores = (q * q.shape[-1] ** -0.5) @ k.mT  # [B, H, T, T]
    future = torch.full(scores.shape[-2:], -math.inf, dtype=scores.dtype).triu(1)
    return (scores + future).softmax(-1) @ v


class Attention(nn.Module):
    def __init__(self, shape: Shape, linear: type[Linear | TernaryLinear]) -> None:
        super().__init__()
        n_kv = shape.n_head_kv * shape.head_dim
        self.head_dim = shape.head_dim
        self.groups = shape.n_head // shape.n_head_kv
        self.attn_q = linear(shape.n_embd, shape.n_embd)
        self.attn_k = linear(shape.n_embd, n_kv)
        self.attn_v = linear(shape.n_embd, n_kv)
        self.attn_output = linear(shape.n_embd, shape.n_embd)
        nn.init.zeros_(self.attn_output.weight)
        if shape.family == "qwen3moe":
            self.attn_q_norm = RmsNorm(shape.head_dim, shape.norm_eps)
            self.attn_k_norm = RmsNorm(shape.head_dim, shape.norm_eps)
        if shape.family == "bitnet":
            self.attn_sub_norm = RmsNorm(shape.n_embd, shape.norm_eps)
        self.family = shape.family

    def forward(self, x: Tensor, rope: Rope) -> Tensor:
        q, k, v = self._heads(self.attn_q(x)), self._heads(self.attn_k(x)), self._heads(self.attn_v(x))
        if self.family == "qwen3moe":
            q, k = self.attn_q_norm(q).to(v.dtype), self.attn_k_norm(k).to(v.dtype)
        q, k = rope(q), rope(k)
        k, v = k.repeat_interleave(self.groups, 1), v.repeat_interleave(self.groups, 1)
        o = attend(q, k, v).transpose(1, 2).flatten(2)  # [B, T, H·D]
        if self.family == "bitnet":
            o = self.attn_sub_norm(o)
        return self.attn_output(o)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # [B, H, T, D]


class FeedForward(nn.Module):
    def __init__(self, shape: Shape, linear: type[Linear | TernaryLinear]) -> None:
        super().__init__()
        self.ffn_gate = linear(shape.n_embd, shape.n_ff)
        self.ffn_up = linear(shape.n_embd, shape.n_ff)
        self.ffn_down = linear(shape.n_ff, shape.n_embd)
        nn.init.zeros_(self.ffn_down.weight)
        self.ffn_sub_norm = RmsNorm(shape.n_ff, shape.norm_eps) if shape.family == "bitnet" else None

    def forward(self, x: Tensor) -> Tensor:
        h = functional.silu(self.ffn_gate(x)) * self.ffn_up(x)
        return self.ffn_down(h if self.ffn_sub_norm is None else self.ffn_sub_norm(h))


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        linear = TernaryLinear if shape.family == "bitnet" else Linear
        self.attn_norm = RmsNorm(shape.n_embd, shape.norm_eps)
        self.attention = Attention(shape, linear)
        self.ffn_norm = RmsNorm(shape.n_embd, shape.norm_eps)
        self.feed_forward = Experts(shape) if shape.n_expert else FeedForward(shape, linear)

    def forward(self, x: Tensor, rope: Rope) -> Tensor:
        x = x + self.attention(self.attn_norm(x), rope)
        return x + self.feed_forward(self.ffn_norm(x))


class Network(nn.Module):
    """A decoder with tied embeddings.

    Args:
        context: the longest sequence.
    """

    def __init__(self, shape: Shape, context: int) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.n_vocab, shape.n_embd)
        nn.init.normal_(self.token_embd.weight, std=0.02)
        self.rope = Rope(shape.head_dim, shape.rope_base, context, neox=shape.family != "llama")
        self.blk = nn.ModuleList(Block(shape) for _ in range(shape.n_layer))
        self.output_norm = RmsNorm(shape.n_embd, shape.norm_eps)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits [B, T, V] of ids [B, T]."""
        x = self.token_embd(ids)  # [B, T, D], float32: the sum of all layers is not rounded
        for block in self.blk:
            x = block(x, self.rope)
        return functional.linear(self.output_norm(x), self.token_embd.weight)

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """What the layers multiply with, by the parameters' names: ternary weights as trits times scale."""
        rounded = {
            f"{name}.weight": torch.mul(*ternary(module.weight.detach()))
            for name, module in self.named_modules()
            if isinstance(module, TernaryLinear)
        }
        named = {name: parameter.detach() for name, parameter in self.named_parameters()}
        return {name: value.float().cpu().numpy() for name, value in (named | rounded).items()}

    def experts(self) -> list[Experts]:
        return [block.feed_forward for block in self.blk if isinstance(block.feed_forward, Experts)]
