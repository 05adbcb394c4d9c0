"""Qwen 3 Next: three of four layers keep a state of fixed size, the fourth attends; one expert is shared.

Yang et al., 2025, Gated Delta Networks; Qiu et al., 2025, Gated Attention for Large Language Models. Qwen 3.5
is made of the same layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from clarion.models.blocks import Layer, attention, decoder, experts, feed_forward, router, shared_expert
from clarion.models.family import (
    EXPERT_KEYS,
    LAYER,
    Computed,
    Family,
    Flag,
    HuggingFace,
    Integer,
    Key,
    Made,
    Name,
    Settings,
    minus_exp,
    plus_one,
)
from clarion.models.hyperparameters import figures
from clarion.models.keys import Keys
from clarion.models.mamba import squeezed
from clarion.models.recurrent import delta_heads, delta_net, recurrent_layers
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Array, Graph


def hybrid(keys: Keys, w: Checkpoint, *, tiled: bool, has_experts: bool) -> Graph:
    """The graph of layers of both kinds.

    tiled: which heads share a head of keys; see `recurrent.delta_net`.
    """
    given, heads = figures(keys, w, experts=has_experts), delta_heads(keys)
    recurrent = recurrent_layers(keys, given.all.n_layer)
    n_shared = keys.integer("expert_shared_feed_forward_length", given.all.n_ff) if has_experts else 0
    choice = partial(router, normalize=not has_experts or keys.flag("expert_weights_norm", True))

    def network(layer: Layer, x: Array) -> Array:
        if not has_experts:
            return feed_forward(layer, x)
        return experts(layer, x, router=choice) + shared_expert(layer, x, n_ff=n_shared, gated=True)

    def block(layer: Layer, x: Array) -> Array:
        y = layer.norm(x, "attn_norm")
        if recurrent[layer.number]:
            x = x + delta_net(layer, y, heads, tiled=tiled)
        else:
            x = x + attention(layer, y, neox=True, head_norm=True, gate_in_query=True)
        return x + network(layer, layer.norm(x, "post_attention_norm"))

    return decoder(keys, w, block, given=given)


def build(keys: Keys, w: Checkpoint) -> Graph:
    """The graph; see `clarion.models.build`."""
    return hybrid(keys, w, tiled=False, has_experts=True)


def _recurrent_layers(config: Settings) -> list[bool] | None:
    kinds = config.get("layer_types")
    if kinds is None:
        return None
    if not isinstance(kinds, list) or not {"linear_attention", "full_attention"}.issuperset(map(str, kinds)):
        raise config.error("layer_types", kinds, "linear_attention or full_attention for each layer")
    return [kind == "linear_attention" for kind in kinds]


def _part(first: int, last: int, metadata: Mapping[str, Any], x: Any) -> Any:
    """Of `in_proj_qkvz`, which has query, key, value and gate of each head of keys together, all of the parts
    from `first` to `last`."""
    import numpy as np  # conversions alone need it: a model loads without

    n_head, n_cols = metadata["ssm.group_count"], x.shape[-1]
    key, value = metadata["ssm.state_size"], metadata["ssm.inner_size"] // n_head
    heads = x.reshape(n_head, 2 * key + 2 * value, n_cols)
    parts = np.split(heads, (key, 2 * key, 2 * key + value), axis=1)
    return np.concatenate([part.reshape(-1, n_cols) for part in parts[first:last]])


DELTA_KEYS: dict[str, Key] = {
    "full_attention_interval": Integer(("full_attention_interval",), 4),
    "attention.recurrent_layers": Computed(_recurrent_layers),
    "ssm.conv_kernel": Integer(("linear_conv_kernel_dim",), 4),
    "ssm.state_size": Integer(("linear_key_head_dim",), 128),
    "ssm.group_count": Integer(("linear_num_key_heads",), 16),
    "ssm.time_step_rank": Integer(("linear_num_value_heads",), 32),
    "ssm.inner_size": Computed(
        lambda config: (
            config.integer("linear_num_value_heads", default=32)
            * config.integer("linear_value_head_dim", default=128)
        )
    ),
}
SHARED_KEYS = EXPERT_KEYS | {
    "expert_feed_forward_length": Integer(("moe_intermediate_size",)),
    "expert_shared_feed_forward_length": Integer(("shared_expert_intermediate_size",)),
}
_NET = LAYER + "linear_attn."
TENSORS: dict[str, Name] = {
    "attn_norm.weight": Made(LAYER + "input_layernorm.weight", plus_one),
    "post_attention_norm.weight": Made(LAYER + "post_attention_layernorm.weight", plus_one),
    "attn_q_norm.weight": Made(LAYER + "self_attn.q_norm.weight", plus_one),
    "attn_k_norm.weight": Made(LAYER + "self_attn.k_norm.weight", plus_one),
    "output_norm.weight": Made("model.norm.weight", plus_one),
    "ssm_a": Made(_NET + "A_log", minus_exp),
    "ssm_dt.bias": _NET + "dt_bias",
    "ssm_conv1d.weight": Made(_NET + "conv1d.weight", squeezed),
    "ssm_norm": _NET + "norm",
    "ssm_out": _NET + "out_proj",
    "ffn_gate_inp_shexp": LAYER + "mlp.shared_expert_gate",
    "ffn_gate_shexp": LAYER + "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": LAYER + "mlp.shared_expert.up_proj",
    "ffn_down_shexp": LAYER + "mlp.shared_expert.down_proj",
}
BESIDE = ("mtp.", "model.mtp.", "model.visual.")  # layers that predict further tokens; what sees
_QWEN = HuggingFace(
    "qwen3_next",
    tensors=TENSORS
    | {
        "attn_qkv.weight": Made(_NET + "in_proj_qkvz.weight", partial(_part, 0, 3)),
        "attn_gate.weight": Made(_NET + "in_proj_qkvz.weight", partial(_part, 3, 4)),
        "ssm_ba": _NET + "in_proj_ba",
    },
    keys=DELTA_KEYS
    | SHARED_KEYS
    | {"expert_weights_norm": Flag(("norm_topk_prob",), default=True, unwritten=True)},
    beside=BESIDE,
    partial_rotary=0.25,
    words="qwen2",
)
FAMILY = Family("qwen3next", build, (_QWEN,))
