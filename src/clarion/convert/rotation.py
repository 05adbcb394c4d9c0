"""Rotary positions of a config.json, in a file's own terms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from clarion.convert.config import Config
from clarion.convert.matrix import Floats
from clarion.models.family import HuggingFace

Factors = dict[str, Floats]
_STILL = 1e30  # a divisor of frequencies that leaves no rotation at any position


def rope(
    config: Config, kind: HuggingFace, head_dim: int, n_rot: int | None
) -> tuple[dict[str, Any], Factors]:
    """Metadata below the architecture's name, and divisors of frequencies [n_rot / 2] by the names of their
    tensors.

    Args:
        head_dim: elements of a head.
        n_rot: those that are rotated; None: as the configuration says.

    Raises:
        UnsupportedError: a kind of scaling that files cannot state for this architecture.
        ModelError: a figure is missing or out of range.
    """
    # Newer files have all in rope_parameters, older ones the base beside rope_scaling.
    scaling = config.child("rope_parameters")
    metadata: dict[str, Any] = {}
    if kind.window == "layers":
        local = scaling.child("sliding_attention")
        local.only("rope_type", "default")
        own = local.get("rope_theta") is not None
        name, place = ("rope_theta", local) if own else ("rope_local_base_freq", config)
        if place.get(name) is not None:
            metadata["rope.freq_base_swa"] = place.number(name)
        if scaling.get("full_attention") is not None:
            scaling = scaling.child("full_attention")
    base = None if scaling.get("rope_theta") is None else scaling.number("rope_theta")
    if scaling.get("rope_type") is None:
        scaling = config.child("rope_scaling")
    base = config.number("rope_theta", default=kind.rope_base) if base is None else base
    named = scaling.get("rope_type", "type")
    named = "default" if named is None else named
    if kind.rope_factors == "proportional":
        metadata |= {"rope.freq_base": base, "rope.dimension_count": head_dim}
        return metadata, {"rope_freqs.weight": _proportional(scaling, named, head_dim)}
    n_rot = n_rot or _rotated(config, scaling, kind, head_dim)
    metadata |= {"rope.freq_base": base, "rope.dimension_count": n_rot}
    if named == "default":
        return metadata, {}
    context = config.integer("max_position_embeddings")
    match named, kind.rope_factors:
        case "llama3", "llama3":
            return metadata, {"rope_freqs.weight": _llama3(config, scaling, base, n_rot)}
        case "longrope" | "su" | "yarn", "longrope":  # files of old call it so
            stated, factors = _longrope(config, scaling, n_rot, context)
            return metadata | stated, factors
        case "linear", _:
            return metadata | _scaled(named, scaling.number("factor")), {}
        case "yarn", _:
            return metadata | _yarn(scaling, kind, context), {}
    known = ["default", "linear", "yarn", *([kind.rope_factors] if kind.rope_factors else [])]
    raise scaling.unsupported("rope_type", named, ", ".join(known))


def _rotated(config: Config, scaling: Config, kind: HuggingFace, head_dim: int) -> int:
    """Elements of a head that are rotated."""
    place = config if scaling.get("partial_rotary_factor") is None else scaling
    if kind.partial_rotary is None:
        place.only("partial_rotary_factor", 1, 1.0)
        return head_dim
    n_rot = int(head_dim * place.number("partial_rotary_factor", default=kind.partial_rotary))
    if n_rot % 2 or not 0 < n_rot <= head_dim:
        raise place.error(
            "partial_rotary_factor", place.get("partial_rotary_factor"), "an even part of a head"
        )
    return n_rot


def _scaled(kind: str, factor: float) -> dict[str, Any]:
    return {"rope.scaling.type": kind, "rope.scaling.factor": factor}


def _yarn(scaling: Config, kind: HuggingFace, context: int) -> dict[str, Any]:
    if scaling.flag("truncate", default=True) is not kind.yarn_truncates:
        raise scaling.unsupported("truncate", not kind.yarn_truncates, str(kind.yarn_truncates).lower())
    factor = scaling.number("factor")
    metadata = _scaled("yarn", factor)
    multiplier = scaling.get("mscale_all_dim")
    if kind.raises_scores and multiplier:
        scaling.only("mscale", multiplier)
        scaling.only("attention_factor")
        metadata["rope.scaling.yarn_log_multiplier"] = 0.1 * scaling.number("mscale_all_dim")
    else:
        scaling.only("mscale", 1, 1.0)
        scaling.only("mscale_all_dim", 0, 0.0)
    original = scaling.integer("original_max_position_embeddings", default=context)
    metadata["rope.scaling.original_context_length"] = original
    for key, name in (("beta_fast", "yarn_beta_fast"), ("beta_slow", "yarn_beta_slow")):
        if scaling.get(key) is not None:
            metadata[f"rope.scaling.{name}"] = scaling.number(key)
    if scaling.get("attention_factor") is not None:
        # Files state it relative to YaRN's own.
        own = 1.0 + 0.1 * math.log(max(factor, 1.0))
        metadata["rope.scaling.attn_factor"] = scaling.number("attention_factor") / own
    return metadata


def _longrope(config: Config, scaling: Config, n_rot: int, context: int) -> tuple[dict[str, Any], Factors]:
    """LongRoPE [Ding et al., 2024]: divisors for texts within the original context, and for longer ones."""
    place = config if scaling.get("original_max_position_embeddings") is None else scaling
    original = place.integer("original_max_position_embeddings", default=context, least=2)
    factor = max(scaling.number("factor", default=context / original), 1.0)
    own = math.sqrt(1 + math.log(factor) / math.log(original))
    metadata = {
        "rope.scaling.original_context_length": original,
        "rope.scaling.attn_factor": scaling.number("attention_factor", default=own),
    }
    factors = {}
    for length in ("long", "short"):
        values = scaling.get(f"{length}_factor")
        if (
            not isinstance(values, list)
            or len(values) != n_rot // 2
            or not all(type(value) in (int, float) and math.isfinite(value) and value > 0 for value in values)
        ):
            raise scaling.error(f"{length}_factor", values, f"{n_rot // 2} numbers above zero")
        factors[f"rope_factors_{length}.weight"] = np.array(values, np.float32)
    return metadata, factors


def _proportional(scaling: Config, named: str, head_dim: int) -> Floats:
    """Divisors so large that the pairs behind the first part of a head do not turn."""
    scaling.only("rope_type", "default", "proportional")
    scaling.only("factor", 1)
    part = scaling.number("partial_rotary_factor", default=1.0) if named == "proportional" else 1.0
    if part > 1:
        raise scaling.error("partial_rotary_factor", part, "at most 1")
    n = int(part * head_dim // 2)
    return np.array([1.0] * n + [_STILL] * (head_dim // 2 - n), np.float32)


def _llama3(config: Config, scaling: Config, base: float, n_rot: int) -> Floats:
    """Llama 3.1: wavelengths below original / high are kept, above original / low multiplied by the factor,
    a ramp between. The original context is not the model's own, and so has no default."""
    factor = scaling.number("factor")
    low, high = scaling.number("low_freq_factor"), scaling.number("high_freq_factor")
    if high <= low:
        raise scaling.error("high_freq_factor", high, f"more than low_freq_factor, {low:g}")
    name = "original_max_position_embeddings"
    place = config if scaling.get(name) is None and config.get(name) is not None else scaling
    original = place.integer(name)
    turns = original * base ** (-np.arange(0, n_rot, 2) / n_rot) / (2 * np.pi)  # within that context
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)
