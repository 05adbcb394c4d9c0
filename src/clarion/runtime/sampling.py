"""How a token is chosen: the parameters, checked, and the native sampler behind them.

The order is fixed: logit bias, repetition, presence and frequency penalties, DRY, top-k, typical-p, top-p,
min-p, temperature, draw. docs/sampling.md defines each step.
"""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypedDict

from clarion.errors import ParameterError

GREATEST_BIAS = 1e30
GREATEST_SEED = 2**64 - 1
GREATEST_COUNT = 2**31 - 1
GREATEST_LOGPROBS = 1000


class Options(TypedDict, total=False):
    """Everything that `generate` and its relatives take by keyword. `Parameters` says what each one means."""

    max_tokens: int | None
    stop: str | int | Iterable[str | int] | None
    ignore_eos: bool
    logprobs: int | None
    detokenize: bool
    greedy: bool
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    repeat_penalty: float
    presence_penalty: float
    frequency_penalty: float
    penalty_window: int
    dry_multiplier: float
    dry_base: float
    dry_allowed_length: int
    dry_window: int
    dry_breakers: Iterable[str]
    logit_bias: Mapping[int, float]
    seed: int | None


class ChatOptions(Options, total=False):
    """Everything that `chat` and its relatives take by keyword."""

    tools: Sequence[Mapping[str, Any]] | None
    template: str | None
    variables: Mapping[str, Any] | None  # of the template
    progress: Callable[[int, int], None] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What one request asks for.

    Attributes:
        max_tokens: at most this many tokens; None: until the model ends the text or the context is full; 0:
            the prompt is computed, for those that begin like it, and nothing is drawn.
        stop: strings and token ids that end the text; they are not part of it.
        ignore_eos: goes on after tokens with which the model ends a text.
        logprobs: None, or for every token its log-probability and those of this many most probable tokens,
            under the model's own distribution (before bias, penalties, filters and temperature).
        detokenize: False leaves the text empty and needs no tokenizer where `ignore_eos` is set too.
        greedy: always the most probable token after bias and penalties; the same as temperature 0.
        temperature: the exponent's divisor, after all filters.
        top_k: the k most probable tokens; 0: all.
        top_p: the most probable tokens that together reach this share; 1: all.
        min_p: tokens at least this share as probable as the most probable; 0: all.
        typical_p: the tokens of most typical information that together reach this share; 1: all.
        repeat_penalty: divides positive and multiplies other logits of tokens in the window; 1: none.
        presence_penalty: subtracted once from tokens in the window.
        frequency_penalty: subtracted for each occurrence in the window.
        penalty_window: the latest tokens, prompt included, that penalties look at; -1: all.
        dry_multiplier, dry_base, dry_allowed_length: what continues a repetition of n tokens loses
            multiplier * base ** (n - allowed length) where n reaches the allowed length; multiplier 0: none.
        dry_window: the latest tokens that DRY looks at; -1: all.
        dry_breakers: no repetition reaches across a token whose text contains one of these.
        logit_bias: added to the logit of a token; -inf excludes it.
        seed: 0 to 2**64 - 1, the same seed draws the same tokens; without one, `Completion.seed` says which.
    """

    max_tokens: int | None = None
    stop: tuple[str | int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    detokenize: bool = True
    greedy: bool = False
    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_window: int = 64
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_window: int = -1
    dry_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int = 0

    @classmethod
    def parse(cls, options: Options) -> Parameters:
        """Checks every option. None means the same as leaving it out.

        Raises:
            ParameterError: an option is unknown, of the wrong kind or out of range; the message names it,
                what was found and what is allowed.
        """
        for name in options:
            if name not in _KNOWN:
                raise ParameterError(f"{name}: unknown option; {_meant(name)}")
        parsed: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        for name in ("ignore_eos", "detokenize", "greedy"):
            if name in parsed and not isinstance(parsed[name], bool):
                raise ParameterError(f"{name}: found {parsed[name]!r}, expected True or False")
        for name, (low, high) in _INTEGERS.items():
            if name in parsed:
                parsed[name] = integer(name, parsed[name], low, high)
        for name, (lowest, highest) in _NUMBERS.items():
            if name in parsed:
                parsed[name] = number(name, parsed[name], lowest, highest)
        if "stop" in parsed:
            parsed["stop"] = _stops(parsed["stop"])
        if "dry_breakers" in parsed:
            parsed["dry_breakers"] = _strings("dry_breakers", parsed["dry_breakers"])
        if "logit_bias" in parsed:
            parsed["logit_bias"] = _bias(parsed["logit_bias"])
        if "seed" not in parsed:
            parsed["seed"] = random_seed()
        return cls(**parsed)

    def check_tokens(self, n_vocab: int) -> None:
        """Raises ParameterError where an option names a token that the model does not have."""
        stops = (("stop", token) for token in self.stop if isinstance(token, int))
        for name, token in (*stops, *(("logit_bias", token) for token in self.logit_bias)):
            if token >= n_vocab:
                raise ParameterError(f"{name}: found token {token}, expected 0 to {n_vocab - 1}")

    def native(self, breakers: Iterable[int] = ()) -> dict[str, object]:
        """The native sampler's parameters. `breakers`: the tokens that stand for `dry_breakers`."""
        values: dict[str, object] = {name: getattr(self, name) for name in _NATIVE}
        if self.greedy:
            values["temperature"] = 0.0
        return {**values, "logit_bias": dict(self.logit_bias), "dry_breakers": breakers}


