"""A model's figures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """A model's figures, for people and for the cache."""

    architecture: str
    context_length: int  # tokens that the model was made for
    n_layer: int
    n_embd: int
    n_vocab: int
    n_head: int
    n_head_kv: int
    head_dim: int  # of query and key
    n_rot: int  # elements of a head that are rotated
    n_ff: int
    norm_eps: float
    attention_scale: float
    dim_v: int = 0  # elements of a head of values; 0: as many as head_dim
    window: int = 0  # tokens a token attends to; 0: all before it
    n_expert: int = 0
    n_expert_used: int = 0
    n_ff_expert: int = 0  # the width of one expert's network
    rope: str = ""  # how positions are rotated, in words
    n_parameters: int = 0
