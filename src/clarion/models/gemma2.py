"""Gemma 2: norms before and after both parts of a layer, capped scores and logits, a window in every other
layer.

Gemma Team, 2024, Gemma 2. Files hold norms as they multiply; checkpoints hold them less 1.
"""

from __future__ import annotations

from dataclasses import replace

from clarion.models.blocks import Layer, attention, decoder, feed_forward, gelu_gate
from clarion.models.family import LAYER, Family, HuggingFace, Key, Made, Number, plus_one
from clarion.models.hyperparameters import Figures, Windows, figures
from clarion.models.keys import Keys
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Array, Graph

_N_LAYER_27B = 46


def build(keys: Keys, w: Checkpoint) -> Graph:
    """The graph; see `clarion.models.build`."""
    found = scaled(keys, figures(keys, w, windows=Windows(2, size=4096)), _N_LAYER_27B)
    cap = keys.number("attn_logit_softcapping", 50.0, positive=False)

    def block(layer: Layer, x: Array) -> Array:
        return sandwich(layer, x, cap=cap)

    return decoder(
        keys,
        w,
        block,
        given=found,
        tied=True,
        embedding_scale=found.all.n_embd**0.5,
        cap=keys.number("final_logit_softcapping", 30.0, positive=False),
    )


def sandwich(
    layer: Layer, x: Array, *, head_norm: bool = False, causal: bool = True, cap: float = 0.0
) -> Array:
    """A layer with norms before and after its parts: [T, n_embd]."""
    o = attention(layer, layer.norm(x, "attn_norm"), head_norm=head_norm, causal=causal, cap=cap)
    x = x + layer.norm(o, "post_attention_norm")
    o = feed_forward(layer, layer.norm(x, "ffn_norm"), gate=gelu_gate)
    return x + layer.norm(o, "post_ffw_norm")


def scaled(keys: Keys, found: Figures, n_layer: int) -> Figures:
    """The figures, with the scale of scores that files of the model with so many layers do not state: that of
    heads as wide as the embedding is for each head."""
    if "attention.scale" in keys or found.all.n_layer != n_layer:
        return found
    scale = (found.all.n_embd / found.all.n_head) ** -0.5
    layers = tuple(replace(hp, attention_scale=scale) for hp in found.layers)
    return replace(found, all=replace(found.all, attention_scale=scale), layers=layers)


NORMS = {
    "attn_norm": LAYER + "input_layernorm",
    "attn_q_norm": LAYER + "self_attn.q_norm",
    "attn_k_norm": LAYER + "self_attn.k_norm",
    "post_attention_norm": LAYER + "post_attention_layernorm",
    "ffn_norm": LAYER + "pre_feedforward_layernorm",
    "post_ffw_norm": LAYER + "post_feedforward_layernorm",
    "output_norm": "model.norm",
}
ONLY: dict[str, tuple[object, ...]] = {
    "hidden_activation": ("gelu_pytorch_tanh",),
    "use_bidirectional_attention": (False,),
}
KEYS: dict[str, Key] = {"attention.scale": Number(("query_pre_attn_scalar",), exponent=-0.5)}
GEMMA2 = HuggingFace(
    "gemma2",
    tensors={f"{name}.weight": Made(f"{theirs}.weight", plus_one) for name, theirs in NORMS.items()},
    keys=KEYS
    | {
        "attn_logit_softcapping": Number(("attn_logit_softcapping",)),
        "final_logit_softcapping": Number(("final_logit_softcapping",)),
    },
    only=ONLY,
    window="layers",
    period=2,
    tied=True,
)
FAMILY = Family("gemma2", build, (GEMMA2,))
