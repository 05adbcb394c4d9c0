"""Rotary positions: the frequencies of every scaling that files state, in float64.

Position p rotates pair i of a head by p · inv_freq[i] (Su et al., 2021, RoFormer).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from clarion.errors import ModelError, UnsupportedError
from clarion.models.keys import Keys, shown
from clarion.plan.checkpoint import Checkpoint

_BASE = 10000.0  # where a file states none


@dataclass(frozen=True, slots=True)
class Rope:
    """`inv_freq` in radians per position, one for each pair; `magnitude` multiplies cosines and sines."""

    inv_freq: tuple[float, ...]
    magnitude: float
    description: str


def plain_rope(base: float, n_rot: int) -> Rope:
    """Rotation without scaling."""
    return Rope(tuple(base ** (-2 * i / n_rot) for i in range(n_rot // 2)), 1.0, f"base {base:g}")


def log_multiplier(keys: Keys) -> float:
    """By what YaRN's factor raises the scores, for models whose scores it raises in place of the rotated
    pairs: 1 + multiplier · ln(factor), squared. (Peng et al., 2023, YaRN, section 3.4)"""
    multiplier = keys.number("rope.scaling.yarn_log_multiplier", 0.0, positive=False)
    if keys.text("rope.scaling.type", "linear") != "yarn":
        return 1.0
    factor = keys.number("rope.scaling.factor", 1.0, positive=False)
    return (1.0 + multiplier * math.log(max(factor, 1.0))) ** 2


def window_rope(keys: Keys, n_rot: int, rotation: Rope, *, base: float, scaled: bool) -> Rope:
    """The rotation of layers that look back over a window: that of the others where `scaled`, else one
    without scaling, whose base is `rope.freq_base_swa`, else `base`, else that of the others."""
    if scaled:
        return rotation
    base = keys.number("rope.freq_base_swa", base or keys.number("rope.freq_base", _BASE))
    if base <= 1:
        raise ModelError(f"{keys.name('rope.freq_base_swa')} is {base:g}, expected more than 1")
    return plain_rope(base, n_rot)


def frequency_factors(keys: Keys, w: Checkpoint, n_rot: int, context_length: int) -> Checkpoint:
    """Where the divisors of the frequencies are, if there are any: `rope_freqs`; of LongRoPE [Ding et al.,
    2024] `rope_factors_long` where the graph is wanted for more positions than the model was trained on at
    first, else `rope_factors_short`."""
    long, short = w.rope_factors_long, w.rope_factors_short
    if "weight" not in long and "weight" not in short:
        return w.rope_freqs
    for factors in (long, short):
        factors.floats(n_rot // 2)
    original = keys.integer("rope.scaling.original_context_length", context_length)
    return long if (keys.context or context_length) > original else short


def rope(
    keys: Keys,
    n_rot: int,
    context_length: int,
    factors: Checkpoint,
    *,
    yarn_truncates: bool = True,
    raises_scores: bool = False,
) -> Rope:
    """The rotation that the file states.

    Args:
        n_rot: elements of a head that are rotated.
        factors: where the file may have a tensor of n_rot / 2 divisors (`frequency_factors`).
        yarn_truncates: the ends of YaRN's ramp are whole pairs.
        raises_scores: the file may state `log_multiplier`; then YaRN does not lengthen the rotated pairs.

    Raises:
        ModelError: a figure is out of range.
        UnsupportedError: an unknown kind of scaling.
    """
    base = keys.number("rope.freq_base", _BASE)
    if base <= 1:
        raise ModelError(f"{keys.name('rope.freq_base')} is {base:g}, expected more than 1")
    inv_freq = [base ** (-2 * i / n_rot) for i in range(n_rot // 2)]
    words = [f"base {base:g}"]
    if "weight" in factors:
        divisors = factors.floats(n_rot // 2)
        if not all(math.isfinite(divisor) and divisor > 0 for divisor in divisors):
            raise ModelError(
                f"tensor '{factors.prefix}.weight' holds values that are not finite and above zero"
            )
        inv_freq = [f / divisor for f, divisor in zip(inv_freq, divisors, strict=True)]
        words.append("frequency factors")

    # Old files state a linear factor alone, under one of two names; zero stands for none.
    old = keys.number("rope.scale_linear", 0.0, positive=False)
    factor = keys.number("rope.scaling.factor", old, positive=False) or 1.0
    original = keys.integer("rope.scaling.original_context_length", context_length)
    magnitude = keys.number("rope.scaling.attn_factor", 1.0)
    kind = keys.text("rope.scaling.type", "linear")
    if kind == "linear":
        inv_freq = [f / factor for f in inv_freq]
    elif kind == "yarn":
        fast = keys.number("rope.scaling.yarn_beta_fast", 32.0)
        slow = keys.number("rope.scaling.yarn_beta_slow", 1.0)
        inv_freq = _yarn(inv_freq, base, factor, original, fast, slow, yarn_truncates)
        if not raises_scores or not keys.number("rope.scaling.yarn_log_multiplier", 0.0, positive=False):
            magnitude *= 1.0 + 0.1 * math.log(max(factor, 1.0))
    elif kind == "llama3":
        low = keys.number("rope.scaling.low_freq_factor", 1.0)
        high = keys.number("rope.scaling.high_freq_factor", 4.0)
        if "weight" not in factors:
            inv_freq = _llama3(inv_freq, factor, original, low, high)
    elif kind != "none" and not (kind == "longrope" and "rope_factors" in factors.prefix):
        raise UnsupportedError(f"{keys.name('rope.scaling.type')} = {shown(kind)} is not implemented")
    if not all(map(math.isfinite, inv_freq)):
        raise ModelError(f"{keys.name('rope.scaling.factor')} is {factor:g}: frequencies are not finite")
    if kind != "none" and factor != 1.0:
        words.append(f"{kind} × {factor:g} from {original}")
    return Rope(tuple(inv_freq), magnitude, ", ".join(words))


def _yarn(
    inv_freq: list[float],
    base: float,
    factor: float,
    original: int,
    beta_fast: float,
    beta_slow: float,
    truncates: bool,
) -> list[float]:
    """Peng et al., 2023, YaRN, section 3.2: pairs that turn more than beta_fast times within the original
    context keep their frequency, those that turn less than beta_slow times are slowed by the factor, a ramp
    between."""
    n_rot = 2 * len(inv_freq)

    def pair(turns: float) -> float:
        return n_rot * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

    first, last = pair(beta_fast), pair(beta_slow)
    if truncates:
        first, last = math.floor(first), math.ceil(last)
    low, high = max(first, 0), min(last, n_rot - 1)
    mixed = []
    for i, f in enumerate(inv_freq):
        ramp = min(max((i - low) / max(high - low, 0.001), 0.0), 1.0)
        mixed.append(f / factor * ramp + f * (1.0 - ramp))
    return mixed


def _llama3(inv_freq: list[float], factor: float, original: int, low: float, high: float) -> list[float]:
    """Llama 3.1: like YaRN's ramp, but over wavelengths between original / high and original / low."""
    if high <= low:
        raise ModelError(
            f"rope.scaling.high_freq_factor is {high:g}, expected more than low_freq_factor, {low:g}"
        )
    mixed = []
    for f in inv_freq:
        smooth = min(max((original * f / (2 * math.pi) - low) / (high - low), 0.0), 1.0)
        mixed.append((1.0 - smooth) * f / factor + smooth * f)
    return mixed
