"""Gemma 3: as Gemma 2, but heads of query and key are normalised instead of capping scores, and only every
sixth layer looks back over everything, with a rotation of its own.

Gemma Team, 2025, Gemma 3. Of a model that sees as well, what writes is converted.
"""

from __future__ import annotations

from dataclasses import replace

from clarion.models.blocks import Layer, decoder
from clarion.models.family import Family, HuggingFace, Number
from clarion.models.gemma2 import GEMMA2, KEYS, ONLY, sandwich, scaled
from clarion.models.hyperparameters import Windows, figures
from clarion.models.keys import Keys
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Array, Graph

WINDOWS = Windows(6, scaled=False, base=10000.0)
_N_LAYER_27B = 62


def build(keys: Keys, w: Checkpoint) -> Graph:
    """The graph; see `clarion.models.build`."""
    found = scaled(keys, figures(keys, w, windows=WINDOWS), _N_LAYER_27B)

    def block(layer: Layer, x: Array) -> Array:
        return sandwich(layer, x, head_norm=True)

    return decoder(
        keys,
        w,
        block,
        given=found,
        embedding_scale=found.all.n_embd**0.5,
        cap=keys.number("final_logit_softcapping", 0.0, positive=False),
    )


GEMMA3: HuggingFace = replace(
    GEMMA2,
    model_type="gemma3_text",
    keys=KEYS | {"final_logit_softcapping": Number(("final_logit_softcapping",), otherwise=0.0)},
    only=ONLY | {"attn_logit_softcapping": (0,)},
    period=6,
    rope_base=1e6,
)
_NESTED = replace(
    GEMMA3,
    model_type="gemma3",
    roots=("model.language_model.", "language_model.model.", "model."),
    beside=("model.vision_tower.", "vision_tower.", "model.multi_modal_projector.", "multi_modal_projector."),
)
FAMILY = Family("gemma3", build, (GEMMA3, _NESTED))
