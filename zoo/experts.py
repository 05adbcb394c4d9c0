"""Feed-forward networks of which a token uses some.

Shazeer et al., 2017, The Sparsely-Gated Mixture-of-Experts Layer; Fedus et al., 2021, Switch Transformers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.config import Shape


class Experts(nn.Module):
    """The most probable networks of a token, weighted by their probabilities relative to each other.

    Attributes:
        balance: of the last forward pass: n_expert · Σ share of the slots · mean probability. It is 1
            where both are the same for all experts, and its gradient leads there.
        counts: slots that each expert was given in the last forward pass, [E].
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        n, d, n_ff = shape.n_expert, shape.n_embd, shape.n_ff
        self.n_used = shape.n_expert_used
        self.ffn_gate_inp = nn.Parameter(torch.randn(n, d) * 0.5 / math.sqrt(d))
        self.ffn_gate_exps = nn.Parameter(torch.randn(n, n_ff, d) * 0.5 / math.sqrt(d))
        self.ffn_up_exps = nn.Parameter(torch.randn(n, n_ff, d) * 0.5 / math.sqrt(d))
        self.ffn_down_exps = nn.Parameter(torch.zeros(n, d, n_ff))
        self.balance = torch.zeros(())
        self.counts = torch.zeros(n)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -2)  # [N, D]
        with torch.autocast(x.device.type, enabled=False):
            probabilities = functional.linear(rows.float(), self.ffn_gate_inp).softmax(-1)  # [N, E]
        weights, ids = probabilities.topk(self.n_used, dim=-1)  # [N, K]
        weights = weights / weights.sum(-1, keepdim=True)
        n = probabilities.shape[-1]
        slots = ids.flatten()  # [S], S = N·K
        self.counts = torch.bincount(slots, minlength=n)
        self.balance = n * (self.counts / len(slots) * probabilities.mean(0)).sum()
        by_expert = slots.argsort(stable=True)
        tokens = by_expert // self.n_used  # [S], the row of each slot, experts after each other
        parts = rows[tokens].split(self.counts.tolist())
        h = torch.cat([self._expert(e, part) for e, part in enumerate(parts)])  # [S, D]
        h = h * weights.flatten()[by_expert, None]
        return torch.zeros_like(rows).index_add(0, tokens, h.to(rows.dtype)).view_as(x)

    def _expert(self, e: int, x: Tensor) -> Tensor:
        gate = functional.silu(functional.linear(x, self.ffn_gate_exps[e]))
        return functional.linear(gate * functional.linear(x, self.ffn_up_exps[e]), self.ffn_down_exps[e])
