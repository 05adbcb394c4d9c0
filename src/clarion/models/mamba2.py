"""Mamba 2: no layer attends, each scans heads of columns, of which all fade alike.

Dao & Gu, 2024, Transformers are SSMs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from clarion.models.blocks import Layer, decoder
from clarion.models.family import Computed, Family, HuggingFace, Integer, Made, minus_exp
from clarion.models.hyperparameters import figures
from clarion.models.keys import Keys
from clarion.models.mamba import KEYS, MIXER, TENSORS
from clarion.models.recurrent import mamba2_layer, scan_sizes
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Array, Graph


def build(keys: Keys, w: Checkpoint) -> Graph:
    """The graph; see `clarion.models.build`."""
    sizes = scan_sizes(keys, grouped=True)

    def block(layer: Layer, x: Array) -> Array:
        return x + mamba2_layer(layer, layer.norm(x, "attn_norm"), sizes)

    return decoder(keys, w, block, given=figures(keys, w, attends=False))


def _column(metadata: Mapping[str, Any], x: Any) -> Any:
    return x.reshape(-1, 1)


def _column_of_minus_exp(metadata: Mapping[str, Any], x: Any) -> Any:
    return minus_exp(metadata, _column(metadata, x))


def _groups(metadata: Mapping[str, Any], x: Any) -> Any:
    return x.reshape(metadata["ssm.group_count"], -1)


# Steps of time are above 0 and not limited; JSON has no word for that.
_NO_LIMIT = ([0.0, math.inf], [0.0, {"__float__": "Infinity"}])
_MAMBA2 = HuggingFace(
    "mamba2",
    roots=("backbone.", "model.backbone.", "model."),
    tensors=TENSORS
    | {
        "ssm_dt.bias": MIXER + "dt_bias",
        "ssm_a": Made(MIXER + "A_log", _column_of_minus_exp),
        "ssm_d": Made(MIXER + "D", _column),
        "ssm_norm.weight": Made(MIXER + "norm.weight", _groups),
    },
    common=KEYS,
    keys={
        "ssm.state_size": Integer(("state_size",), 128),
        "ssm.time_step_rank": Computed(lambda config: config.integer("num_heads", default=128)),
        "ssm.group_count": Integer(("n_groups",), 1),
    },
    only={"hidden_act": ("silu",), "use_bias": (False,), "time_step_limit": _NO_LIMIT},
)
FAMILY = Family("mamba2", build, (_MAMBA2,))
