"""Options are checked where they come in; each error names the option, what was found and what is allowed."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any, get_type_hints

import numpy as np
import pytest

from clarion.errors import ParameterError
from clarion.runtime.sampling import _ELSEWHERE, Options, Parameters


def test_every_option_is_a_parameter() -> None:
    assert set(get_type_hints(Options)) == {field.name for field in fields(Parameters)}


def test_every_parameter_is_described() -> None:
    for field in fields(Parameters):
        assert field.name in (Parameters.__doc__ or "")


def test_defaults_are_the_usual_ones() -> None:
    parameters = Parameters.parse({})
    assert (parameters.temperature, parameters.top_k, parameters.top_p, parameters.min_p) == (
        0.8,
        40,
        0.95,
        0.05,
    )
    assert parameters.max_tokens is None
    assert parameters.seed != Parameters.parse({}).seed


def test_numpy_numbers_and_single_stops_are_welcome() -> None:
    parameters = Parameters.parse(
        {"top_k": np.int64(3), "temperature": np.float32(0.5), "stop": "x", "seed": 0}  # type: ignore[typeddict-item]
    )
    assert (parameters.top_k, parameters.temperature, parameters.stop) == (3, 0.5, ("x",))
    assert Parameters.parse({"stop": 7}).stop == (7,)
    assert Parameters.parse({"stop": ["a", 7]}).stop == ("a", 7)
    assert Parameters.parse({"logit_bias": {1: -math.inf}}).logit_bias == {1: -math.inf}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("max_tokens", -1, "integer from 0"),
        ("max_tokens", 1.5, "integer from 0"),
        ("max_tokens", True, "integer from 0"),
        ("top_k", -1, "integer from 0"),
        ("top_p", 1.5, "number from 0 to 1"),
        ("min_p", -0.1, "number from 0 to 1"),
        ("typical_p", "0.5", "number from 0 to 1"),
        ("temperature", math.nan, "number from 0"),
        ("temperature", math.inf, "number from 0"),
        ("temperature", -1, "number from 0"),
        ("repeat_penalty", 0.0, "number from 1e-06 to 1000"),
        ("penalty_window", -2, "integer from -1"),
        ("dry_base", 0.5, "number from 1"),
        ("dry_allowed_length", 0, "integer from 1"),
        ("dry_breakers", "x", "list of strings"),
        ("dry_breakers", [""], "strings that are not empty"),
        ("seed", -1, "integer from 0"),
        ("seed", 2**64, "integer from 0"),
        ("stop", "", "not empty"),
        ("stop", [b"x"], "integer from 0"),
        ("stop", b"x", "strings and token ids"),
        ("stop", {"x": 1}, "strings and token ids"),
        ("stop", 1.5, "strings and token ids"),
        ("logprobs", 1001, "integer from 0 to 1000"),
        ("logit_bias", [1], "mapping"),
        ("logit_bias", {"a": 1.0}, "integer from 0"),
        ("logit_bias", {1: math.inf}, "number from -1e+30"),
        ("logit_bias", {1: math.nan}, "number from -1e+30"),
        ("greedy", 1, "True or False"),
        ("colour", 1, "unknown option; known: .*temperature"),
        ("temp", 1, r"unknown option; did you mean temperature\? known: "),
        ("max_new_tokens", 1, r"unknown option; did you mean max_tokens\? known: "),
        ("max_token", 1, r"unknown option; did you mean max_tokens\? known: "),
        ("repetition_penalty", 1, r"unknown option; did you mean repeat_penalty\? known: "),
    ],
)
def test_errors_name_the_option(name: str, value: Any, expected: str) -> None:
    with pytest.raises(ParameterError, match=expected.replace("+", r"\+")) as error:
        Parameters.parse({name: value})  # type: ignore[misc]
    assert str(error.value).startswith(name)
    assert isinstance(error.value, ValueError)


def test_what_other_libraries_call_options_leads_to_ours() -> None:
    ours = {field.name for field in fields(Parameters)}
    assert set(_ELSEWHERE.values()) <= ours
    assert not ours & set(_ELSEWHERE)


def test_none_is_the_default() -> None:
    nothing: Any = {field.name: None for field in fields(Parameters)}
    assert Parameters.parse({**nothing, "seed": 1}) == Parameters.parse({"seed": 1})
    assert Parameters.parse({"stop": None}).stop == ()


def test_tokens_outside_the_vocabulary() -> None:
    Parameters.parse({"stop": 9, "logit_bias": {9: 1.0}}).check_tokens(10)
    with pytest.raises(ParameterError, match="stop: found token 10, expected 0 to 9"):
        Parameters.parse({"stop": 10}).check_tokens(10)
    with pytest.raises(ParameterError, match="logit_bias: found token 10, expected 0 to 9"):
        Parameters.parse({"logit_bias": {10: 1.0}}).check_tokens(10)


def test_native_parameters_are_complete() -> None:
    from clarion._native import sampling

    for options in ({}, {"dry_multiplier": 1.0}, {"greedy": True}):
        parameters = Parameters.parse(options)  # type: ignore[arg-type]
        sampling.SamplerState(10, parameters.native([3]))
    assert Parameters.parse({"greedy": True}).native()["temperature"] == 0.0
