"""Mistral 4: the layers of DeepSeek V3, but experts are weighted by softmax, and in long texts attention is
sharpened."""

from __future__ import annotations

from clarion.models import deepseek2
from clarion.models.family import ONLY, Computed, Family, HuggingFace, Settings
from clarion.models.keys import Keys
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Graph


def build(keys: Keys, w: Checkpoint) -> Graph:
    """The graph; see `clarion.models.build`."""
    return deepseek2.build(keys, w, group_top=2)


def _slope(config: Settings) -> float | None:
    scaling = config.child("rope_parameters")
    return None if scaling.get("llama_4_scaling_beta") is None else scaling.number("llama_4_scaling_beta")


def _length(config: Settings) -> int | None:
    if _slope(config) is None:
        return None
    return config.child("rope_parameters").integer("original_max_position_embeddings")


_MISTRAL = HuggingFace(
    "mistral4",
    roots=("model.language_model.", "language_model.model.", "model."),
    beside=("model.vision_tower.", "model.multi_modal_projector.", "vision_tower.", "multi_modal_projector."),
    tensors=deepseek2.TENSORS,
    keys=deepseek2.KEYS
    | {
        "expert_gating_func": deepseek2.gating("softmax"),
        "attention.temperature_scale": Computed(_slope),
        "attention.temperature_length": Computed(_length),
    },
    only={**ONLY, "rope_interleave": (True,)},
    raises_scores=True,
    words="tekken",
)
FAMILY = Family("mistral4", build, (_MISTRAL,))
