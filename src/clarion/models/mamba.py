"""Mamba, and Falcon Mamba: no layer attends, each scans its columns with a state of fixed size.

Gu & Dao, 2023, Mamba; Zuo et al., 2024, Falcon Mamba.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from clarion.models.blocks import Layer, decoder
from clarion.models.family import (
    LAYER,
    Computed,
    Family,
    HuggingFace,
    Integer,
    Key,
    Made,
    Name,
    Number,
    minus_exp,
)
from clarion.models.hyperparameters import figures
from clarion.models.keys import Keys
from clarion.models.recurrent import mamba_layer, scan_sizes
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Array, Graph


def build(keys: Keys, w: Checkpoint) -> Graph:
    """The graph; see `clarion.models.build`."""
    sizes = scan_sizes(keys, grouped=False)
    normed = keys.flag("ssm.dt_b_c_rms", False)

    def block(layer: Layer, x: Array) -> Array:
        return x + mamba_layer(layer, layer.norm(x, "attn_norm"), sizes, normed=normed)

    return decoder(keys, w, block, given=figures(keys, w, attends=False))


def squeezed(metadata: Mapping[str, Any], x: Any) -> Any:
    """For `Made`: a convolution of columns, without the axis of one that it has in checkpoints."""
    return x.reshape(len(x), -1)


# Such a model has no longest context; files state this one.
KEYS: dict[str, Key] = {
    "block_count": Integer(("num_hidden_layers", "n_layer")),
    "context_length": Computed(lambda config: 1 << 20),
    "embedding_length": Integer(("hidden_size", "d_model")),
    "feed_forward_length": Computed(lambda config: 0),
    "attention.head_count": Computed(lambda config: 0),
    "attention.layer_norm_rms_epsilon": Number(("layer_norm_epsilon",), 1e-5),
    "ssm.conv_kernel": Integer(("conv_kernel",), 4),
    "ssm.inner_size": Computed(
        lambda config: config.integer(
            "intermediate_size", default=config.integer("expand", default=2) * config.integer("hidden_size")
        )
    ),
    "ssm.state_size": Integer(("state_size",), 16),
}
MIXER = LAYER + "mixer."
TENSORS: dict[str, Name] = {
    "token_embd.weight": ("model.embeddings.weight", "model.embedding.weight"),
    "attn_norm": LAYER + "norm",
    "ssm_in": MIXER + "in_proj",
    "ssm_conv1d": MIXER + "conv1d",
    "ssm_conv1d.weight": Made(MIXER + "conv1d.weight", squeezed),
    "ssm_out": MIXER + "out_proj",
    "output_norm": "model.norm_f",
}
_RANK = Computed(
    lambda config: (
        -(-config.integer("hidden_size") // 16)
        if config.get("time_step_rank") in (None, "auto")
        else config.integer("time_step_rank")
    )
)
_MAMBA = HuggingFace(
    "mamba",
    roots=("backbone.", "model.backbone.", "model."),
    tensors=TENSORS
    | {
        "ssm_x": MIXER + "x_proj",
        "ssm_dt": MIXER + "dt_proj",
        "ssm_a": Made(MIXER + "A_log", minus_exp),
        "ssm_d": MIXER + "D",
    },
    common=KEYS,
    keys={"ssm.time_step_rank": _RANK, "ssm.dt_b_c_rms": Computed(lambda config: False)},
    only={"hidden_act": ("silu",), "use_bias": (False,)},
    tied=True,
)
_FALCON = replace(
    _MAMBA, model_type="falcon_mamba", keys={**_MAMBA.keys, "ssm.dt_b_c_rms": Computed(lambda config: True)}
)
FAMILY = Family("mamba", build, (_MAMBA, _FALCON))
