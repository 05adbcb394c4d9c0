"""Qwen 3.5, 3.6 and the dense ones of 3.8: the layers of Qwen 3 Next, without experts.

Files hold the heads of values in another order than checkpoints: those that share a head of keys do not stand
side by side, but as far apart as there are heads of keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clarion.models.family import LAYER, Computed, Family, HuggingFace, Made, Settings, minus_exp
from clarion.models.keys import Keys
from clarion.models.qwen3next import BESIDE, DELTA_KEYS, TENSORS, hybrid
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Graph


def build(keys: Keys, w: Checkpoint) -> Graph:
    """The graph; see `clarion.models.build`."""
    return hybrid(keys, w, tiled=True, has_experts=False)


def _tiled(metadata: Mapping[str, Any], x: Any) -> Any:
    """Rows of all heads of values, in the file's order."""
    heads = x.reshape(metadata["ssm.group_count"], -1, len(x) // metadata["ssm.time_step_rank"], *x.shape[1:])
    return heads.swapaxes(0, 1).reshape(x.shape)


def _tiled_columns(metadata: Mapping[str, Any], x: Any) -> Any:
    return _tiled(metadata, x.T).T


def _tiled_after_keys(metadata: Mapping[str, Any], x: Any) -> Any:
    """Rows of queries and keys, which stay, then of values; without the axis that a convolution has."""
    import numpy as np  # conversions alone need it: a model loads without

    n = 2 * metadata["ssm.group_count"] * metadata["ssm.state_size"]
    return np.concatenate((x[:n], _tiled(metadata, x[n:]))).reshape(len(x), -1)


def _tiled_minus_exp(metadata: Mapping[str, Any], x: Any) -> Any:
    return minus_exp(metadata, _tiled(metadata, x))


def _sections(config: Settings) -> Any:
    """How many pairs turn by time, height and width; a text's positions have one number for all three."""
    import numpy as np  # conversions alone need it: a model loads without

    sections = config.child("rope_parameters").get("mrope_section") or [11, 11, 10]
    if not isinstance(sections, list) or len(sections) > 4 or not all(type(n) is int for n in sections):
        raise config.error("mrope_section", sections, "up to four whole numbers")
    return np.array([*sections, 0, 0, 0, 0][:4], np.int32)


_NET = LAYER + "linear_attn."
_TENSORS = TENSORS | {
    "attn_qkv.weight": Made(_NET + "in_proj_qkv.weight", _tiled_after_keys),
    "attn_gate.weight": Made(_NET + "in_proj_z.weight", _tiled),
    "ssm_beta.weight": Made(_NET + "in_proj_b.weight", _tiled),
    "ssm_alpha.weight": Made(_NET + "in_proj_a.weight", _tiled),
    "ssm_a": Made(_NET + "A_log", _tiled_minus_exp),
    "ssm_dt.bias": Made(_NET + "dt_bias", _tiled),
    "ssm_conv1d.weight": Made(_NET + "conv1d.weight", _tiled_after_keys),
    "ssm_out.weight": Made(_NET + "out_proj.weight", _tiled_columns),
}
TEXT = HuggingFace(
    "qwen3_5_text",
    roots=("model.language_model.", "model."),
    tensors=_TENSORS,
    keys=DELTA_KEYS | {"rope.dimension_sections": Computed(_sections)},
    beside=BESIDE,
    partial_rotary=0.25,
    words="qwen35",
)
FAMILY = Family("qwen35", build, (TEXT,))
