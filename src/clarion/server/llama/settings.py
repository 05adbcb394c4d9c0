"""The options of a text, by the names that llama-server gives them."""

from __future__ import annotations

from typing import Any

from clarion.runtime.sampling import Options, Parameters


def settings_of(options: Options, seed: int | None = None) -> dict[str, Any]:
    """All of them, with what is the default. `seed`: with which the text was drawn; None: not yet known."""
    found = Parameters.parse(options)
    return {
        "n_predict": -1 if found.max_tokens is None else found.max_tokens,
        "seed": -1 if seed is None else seed,
        "temperature": 0.0 if found.greedy else found.temperature,
        "top_k": found.top_k,
        "top_p": found.top_p,
        "min_p": found.min_p,
        "typical_p": found.typical_p,
        "repeat_penalty": found.repeat_penalty,
        "repeat_last_n": found.penalty_window,
        "presence_penalty": found.presence_penalty,
        "frequency_penalty": found.frequency_penalty,
        "dry_multiplier": found.dry_multiplier,
        "dry_base": found.dry_base,
        "dry_allowed_length": found.dry_allowed_length,
        "dry_penalty_last_n": found.dry_window,
        "dry_sequence_breakers": list(found.dry_breakers),
        "stop": [stop for stop in found.stop if isinstance(stop, str)],
        "ignore_eos": found.ignore_eos,
        "n_probs": found.logprobs or 0,
    }
