"""The figures, against a few lines of arithmetic that compute them one token at a time."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarion.evaluate.figures import Divergence, Perplexity, score


def distribution(row):
    weights = [math.exp(x - max(row)) for x in row]
    return [w / math.fsum(weights) for w in weights]


TYPES = st.sampled_from([np.float32, np.float64])


@given(
    st.integers(0, 2**32 - 1), st.floats(0, 20), st.sampled_from([1, 7, 16, 255, 256, 257, 700]), TYPES, TYPES
)
def test_scores(seed, scale, width, dtype, other):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, scale, (5, width)).astype(dtype)
    reference = rng.normal(0, scale, (5, width)).astype(other)
    targets = rng.integers(0, width, 5)
    scores, alone = score(logits, targets, reference), score(logits, targets, None)
    # In float32, e^-d is rounded by 2^-24 (3.3 + 3.1 d), and so is the mean of what is summed.
    bound = 2.0**-24 * (3.3 + 3.1 * np.ptp(logits.astype(np.float64))) if dtype == np.float32 else 1e-11
    for t in range(5):
        p, q = distribution(logits[t].tolist()), distribution(reference[t].tolist())
        surprise = -math.log(p[targets[t]])
        assert scores.surprise[t] == pytest.approx(surprise, rel=1e-11, abs=1e-11)
        assert alone.surprise[t] == pytest.approx(surprise, rel=1e-11, abs=bound)
        wanted = math.fsum(b * (math.log(b) - math.log(a)) for a, b in zip(p, q, strict=True))
        assert scores.divergence[t] == pytest.approx(wanted, rel=1e-9, abs=1e-11)
        assert scores.choice[t] == alone.choice[t] == np.argmax(logits[t])
    assert not alone.divergence.any()


def test_the_divergence_of_a_distribution_from_itself_is_zero():
    logits = np.random.default_rng(0).normal(0, 5, (50, 1000)).astype(np.float32)
    scores = score(logits, np.zeros(50, np.int64), logits + np.float32(0))
    assert scores.divergence.max() < 1e-15
    assert scores.divergence.min() >= 0


def test_the_first_of_equal_logits_is_the_choice_and_far_ones_weigh_nothing():
    logits = np.full((3, 600), -1e30, np.float32)
    logits[0, [590, 300]] = 3
    logits[1] = 0
    logits[2, 599] = -5
    scores = score(logits, np.array([300, 7, 599]), None)
    assert scores.choice.tolist() == [300, 0, 599]
    np.testing.assert_allclose(scores.surprise, [math.log(2), math.log(600), 0], rtol=1e-7, atol=0)
    assert score(logits, np.array([300, 7, 599]), logits).divergence.max() < 1e-15


def test_padded_rows_are_read_where_they_are():
    rng = np.random.default_rng(3)
    logits, reference = rng.normal(0, 3, (2, 9, 80)).astype(np.float32)
    targets = rng.integers(0, 70, 9)
    found = score(logits[:, :70], targets, reference[:, 5:75])
    wanted = score(logits[:, :70].copy(), targets, reference[:, 5:75].copy())
    for name in ("surprise", "divergence", "choice"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    with pytest.raises(ValueError, match="beside each other"):
        score(logits.T, np.zeros(80, np.int64), None)


def test_what_does_not_fit_is_refused():
    logits = np.zeros((3, 8), np.float32)
    for targets in ([0, 1], [0, 1, 8], [0, -1, 2]):
        with pytest.raises(ValueError, match="target"):
            score(logits, np.array(targets), None)
    with pytest.raises(ValueError, match="reference"):
        score(logits, np.zeros(3, np.int64), logits[:, :7].copy())
    with pytest.raises(ValueError, match="float32 nor float64"):
        score(logits.astype(np.float16), np.zeros(3, np.int64), None)
    assert len(score(logits[:0], np.zeros(0, np.int64), None).surprise) == 0


def test_perplexity_and_its_error():
    surprise = np.array([1.0, 2.0, 3.0, 6.0])
    found = Perplexity.of(surprise)
    assert found.value == pytest.approx(math.exp(3))
    assert found.error == pytest.approx(math.exp(3) * surprise.std() / math.sqrt(3))
    assert Perplexity.of(np.array([2.0])).error == 0
    assert Perplexity.of(np.array([1e4])).value == math.inf


def test_quantiles():
    found = Divergence.of(np.arange(1001.0))
    assert (found.mean, found.median, found.p99, found.p999, found.greatest) == (500, 500, 990, 999, 1000)


def test_threads_change_nothing_and_rows_without_a_number_are_marked():
    rng = np.random.default_rng(2)
    logits, reference = rng.normal(0, 3, (2, 40, 5000)).astype(np.float32)
    targets = rng.integers(0, 5000, 40)
    one, three = (score(logits, targets, reference, threads) for threads in (1, 3))
    for name in ("surprise", "divergence", "choice"):
        np.testing.assert_array_equal(getattr(one, name), getattr(three, name))
    for bad in (np.nan, np.inf, -np.inf):
        broken = logits.copy()
        broken[7, 3] = bad
        finite = np.isfinite(score(broken, targets, None).surprise)
        assert finite.sum() == 39
        assert not finite[7]
