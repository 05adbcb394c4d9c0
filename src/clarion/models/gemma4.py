"""Gemma 4: as Gemma 3, but values are normalised, heads of layers with a window have a size of their own,
later layers may read the keys and values of earlier ones, experts may stand beside the feed-forward network,
and each layer may add rows of a table.

Gemma Team, 2026, Gemma 4. Scores are not scaled.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from clarion.models.blocks import Layer, attention, decoder, feed_forward, gelu_gate, weighted_experts
from clarion.models.family import LAYER, Computed, Family, Integer, Number, Part, Settings
from clarion.models.gemma2 import GEMMA2, NORMS, ONLY
from clarion.models.gemma3 import WINDOWS
from clarion.models.hyperparameters import figures, shared_layers
from clarion.models.keys import Keys
from clarion.models.tables import gathered, of_table
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Array, Graph


def build(keys: Keys, w: Checkpoint) -> Graph:
    """The graph; see `clarion.models.build`."""
    has_experts = keys.integer("expert_count", 0, minimum=0) > 0
    found = figures(keys, w, experts=has_experts, windows=WINDOWS)
    n_table = keys.integer("embedding_length_per_layer_input", 0, minimum=0)
    attend, shared = partial(attention, head_norm=True, value_norm=True), shared_layers(keys, found)
    rows: list[Array] = []  # [T, n_layer·n_table], of the tables of all layers
    states: dict[int, int] = {}  # by layer

    def block(layer: Layer, x: Array) -> Array:
        if n_table and not rows:  # before the first layer
            rows.append(gathered(x, w, n_table))
        layer = replace(layer, hp=replace(layer.hp, attention_scale=1.0))
        state = states.get(shared.get(layer.number, -1))
        if state is None:
            states[layer.number] = len(layer.g.states)
        o = attend(layer, layer.norm(x, "attn_norm"), keys_as_values=not layer.hp.window, state=state)
        x = x + layer.norm(o, "post_attention_norm")
        o = feed_forward(layer, layer.norm(x, "ffn_norm"), gate=gelu_gate)
        if has_experts:
            o = layer.norm(o, "post_ffw_norm_1") + layer.norm(_experts(layer, x), "post_ffw_norm_2")
        x = x + layer.norm(o, "post_ffw_norm")
        if rows:
            x = x + of_table(layer, x, rows[0], n_table)
        scale = layer.w.layer_output_scale
        return layer.g.mul_vector(x, scale.vector("weight", 1)) if "weight" in scale else x

    return decoder(
        keys,
        w,
        block,
        given=found,
        embedding_scale=found.all.n_embd**0.5,
        cap=keys.number("final_logit_softcapping", 0.0, positive=False),
    )


def _experts(layer: Layer, x: Array) -> Array:
    """The experts of rows, chosen by rows that are normalised apart: [T, n_embd]."""
    g, w, hp = layer.g, layer.w, layer.hp
    y = g.mul_vector(g.rms_norm(x, None, hp.norm_eps), w.ffn_gate_inp.vector("scale", hp.n_embd))
    scores = g.linear_of(g.scale(y, hp.n_embd**-0.5), w.ffn_gate_inp.matrix(hp.n_expert, hp.n_embd))
    ids, weights = g.route(scores, hp.n_expert_used, normalize=True)
    return weighted_experts(layer, layer.norm(x, "pre_ffw_norm_2"), ids, weights, gate=gelu_gate)


def _full(config: Settings, name: str) -> int | None:
    """A figure of layers that look back over everything, where the configuration has it for each layer."""
    kinds, layers = config.get("layer_types") or [], config.child("per_layer_config")
    full = (layers.child(str(i)) for i, kind in enumerate(kinds) if kind == "full_attention")
    return next((layer.integer(name) for layer in full if layer.get(name) is not None), None)


def _head_dim(config: Settings) -> int:
    return _full(config, "head_dim") or config.integer("global_head_dim", "head_dim")


def _head_count_kv(config: Settings) -> Any:
    own, full = config.integer("num_key_value_heads"), _full(config, "num_key_value_heads")
    if full is None and config.flag("attention_k_eq_v", default=False):
        full = config.integer("num_global_key_value_heads", default=own)
    kinds = config.get("layer_types") or []
    return own if full in (None, own) else [full if kind == "full_attention" else own for kind in kinds]


def _widths(config: Settings) -> Any:
    n, n_layer = config.integer("intermediate_size"), config.integer("num_hidden_layers")
    first = n_layer - config.integer("num_kv_shared_layers", default=0, least=0)
    wide = config.flag("use_double_wide_mlp", default=False)
    return [n if i < first else 2 * n for i in range(n_layer)] if wide else n


def _if_experts(*names: str) -> Computed:
    return Computed(lambda c: c.integer(*names) if c.flag("enable_moe_block", default=False) else None)


_GEMMA4 = replace(
    GEMMA2,
    model_type="gemma4_text",
    tensors=NORMS
    | {
        "per_layer_token_embd": "model.embed_tokens_per_layer",
        "per_layer_model_proj": "model.per_layer_model_projection",
        "per_layer_proj_norm": "model.per_layer_projection_norm",
        "post_ffw_norm_1": LAYER + "post_feedforward_layernorm_1",
        "pre_ffw_norm_2": LAYER + "pre_feedforward_layernorm_2",
        "post_ffw_norm_2": LAYER + "post_feedforward_layernorm_2",
        "ffn_gate_inp": LAYER + "router.proj",
        "ffn_gate_inp.scale": LAYER + "router.scale",
        "ffn_gate_up_exps": Part(LAYER + "experts.gate_up_proj", parameter=True),
        "ffn_down_exps": Part(LAYER + "experts.down_proj", parameter=True),
        "ffn_down_exps.scale": LAYER + "router.per_expert_scale",
        "inp_gate": LAYER + "per_layer_input_gate",
        "proj": LAYER + "per_layer_projection",
        "post_norm": LAYER + "post_per_layer_input_norm",
        "layer_output_scale.weight": LAYER + "layer_scalar",
    },
    keys={
        "attention.key_length": Computed(_head_dim),
        "attention.value_length": Computed(_head_dim),
        "attention.key_length_swa": Integer(("head_dim",)),
        "attention.value_length_swa": Integer(("head_dim",)),
        "rope.dimension_count_swa": Integer(("head_dim",)),
        "attention.head_count_kv": Computed(_head_count_kv),
        "attention.shared_kv_layers": Integer(("num_kv_shared_layers",), default=0, least=0),
        "embedding_length_per_layer_input": Integer(("hidden_size_per_layer_input",), default=0, least=0),
        "feed_forward_length": Computed(_widths),
        "expert_count": _if_experts("num_experts"),
        "expert_used_count": _if_experts("top_k_experts"),
        "expert_feed_forward_length": _if_experts("moe_intermediate_size", "expert_intermediate_size"),
        "final_logit_softcapping": Number(("final_logit_softcapping",), otherwise=0.0),
    },
    only={**ONLY, "use_bidirectional_attention": ("vision",)},
    period=0,
    rope_base=1e6,
    rope_factors="proportional",
)
_NESTED = replace(
    _GEMMA4,
    model_type="gemma4",
    roots=("model.language_model.", "model."),
    beside=tuple(
        f"model.{part}" for part in ("vision_tower.", "audio_tower.", "embed_vision.", "embed_audio.")
    ),
)
FAMILY = Family("gemma4", build, (_GEMMA4, _NESTED))
