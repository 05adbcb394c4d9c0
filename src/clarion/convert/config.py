"""config.json: typed access, and rotary positions in the file's own terms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from clarion.convert.stored import Floats
from clarion.errors import ModelError, UnsupportedError

_LEAST, _MOST = (float(limit) for limit in (np.finfo(np.float32).tiny, np.finfo(np.float32).max))


def whole(value: Any) -> int | None:
    """The integer that a number of a JSON file is, written as 256 or as 256.0; None for anything else."""
    if type(value) is float and value.is_integer():
        return int(value)
    return value if type(value) is int else None


class Config:
    """A JSON object with hyperparameters. Errors name the key, what was found and what is expected."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self._values = values
        self._where = where

    def get(self, *keys: str) -> Any:
        """The value of the first key that is there and not null."""
        return next((self._values[key] for key in keys if self._values.get(key) is not None), None)

    def integer(self, *keys: str, default: int | None = None, least: int = 1) -> int:
        """A whole number from `least`; the first of the keys that is there."""
        value = self.get(*keys)
        value = default if value is None else value
        number = whole(value)
        if number is None or not least <= number < 2**31:
            raise self.error(keys[0], value, f"a whole number from {least}")
        return number

    def number(self, *keys: str, default: float | None = None) -> float:
        """A number above zero that is one in float32 too, which is how files hold it."""
        value: Any = self.get(*keys)
        value = default if value is None else value
        if type(value) not in (int, float) or not _LEAST <= value <= _MOST:
            raise self.error(keys[0], value, f"a number above zero, {_LEAST:.2g} to {_MOST:.2g}")
        return float(value)

    def flag(self, *keys: str, default: bool | None = None) -> bool:
        """True or false; the first of the keys that is there."""
        value = self.get(*keys)
        value = default if value is None else value
        if type(value) is not bool:
            raise self.error(keys[0], value, "true or false")
        return value

    def child(self, key: str) -> Config:
        """The object below a key, empty where there is none."""
        value = self.get(key)
        value = {} if value is None else value
        if not isinstance(value, Mapping):
            raise self.error(key, value, "an object")
        return Config(value, f"{self._where}: {key}")

    def only(self, key: str, *allowed: object) -> None:
        """Raises UnsupportedError if the key is there and its value none of these."""
        value = self.get(key)
        if value is not None and value not in allowed:
            raise self.unsupported(key, value, " or ".join(map(repr, allowed)))

    def error(self, key: str, found: object, expected: str) -> ModelError:
        return ModelError(f"{self._where}: {key} is {found!r:.80}, expected {expected}")

    def unsupported(self, key: str, found: object, supported: str) -> UnsupportedError:
        return UnsupportedError(f"{self._where}: {key} is {found!r:.80}, supported: {supported}")


def rope(
    config: Config, n_rot: int, *, factors: bool, raises_scores: bool
) -> tuple[dict[str, Any], Floats | None]:
    """Metadata below the architecture's name, and divisors of frequencies [n_rot / 2] or None.

    Args:
        n_rot: elements of a head that are rotated.
        factors: whether the architecture's files may hold divisors.
        raises_scores: YaRN raises the scores, in place of the rotated pairs.

    Raises:
        UnsupportedError: a kind of scaling that files cannot state for this architecture.
        ModelError: a figure is missing or out of range.
    """
    # Newer files have all in rope_parameters, older ones the base beside rope_scaling.
    scaling = config.child("rope_parameters")
    base = scaling.get("rope_theta")
    if scaling.get("rope_type") is None:
        scaling = config.child("rope_scaling")
    base = config.number("rope_theta", default=10000.0) if base is None else scaling.number("rope_theta")
    metadata: dict[str, Any] = {"rope.freq_base": base, "rope.dimension_count": n_rot}
    kind = scaling.get("rope_type", "type") or "default"
    if kind == "default":
        return metadata, None
    context = config.integer("max_position_embeddings")
    if kind == "llama3" and factors:
        return metadata, _llama3(scaling, base, n_rot, context)
    if kind not in ("linear", "yarn"):
        known = ["default", "linear", "yarn", *(["llama3"] if factors else [])]
        raise scaling.unsupported("rope_type", kind, ", ".join(known))
    factor = scaling.number("factor")
    metadata |= {"rope.scaling.type": kind, "rope.scaling.factor": factor}
    if kind == "yarn":
        scaling.only("truncate", True)
        multiplier = scaling.get("mscale_all_dim")
        if raises_scores and multiplier:
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
    return metadata, None


def rotated(config: Config, partial: float | None, head_dim: int) -> int:
    """Elements of a head that are rotated, where that is `partial` if the file does not say; None: it must be
    all of them."""
    scaling = config.child("rope_parameters")
    place = config if scaling.get("partial_rotary_factor") is None else scaling
    if partial is None:
        place.only("partial_rotary_factor", 1, 1.0)
        return head_dim
    n_rot = int(head_dim * place.number("partial_rotary_factor", default=partial))
    if n_rot % 2 or not 0 < n_rot <= head_dim:
        raise place.error(
            "partial_rotary_factor", place.get("partial_rotary_factor"), "an even part of a head"
        )
    return n_rot


def _llama3(scaling: Config, base: float, n_rot: int, context: int) -> Floats:
    """Llama 3.1: wavelengths below original / high are kept, above original / low multiplied by the factor,
    a ramp between."""
    factor = scaling.number("factor")
    low, high = scaling.number("low_freq_factor"), scaling.number("high_freq_factor")
    if high <= low:
        raise scaling.error("high_freq_factor", high, f"more than low_freq_factor, {low:g}")
    original = scaling.integer("original_max_position_embeddings", default=context)
    turns = original * base ** (-np.arange(0, n_rot, 2) / n_rot) / (2 * np.pi)  # within that context
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)
