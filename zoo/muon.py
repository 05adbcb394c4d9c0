"""Muon, an optimizer for matrices (Jordan et al., 2024)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

# A quintic that takes all singular values in (0, 1] near 1 in five applications; Jordan et al.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


def orthogonal(g: Tensor) -> Tensor:
    """Near U V^T for each matrix U S V^T of g [..., R, C]: all its directions with the same length."""
    a, b, c = _QUINTIC
    tall = g.shape[-2] > g.shape[-1]
    x = (g.mT if tall else g).bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(_ITERATIONS):
        s = x @ x.mT
        x = a * x + (b * s + c * s @ s) @ x
    return (x.mT if tall else x).to(g.dtype)


class Muon(torch.optim.Optimizer):
    """Steps of one size in every direction: momentum, made orthogonal.

    Args:
        params: matrices, or stacks of them (experts).
        lr: the step's length in each direction, for a matrix that is not taller than wide.
        weight_decay: relative to `lr`.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One step; a closure is not used."""
        for group in self.param_groups:
            same: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                same[tuple(p.shape)].append(p)
            for params in same.values():
                self._step(params, group)

    def _step(self, params: list[Tensor], group: dict[str, Any]) -> None:
        """Matrices of one shape: one product for all of them."""
        updates = []
        for p in params:
            state = self.state[p]
            if not state:
                state["momentum"] = torch.zeros_like(p)
            state["momentum"].lerp_(p.grad, 1 - group["momentum"])
            updates.append(p.grad.lerp(state["momentum"], group["momentum"]))  # Nesterov
        rows, columns = params[0].shape[-2:]
        length = group["lr"] * max(1.0, rows / columns) ** 0.5
        for p, update in zip(params, orthogonal(torch.stack(updates)), strict=True):
            p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=length)
