"""How tokens are chosen: fields of requests, by OpenAI's and llama-server's names, become our options.

What a request does not say, the server's options say; what these do not say, the model's file; then our own
defaults hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec

from clarion.errors import ParameterError
from clarion.model import Model
from clarion.runtime.sampling import GREATEST_SEED, Options, Parameters
from clarion.server.call import Call
from clarion.server.errors import bad
from clarion.server.fields import Off, is_empty


class Sampling(msgspec.Struct, kw_only=True):
    """The fields of a request that say how its text is written."""

    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n_predict: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool | None = None
    seed: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repeat_penalty: float | None = None
    repetition_penalty: float | None = None
    repeat_last_n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_penalty_last_n: int | None = None
    dry_sequence_breakers: list[str] | None = None
    logit_bias: dict[str, float] | list[tuple[int, float | bool]] | None = None
    id_slot: int | None = None


# Fields whose names here differ from our options'.
_OPTIONS: Final = {
    "max_completion_tokens": "max_tokens",
    "n_predict": "max_tokens",
    "repetition_penalty": "repeat_penalty",
    "repeat_last_n": "penalty_window",
    "dry_penalty_last_n": "dry_window",
    "dry_sequence_breakers": "dry_breakers",
}
# Handled by themselves.
_OTHERS: Final = frozenset({"stop", "stop_token_ids", "logit_bias", "seed", "id_slot"})
_PLAIN: Final = tuple(name for name in Sampling.__struct_fields__ if name not in _OTHERS)


def _is_at_most_zero(value: Any) -> bool:
    return isinstance(value, int | float) and value <= 0


def _is_text_format(value: Any) -> bool:
    return isinstance(value, Mapping) and value.get("type") == "text"


# Fields that would change the text and are not implemented, and the values of each that ask for nothing.
UNSUPPORTED: Final[Mapping[str, Off]] = {
    "response_format": _is_text_format,
    **dict.fromkeys(
        (
            *("grammar", "json_schema", "structured_outputs", "guided_json", "guided_regex", "guided_choice"),
            *("guided_grammar", "lora", "mirostat", "dynatemp_range", "min_tokens", "use_beam_search"),
            *("prompt_logprobs", "truncate_prompt_tokens", "include_stop_str_in_output", "bad_words"),
            *("allowed_token_ids", "post_sampling_probs", "n_probs"),
        ),
        is_empty,
    ),
    **dict.fromkeys(("xtc_probability", "top_n_sigma", "t_max_predict_ms"), _is_at_most_zero),
}
# Fields that change nothing, or nothing that is seen.
HARMLESS: Final = frozenset(
    {
        *("user", "store", "metadata", "service_tier", "parallel_tool_calls", "prompt_cache_key"),
        *("prompt_cache_retention", "safety_identifier", "prediction", "cache_prompt", "n_keep"),
        *("timings_per_token", "stream_options", "stream"),
    }
)


def options(fields: Sampling, model: Model, server: Options, **more: Any) -> Options:
    """Our options of a request.

    Args:
        model: for its own defaults.
        server: what the server was told.
        more: further options of the endpoint.

    Raises:
        RefusedError: 400, a field is out of range; it names the field as the request does.
    """
    chosen: dict[str, Any] = {**defaults(model), **server}
    names: dict[str, str] = {}  # of fields, by the option that they give
    for name in _PLAIN:
        if (value := getattr(fields, name)) is not None:
            option = _OPTIONS.get(name, name)
            chosen[option], names[option] = value, name
    if "max_tokens" in names and chosen["max_tokens"] == -1:
        del chosen["max_tokens"]
    if fields.seed is not None and fields.seed != -1:
        chosen["seed"] = fields.seed & GREATEST_SEED
    stops: list[str | int] = [fields.stop] if isinstance(fields.stop, str) else list(fields.stop or ())
    stops += fields.stop_token_ids or ()
    if stops:
        chosen["stop"] = stops
    if fields.logit_bias:
        chosen["logit_bias"] = _bias(fields.logit_bias)
    chosen |= more
    found = cast(Options, chosen)
    try:
        Parameters.parse(found).check_tokens(model.n_vocab)
    except ParameterError as error:
        option, _, message = str(error).partition(": ")
        raise bad(names.get(option, option), message) from None
    return found


def slot_of(call: Call, fields: Sampling) -> int | None:
    """The number that a request gives its conversation; one that the server does not have is ignored."""
    slot = fields.id_slot
    if slot is None or slot == -1:
        return None
    if 0 <= slot < call.server.settings.parallel:
        return slot
    if "id_slot" not in call.ignored:
        call.ignored.append("id_slot")
    return None


def defaults(model: Model) -> Options:
    """What the model's file recommends."""
    return model.defaults


def _bias(given: dict[str, float] | list[tuple[int, float | bool]]) -> dict[int, float]:
    pairs = given.items() if isinstance(given, dict) else given
    bias: dict[int, float] = {}
    for token, added in pairs:
        try:
            # False excludes a token, as llama-server has it.
            bias[int(token)] = float("-inf") if added is False else float(added)
        except ValueError:
            raise bad("logit_bias", f"found {token!r:.40}, expected the id of a token") from None
    return bias
