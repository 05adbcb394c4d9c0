"""gpt-oss: heads with sinks, a window in every other layer, experts whose products have biases and are gated
by a clamped SwiGLU.

OpenAI, 2025, gpt-oss-120b & gpt-oss-20b Model Card. The ends of YaRN's ramp are no whole pairs here, which
files do not state.
"""

from __future__ import annotations

from functools import partial

from clarion.models.blocks import Layer, attention, decoder, experts, router
from clarion.models.family import LAYER, Family, HuggingFace, Integer, Key, Part
from clarion.models.hyperparameters import Windows, figures
from clarion.models.keys import Keys
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Array, Graph
from clarion.plan.operations.products import SOFTMAX_OF_CHOSEN


def build(keys: Keys, w: Checkpoint) -> Graph:
    """The graph; see `clarion.models.build`."""
    found = figures(keys, w, experts=True, windows=Windows(2), yarn_truncates=False)
    choice = partial(router, gating=SOFTMAX_OF_CHOSEN, normalize=False)

    def gate(g: Array, u: Array) -> Array:
        return g.graph.swiglu_clamped(g, u, alpha=1.702, limit=7.0, shift=1.0)

    def block(layer: Layer, x: Array) -> Array:
        x = x + attention(layer, layer.norm(x, "attn_norm"), sinks=True)
        return x + experts(layer, layer.norm(x, "post_attention_norm"), router=choice, gate=gate)

    return decoder(keys, w, block, given=found)


_EXPERTS = LAYER + "mlp.experts."
_GATE_UP = partial(
    Part, _EXPERTS + "gate_up_proj", count=2, interleaved=True, parameter=True, transposed=True
)
_KEYS: dict[str, Key] = {
    "expert_count": Integer(("num_local_experts", "num_experts")),
    "expert_used_count": Integer(("num_experts_per_tok", "experts_per_token")),
    "expert_feed_forward_length": Integer(("intermediate_size",)),
}
_GPT_OSS = HuggingFace(
    "gpt_oss",
    tensors={
        "attn_sinks.weight": LAYER + "self_attn.sinks",
        "post_attention_norm": LAYER + "post_attention_layernorm",
        "ffn_gate_inp": LAYER + "mlp.router",
        "ffn_gate_exps": _GATE_UP(index=0),
        "ffn_up_exps": _GATE_UP(index=1),
        "ffn_down_exps": Part(_EXPERTS + "down_proj", parameter=True, transposed=True),
    },
    keys=_KEYS,
    only={"hidden_act": ("silu",), "swiglu_alpha": (1.702,), "swiglu_limit": (7,)},
    window="layers",
    period=2,
    rope_base=150000.0,
    yarn_truncates=False,
)
FAMILY = Family("gpt-oss", build, (_GPT_OSS,))
