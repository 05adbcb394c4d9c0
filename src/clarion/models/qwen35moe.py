"""Qwen 3.5 and 3.6 with experts, one of them shared by all tokens."""

from __future__ import annotations

from dataclasses import replace

from clarion.models import qwen35
from clarion.models.family import STACKED_EXPERTS, Computed, Family, Settings
from clarion.models.keys import Keys
from clarion.models.qwen3next import SHARED_KEYS, hybrid
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Graph


def build(keys: Keys, w: Checkpoint) -> Graph:
    """The graph; see `clarion.models.build`."""
    return hybrid(keys, w, tiled=True, has_experts=True)


def _dense_width(config: Settings) -> int | None:
    return None if config.get("intermediate_size") is None else config.integer("intermediate_size")


_TEXT = replace(
    qwen35.TEXT,
    model_type="qwen3_5_moe_text",
    tensors={**qwen35.TEXT.tensors, **STACKED_EXPERTS},
    keys={**qwen35.TEXT.keys, **SHARED_KEYS, "feed_forward_length": Computed(_dense_width)},
)
FAMILY = Family("qwen35moe", build, (_TEXT,))
