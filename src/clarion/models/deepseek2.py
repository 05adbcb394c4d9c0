"""DeepSeek V2, V3 and R1, Kimi K2, GLM-4.7-Flash: latent attention, and many small experts.

DeepSeek-AI, 2024, DeepSeek-V2; 2024, DeepSeek-V3; Kimi Team, 2025, Kimi K2. Of experts in groups, V2 uses
the groups with the best expert, later models those with the best two.
"""

from __future__ import annotations

from dataclasses import replace

from clarion.models.blocks import Layer, decoder, experts, feed_forward, shared_expert, stated_router
from clarion.models.family import (
    LAYER,
    ONLY,
    STACKED_EXPERTS,
    Computed,
    Family,
    Flag,
    HuggingFace,
    Integer,
    Key,
    Name,
    Number,
    Settings,
)
from clarion.models.hyperparameters import figures
from clarion.models.keys import Keys
from clarion.models.latent import LATENT_KEYS, LATENT_TENSORS, latent_attention, latents
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Array, Graph


def build(keys: Keys, w: Checkpoint, *, group_top: int | None = None) -> Graph:
    """The graph; see `clarion.models.build`. group_top: as of `stated_router`."""
    given = figures(keys, w, experts=keys.integer("expert_count", 0, minimum=0) > 0, raises_scores=True)
    hp, sizes = given.all, latents(keys, given.all)
    n_dense = keys.integer("leading_dense_block_count", 0, minimum=0) if hp.n_expert else hp.n_layer
    n_shared = keys.integer("expert_shared_count", 0, minimum=0) * hp.n_ff_expert
    router = stated_router(keys, hp, group_top=group_top)

    def network(layer: Layer, x: Array) -> Array:
        if layer.number < n_dense:
            return feed_forward(layer, x)
        y = experts(layer, x, router=router)
        return y + shared_expert(layer, x, n_ff=n_shared) if n_shared else y

    def block(layer: Layer, x: Array) -> Array:
        x = x + latent_attention(layer, layer.norm(x, "attn_norm"), sizes)
        return x + network(layer, layer.norm(x, "ffn_norm"))

    return decoder(keys, w, block, given=given)


def _n_dense(config: Settings) -> int:
    """Layers without experts, of which all must stand before the others."""
    kinds = config.get("mlp_layer_types")
    if kinds is None:
        return config.integer("first_k_dense_replace", default=0, least=0)
    n = kinds.index("sparse") if isinstance(kinds, list) and "sparse" in kinds else len(kinds)
    if any(kind != "sparse" for kind in kinds[n:]):
        raise config.unsupported("mlp_layer_types", kinds, "dense layers, then sparse ones")
    return n


def gating(default: str) -> Computed:
    """The function that makes weights of scores, as files number it."""

    def number(config: Settings) -> int:
        name = config.get("scoring_func") or default
        if name not in ("softmax", "sigmoid"):
            raise config.unsupported("scoring_func", name, "softmax, sigmoid")
        return 1 + ("softmax", "sigmoid").index(name)

    return Computed(number)


def _groups(key: str) -> Computed:
    """Groups of experts, which V2 may have and not use."""

    def number(config: Settings) -> int:
        config.only("topk_method", "greedy", "group_limited_greedy", "noaux_tc")
        return 1 if config.get("topk_method") == "greedy" else config.integer(key, default=1)

    return Computed(number)


KEYS: dict[str, Key | None] = LATENT_KEYS | {
    "leading_dense_block_count": Computed(_n_dense),
    "expert_count": Integer(("n_routed_experts", "num_local_experts", "num_experts")),
    "expert_used_count": Integer(("num_experts_per_tok",)),
    "expert_feed_forward_length": Integer(("moe_intermediate_size",)),
    "expert_shared_count": Computed(lambda config: config.integer("n_shared_experts", default=0, least=0)),
    "expert_weights_scale": Number(("routed_scaling_factor",), 1.0),
    "expert_weights_norm": Flag(("norm_topk_prob",), default=True),
    "expert_gating_func": gating("sigmoid"),
    "expert_group_count": _groups("n_group"),
    "expert_group_used_count": _groups("topk_group"),
}
TENSORS: dict[str, Name] = (
    LATENT_TENSORS
    | STACKED_EXPERTS
    | {
        "exp_probs_b.bias": LAYER + "mlp.gate.e_score_correction_bias",
        "ffn_gate_shexp": LAYER + "mlp.shared_experts.gate_proj",
        "ffn_up_shexp": LAYER + "mlp.shared_experts.up_proj",
        "ffn_down_shexp": LAYER + "mlp.shared_experts.down_proj",
        "output.weight": ("lm_head.weight", "language_model.lm_head.weight"),
    }
)
_V3 = HuggingFace(
    "deepseek_v3",
    architecture="DeepseekV3ForCausalLM",  # of Kimi K2, too
    roots=("language_model.model.", "model."),
    beside=("vision_tower.", "mm_projector."),
    tensors=TENSORS,
    keys=KEYS,
    only={**ONLY, "rope_interleave": (True,)},
    raises_scores=True,
    words="deepseek-v3",
)
_V2_KEYS = {"expert_gating_func": gating("softmax"), "expert_weights_norm": None}
_V2 = replace(_V3, model_type="deepseek_v2", architecture="", keys=KEYS | _V2_KEYS, words="deepseek-llm")
_GLM = replace(_V3, model_type="glm4_moe_lite", architecture="", words="glm4")
FAMILY = Family("deepseek2", build, (_V2, _V3, _GLM))
