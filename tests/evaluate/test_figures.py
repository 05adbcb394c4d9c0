"""The figures, against a few lines of arithmetic that compute them one token at a time."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarion.evaluate import figures
from clarion.evaluate.figures import Divergence, Perplexity, score


def distribution(row):
    weights = [math.exp(x - max(row)) for x in row]
    return [w / math.fsum(weights) for w in weights]


@given(st.integers(0, 2**32 - 1), st.floats(0, 20), st.sampled_from([np.float32, np.float64]))
def test_scores(seed, scale, dtype):
    rng = np.random.default_rng(seed)
    logits, reference = (rng.normal(0, scale, (5, 7)).astype(dtype) for _ in range(2))
    targets = rng.integers(0, 7, 5)
    scores = score(logits, targets, reference)
    for t in range(5):
        p, q = distribution(logits[t].tolist()), distribution(reference[t].tolist())
        assert scores.surprise[t] == pytest.approx(-math.log(p[targets[t]]), rel=1e-5, abs=1e-6)
        wanted = math.fsum(b * (math.log(b) - math.log(a)) for a, b in zip(p, q, strict=True))
        assert scores.divergence[t] == pytest.approx(wanted, rel=1e-9, abs=1e-12)
        assert scores.choice[t] == np.argmax(logits[t])


def test_the_divergence_of_a_distribution_from_itself_is_zero():
    logits = np.random.default_rng(0).normal(0, 5, (50, 1000)).astype(np.float32)
    scores = score(logits, np.zeros(50, np.int64), logits + np.float32(0))
    assert scores.divergence.max() < 1e-15
    assert scores.divergence.min() >= 0


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(1)
    logits, reference = rng.normal(0, 3, (2, 33, 64)).astype(np.float32)
    whole = score(logits, np.arange(33), reference)
    monkeypatch.setattr(figures, "_BLOCK_ELEMENTS", 200)
    cut = score(logits, np.arange(33), reference)
    assert (whole.surprise == cut.surprise).all()
    assert (whole.divergence == cut.divergence).all()


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
