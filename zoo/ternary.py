"""Linear layers with ternary weights (Ma et al., 2024, The Era of 1-bit LLMs: BitNet b1.58).

Weights are scale · {-1, 0, 1}, with one scale for a matrix, the mean of its absolute values. The scale is
rounded to float16, which is what a block of TQ1_0 or TQ2_0 holds: the exported weights are those of the
training, bit for bit. Activations are integers of 8 bits, with one scale for a token.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


def ternary(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The trits and the scale that stand for a matrix: float32 in {-1, 0, 1}, and a float16 as float32."""
    # The smallest normal float16: a matrix of zeros has a scale too, and a subnormal one would lose bits.
    scale = weight.abs().mean().clamp(min=2.0**-14).half().float()
    return (weight / scale).round().clamp(-1, 1), scale


def integers(x: Tensor) -> tuple[Tensor, Tensor]:
    """Activations [..., N] as whole numbers from -127 to 127 and the scales [..., 1]."""
    scale = x.abs().amax(-1, keepdim=True).clamp(min=1e-5) / 127
    return (x / scale).round(), scale


class _Product(torch.autograd.Function):
    """Integers times trits, then the scales; gradients as if neither had been rounded from something else.

    Both factors are exact in bfloat16, so `dtype` only rounds the sums.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
        numbers, x_scale = integers(x)
        trits, w_scale = ternary(weight)
        ctx.save_for_backward(numbers.to(dtype), x_scale, trits.to(dtype), w_scale)
        return (numbers.to(dtype) @ trits.to(dtype).mT).float() * (x_scale * w_scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        numbers, x_scale, trits, w_scale = ctx.saved_tensors
        g = gradients[0]
        g_x = (g * w_scale).to(trits.dtype) @ trits
        g_w = (g * x_scale).to(trits.dtype).flatten(0, -2).mT @ numbers.flatten(0, -2)
        return g_x.to(g.dtype), g_w.to(g.dtype), None


class TernaryLinear(nn.Module):
    """y = x W^T, both rounded; `weight` is what the gradients move."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_out, n_in))
        nn.init.normal_(self.weight, std=0.5 / math.sqrt(n_in))

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        return _Product.apply(x.float(), self.weight, dtype).to(dtype)
