"""The native sampler against the float64 reference: who survives, with what probability, and who is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from clarion._native import sampling
from tests.runtime import reference


def run(logits: np.ndarray, history: list[int], **changes: Any) -> tuple[int, dict[int, float]]:
    state = sampling.SamplerState(len(logits), {**reference.DEFAULTS, **changes})
    state.extend(np.array(history, np.int32))
    sampler = sampling.Sampler(len(logits))
    survivors = dict(sampler.survivors(state, logits))
    return sampler.sample(state, logits), survivors


def check(logits: np.ndarray, history: list[int], **changes: Any) -> None:
    parameters = {**reference.DEFAULTS, **changes}
    try:
        expected = reference.distribution(logits, history, parameters)
        token = reference.draw(expected, reference.uniform(parameters["seed"], 0))
    except reference.AmbiguousError:
        assume(False)
    drawn, survivors = run(logits, history, **changes)
    assert list(survivors) == list(expected)
    np.testing.assert_allclose(list(survivors.values()), list(expected.values()), rtol=1e-9, atol=1e-15)
    assert drawn == token


SHORT = (1, 2, 15, 16, 17, 255, 256, 257, 300, 1500)
LONG = (1025, 1500, 5000, 12_000)  # more than are sorted


@st.composite
def logit_rows(draw: st.DrawFn, lengths: tuple[int, ...] = SHORT) -> np.ndarray:
    n = draw(st.sampled_from(lengths))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.standard_normal(n) * draw(st.sampled_from([0.0, 1e-7, 0.1, 3.0, 40.0])) + draw(
        st.sampled_from([0.0, -50.0, 1e4])
    )
    if draw(st.booleans()):
        x = np.round(x * 2) / 2  # ties
    if draw(st.booleans()):
        x[rng.integers(0, n)] += draw(st.sampled_from([5.0, 30.0, 100.0, -1e30]))
    if n > 2 and draw(st.booleans()):
        x[rng.integers(0, n, n // 2)] = -np.inf
        x[rng.integers(0, n)] = 0.0
    return x.astype(np.float32)


PARAMETERS = st.fixed_dictionaries(
    {},
    optional={
        "repeat_penalty": st.floats(0.5, 2.0),
        "presence_penalty": st.floats(-2.0, 2.0),
        "frequency_penalty": st.floats(-2.0, 2.0),
        "penalty_window": st.sampled_from([-1, 0, 1, 5, 64]),
        "dry_multiplier": st.floats(0.1, 3.0),
        "dry_base": st.floats(1.0, 3.0),
        "dry_allowed_length": st.integers(1, 4),
        "dry_window": st.sampled_from([-1, 0, 3, 20]),
        "dry_breakers": st.lists(st.just(0), max_size=1),
        "top_k": st.sampled_from([0, 1, 2, 5, 40, 299, 2000]),
        "typical_p": st.floats(0.0, 1.0),
        "top_p": st.floats(0.0, 1.0),
        "min_p": st.one_of(st.floats(0.0, 1.0), st.floats(1e-9, 1e-2)),
        "temperature": st.one_of(st.just(0.0), st.floats(1e-3, 100.0)),
        "seed": st.integers(0, 2**64 - 1),
    },
)


@settings(max_examples=300, deadline=None)
@given(logit_rows(), st.lists(st.integers(0, 3), max_size=40), PARAMETERS, st.data())
def test_agrees_with_the_reference(
    logits: np.ndarray, history: list[int], parameters: dict[str, Any], data: st.DataObject
) -> None:
    n = len(logits)
    history = [token % n for token in history]
    bias = data.draw(st.dictionaries(st.integers(0, n - 1), st.floats(-20.0, 20.0), max_size=3), label="bias")
    check(logits, history, logit_bias=bias, **parameters)


FILTERS = st.fixed_dictionaries(
    {"temperature": st.sampled_from([0.01, 0.8, 1.0, 30.0])},
    optional={
        "top_k": st.sampled_from([1, 40, 1000, 1024, 1025, 4000, 11_999]),
        "typical_p": st.one_of(st.floats(0.0, 1.0), st.sampled_from([0.999999, 1e-6])),
        "top_p": st.one_of(st.floats(0.0, 1.0), st.sampled_from([0.999999, 1e-6])),
        "min_p": st.one_of(st.floats(0.0, 1.0), st.floats(1e-9, 1e-2)),
        "seed": st.integers(0, 2**64 - 1),
    },
)


@settings(max_examples=300, deadline=None)
@given(logit_rows(LONG), FILTERS)
@example(np.zeros(5000, np.float32), {"temperature": 0.8, "typical_p": 0.5, "top_p": 0.5, "top_k": 4000})
@example(np.float32([0.0, -1e30] * 2500), {"temperature": 0.8, "top_k": 4000, "top_p": 0.9})
@example(np.float32([0.0, -np.inf] * 2500), {"temperature": 0.8, "top_k": 4000, "typical_p": 0.9})
@example(np.float32([0.0, -1.0] * 6000), {"temperature": 0.8, "top_k": 8191, "top_p": 0.9871})
@example(np.float32([0.0, -1.0] * 6000), {"temperature": 0.8, "top_p": 0.8371, "typical_p": 0.9371})
@example(np.float32([0.0] * 5999 + [-1.0] * 6001), {"temperature": 0.8, "top_k": 7001, "typical_p": 0.9999})
@example(np.zeros(12_000, np.float32), {"temperature": 0.8, "top_k": 40, "top_p": 0.9371, "min_p": 0.05})
@example(np.float32([1e4, 0.0, -np.inf] * 500), {"temperature": 0.01, "min_p": 5e-324})
def test_long_rows_agree_with_the_reference(logits: np.ndarray, parameters: dict[str, Any]) -> None:
    check(logits, [], **parameters)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 2), max_size=60), st.integers(1, 5), st.booleans())
@example([1, 1, 1, 1, 1, 1, 1], 2, False)
def test_dry_finds_every_repetition(history: list[int], allowed: int, breaker: bool) -> None:
    check(
        np.zeros(3, np.float32),
        history,
        dry_multiplier=0.75,
        dry_allowed_length=allowed,
        dry_breakers=[2] if breaker else [],
    )


@pytest.mark.sample(4)
@pytest.mark.parametrize("scale", [0.0, 0.1, 3.0])
@pytest.mark.parametrize("changes", [{}, {"top_p": 0.9}, {"typical_p": 0.5}, {"top_k": 15_000}])
def test_draws_follow_the_probabilities(scale: float, changes: dict[str, float]) -> None:
    logits = (np.random.default_rng(5).standard_normal(20_000) * scale).astype(np.float32)
    parameters = {**reference.DEFAULTS, "temperature": 0.8, "seed": 7, **changes}
    state, sampler = sampling.SamplerState(len(logits), parameters), sampling.Sampler(len(logits))
    tokens, probabilities = zip(*sampler.survivors(state, logits), strict=True)
    sums = np.cumsum(probabilities)
    for i in range(3000):
        drawn, share = sampler.sample(state, logits), reference.uniform(7, i)
        if np.min(np.abs(sums - share)) > 1e-12:
            assert drawn == tokens[np.searchsorted(sums, share)]


def test_equal_logits_go_by_id() -> None:
    logits = np.zeros(1000, np.float32)
    assert list(run(logits, [], top_k=3)[1]) == [0, 1, 2]
    assert list(run(logits, [], top_p=0.0105)[1]) == list(range(11))
    logits[[700, 300]] = 1.0
    assert run(logits, [], temperature=0.0)[0] == 300


def test_excluded_tokens_are_never_drawn() -> None:
    logits = np.array([0.0, 100.0, 0.0], np.float32)
    _, survivors = run(logits, [], logit_bias={1: -np.inf})
    assert survivors == {0: 0.5, 2: 0.5}


@pytest.mark.parametrize("place", [0, 17, 300, 999])
@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinite")])
def test_logits_that_are_no_numbers_are_an_error(place: int, value: float, word: str) -> None:
    logits = np.zeros(1000, np.float32)
    logits[place] = value
    for changes in ({}, {"top_k": 40}, {"temperature": 0.0}):
        with pytest.raises(ValueError, match=f"the logit of token {place} is {word}"):
            run(logits, [], **changes)


def test_no_token_left_is_an_error() -> None:
    with pytest.raises(ValueError, match="every token is excluded"):
        run(np.full(5, -np.inf, np.float32), [])


def test_random_numbers_are_philox() -> None:
    # The known answer that Random123 publishes for key and counter zero.
    assert reference.philox(0, 0) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    n = 4096
    parameters = {**reference.DEFAULTS, "seed": 2**63 + 12345}
    state, sampler = sampling.SamplerState(n, parameters), sampling.Sampler(n)
    drawn = [sampler.sample(state, np.zeros(n, np.float32)) for _ in range(20)]
    assert drawn == [int(reference.uniform(parameters["seed"], i) * n) for i in range(20)]


def test_history_holds_what_was_drawn() -> None:
    state = sampling.SamplerState(4, {**reference.DEFAULTS, "temperature": 0.0, "presence_penalty": 5.0})
    sampler, logits = sampling.Sampler(4), np.array([3.0, 2.0, 1.0, 0.0], np.float32)
    assert [sampler.sample(state, logits) for _ in range(4)] == [0, 1, 2, 3]


@settings(max_examples=50, deadline=None)
@given(logit_rows(), st.integers(0, 20), st.data())
def test_log_probabilities(logits: np.ndarray, n: int, data: st.DataObject) -> None:
    token = data.draw(st.integers(0, len(logits) - 1))
    x = logits.astype(np.float64)
    with np.errstate(divide="ignore"):
        expected = np.log(reference.softmax(x))
    finite = expected > -700  # below, the exponential itself underflows
    order = sorted(np.flatnonzero(x > -np.inf).tolist(), key=lambda i: (-x[i], i))[:n]
    (chosen, *top) = sampling.Sampler(len(logits)).log_probabilities(logits, token, n)
    assert [i for i, _ in top] == order
    for i, value in (chosen, *top):
        if finite[i]:
            assert value == pytest.approx(expected[i], abs=1e-9)
    assert chosen[0] == token


def test_tokens_outside_the_vocabulary_are_refused() -> None:
    state = sampling.SamplerState(10, reference.DEFAULTS)
    for token in (-1, 10):
        with pytest.raises(ValueError, match=f"token {token} is outside the vocabulary of 10"):
            state.extend(np.array([token], np.int32))
        with pytest.raises(ValueError, match=f"token {token} is outside"):
            sampling.SamplerState(10, {**reference.DEFAULTS, "logit_bias": {token: 1.0}})


def test_large_vocabulary_without_filters() -> None:
    rng = np.random.default_rng(7)
    for changes in ({"top_p": 0.9}, {"typical_p": 0.5}, {"top_p": 0.999, "min_p": 1e-6}, {"top_k": 5000}):
        check((rng.standard_normal(50_000) * 4).astype(np.float32), [], seed=3, **changes)