_KNOWN = frozenset(option.name for option in fields(Parameters))


def _meant(name: str) -> str:
    """The option that somebody may have meant, and all that there are."""
    from difflib import get_close_matches

    near = [_ELSEWHERE[name]] if name in _ELSEWHERE else get_close_matches(name, sorted(_KNOWN), 1, 0.75)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{hint}known: {', '.join(sorted(_KNOWN))}"


# Names that other libraries have for options of ours.
_ELSEWHERE = {
    **dict.fromkeys(
        ("max_new_tokens", "max_completion_tokens", "max_length", "max_len", "n_predict", "num_predict"),
        "max_tokens",
    ),
    "temp": "temperature",
    "repetition_penalty": "repeat_penalty",
    "repeat_last_n": "penalty_window",
    "dry_penalty_last_n": "dry_window",
    "dry_sequence_breakers": "dry_breakers",
    **dict.fromkeys(("typical", "typ_p"), "typical_p"),
    **dict.fromkeys(("stop_sequences", "stop_strings", "stop_token_ids", "stop_words"), "stop"),
    **dict.fromkeys(("random_seed", "random_state"), "seed"),
    **dict.fromkeys(("top_logprobs", "n_probs"), "logprobs"),
    "do_sample": "greedy",
    "ignore_eos_token": "ignore_eos",
}
# Option -> least and greatest value allowed.
_INTEGERS = {
    "max_tokens": (0, GREATEST_COUNT),
    "logprobs": (0, GREATEST_LOGPROBS),
    "top_k": (0, GREATEST_COUNT),
    "penalty_window": (-1, GREATEST_COUNT),
    "dry_allowed_length": (1, GREATEST_COUNT),
    "dry_window": (-1, GREATEST_COUNT),
    "seed": (0, GREATEST_SEED),
}
_NUMBERS = {
    "temperature": (0.0, 1000.0),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "typical_p": (0.0, 1.0),
    "repeat_penalty": (1e-6, 1000.0),  # a logit divided by less may be infinite
    "presence_penalty": (-1000.0, 1000.0),
    "frequency_penalty": (-1000.0, 1000.0),
    "dry_multiplier": (0.0, 1000.0),
    "dry_base": (1.0, 1000.0),
}
# What the native sampler takes as it stands.
_NATIVE = (
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
    "penalty_window",
    "dry_multiplier",
    "dry_base",
    "dry_allowed_length",
    "dry_window",
    "top_k",
    "typical_p",
    "top_p",
    "min_p",
    "temperature",
    "seed",
)


def random_seed() -> int:
    """The seed of a text that nobody gave one."""
    return int.from_bytes(os.urandom(8), "little")


def integer(name: str, value: object, low: int, high: int) -> int:
    """`value` as an integer between `low` and `high`, else a ParameterError about `name`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not low <= int(value) <= high:
        raise ParameterError(f"{name}: found {value!r}, expected an integer from {low} to {high}")
    return int(value)


def number(name: str, value: object, low: float, high: float) -> float:
    """`value` as a number between `low` and `high`, else a ParameterError about `name`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not low <= float(value) <= high:
        raise ParameterError(f"{name}: found {value!r}, expected a number from {low:g} to {high:g}")
    return float(value)


def _stops(value: Any) -> tuple[str | int, ...]:
    if isinstance(value, (str, numbers.Integral)):
        value = (value,)
    elif not isinstance(value, Iterable) or isinstance(value, bytes | bytearray | Mapping):
        raise ParameterError(f"stop: found {value!r}, expected strings and token ids")
    stops: list[str | int] = []
    for stop in value:
        if isinstance(stop, str):
            if not stop:
                raise ParameterError("stop: found '', expected strings that are not empty")
            stops.append(stop)
        else:
            stops.append(integer("stop", stop, 0, GREATEST_COUNT))
    return tuple(stops)


def _strings(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ParameterError(f"{name}: found {value!r}, expected a list of strings")
    strings = tuple(value)
    for item in strings:
        if not isinstance(item, str) or not item:
            raise ParameterError(f"{name}: found {item!r}, expected strings that are not empty")
    return strings


def _bias(value: Any) -> dict[int, float]:
    if not isinstance(value, Mapping):
        raise ParameterError(f"logit_bias: found {value!r}, expected a mapping from token ids to numbers")
    bias = {}
    for token, added in value.items():
        token = integer("logit_bias", token, 0, GREATEST_COUNT)
        if isinstance(added, numbers.Real) and added == -math.inf:
            bias[token] = -math.inf
        else:
            bias[token] = number(f"logit_bias[{token}]", added, -GREATEST_BIAS, GREATEST_BIAS)
    return bias
