"""Qwen 3.5 and 3.6 with experts, one of them shared by all tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from clarion.models import qwen35
from clarion.models.family import EXPERT, LAYER, Computed, Family, Made, Name, Settings
from clarion.models.keys import Keys
from clarion.models.qwen3next import SHARED_KEYS, hybrid
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Graph


def build(keys: Keys, w: Checkpoint) -> Graph:
    """The graph; see `clarion.models.build`."""
    return hybrid(keys, w, tiled=True, has_experts=True)


def _dense_width(config: Settings) -> int | None:
    return None if config.get("intermediate_size") is None else config.integer("intermediate_size")


def _half(number: int, metadata: Mapping[str, Any], x: Any) -> Any:
    return np.split(x, 2)[number]


_ALL = LAYER + "mlp.experts."  # of checkpoints that have one tensor for all experts
_TENSORS: dict[str, Name] = {
    "ffn_gate_exps.weight": (
        EXPERT + "gate_proj.weight",
        Made(_ALL + "gate_up_proj", partial(_half, 0), each=True),
    ),
    "ffn_up_exps.weight": (
        EXPERT + "up_proj.weight",
        Made(_ALL + "gate_up_proj", partial(_half, 1), each=True),
    ),
    "ffn_down_exps.weight": (EXPERT + "down_proj.weight", _ALL + "down_proj"),
}
_TEXT = replace(
    qwen35.TEXT,
    model_type="qwen3_5_moe_text",
    tensors={**qwen35.TEXT.tensors, **_TENSORS},
    keys={**qwen35.TEXT.keys, **SHARED_KEYS, "feed_forward_length": Computed(_dense_width)},
)
FAMILY = Family("qwen35moe", build, (_TEXT, replace(_TEXT, model_type="qwen3_5_moe")))
