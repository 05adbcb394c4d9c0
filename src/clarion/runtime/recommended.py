"""Sampling options that a model's file recommends, by the names that they have here.

The keys are those of the GGUF specification, `general.sampling.*`. What it names and Clarion does not do
(XTC, Mirostat, another order of samplers) is no option here, and so is not among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from clarion.errors import ModelError, ParameterError
from clarion.runtime.sampling import Options, Parameters

_PREFIX = "general.sampling."
_NAMES = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_last_n": "penalty_window",
    "penalty_repeat": "repeat_penalty",
}
# Where any number below stands for the least one: the greedy choice, all tokens, all of the text.
_LEAST = {"temperature": 0, "top_k": 0, "penalty_window": -1}


def recommended(metadata: Mapping[str, object]) -> Options:
    """What the file recommends; empty where it says nothing.

    Raises:
        ModelError: a value is of the wrong kind or out of range.
    """
    found: dict[str, Any] = {}
    for key, name in _NAMES.items():
        value = metadata.get(_PREFIX + key)
        if value is None:
            continue
        if isinstance(value, float):
            value = float(f"{value:.7g}")  # as it was before it was stored in 32 bits
        if isinstance(value, int | float) and not isinstance(value, bool) and name in _LEAST:
            value = max(value, _LEAST[name])
        try:
            Parameters.parse(cast(Options, {name: value}))
        except ParameterError as error:
            raise ModelError(f"{_PREFIX}{key}: {str(error).removeprefix(f'{name}: ')}") from error
        found[name] = value
    return cast(Options, found)
