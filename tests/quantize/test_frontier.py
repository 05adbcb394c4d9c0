"""The frontier, against all mixtures there are."""

from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarion.errors import ParameterError
from clarion.quantize.frontier import Frontier, Offer, hull

offers = st.lists(
    st.builds(Offer, st.sampled_from("abcde"), st.integers(1, 60), st.integers(0, 60).map(float)),
    min_size=1,
    max_size=4,
)
matrices = st.lists(offers, min_size=1, max_size=4)


def least_cost(matrices, n_bytes):
    """Of every mixture that fits; None if there is none."""
    costs = [
        sum(offer.cost for offer in mixture)
        for mixture in product(*matrices)
        if sum(offer.n_bytes for offer in mixture) <= n_bytes
    ]
    return min(costs, default=None)


@given(offers)
def test_a_hull_is_convex_and_leaves_nothing_below_it(found):
    kept = hull(found)
    assert set(kept) <= set(found)
    for a, b in pairwise(kept):
        assert a.n_bytes < b.n_bytes
        assert a.cost > b.cost
    for offer in found:
        for price in (0.01, 0.3, 1.0, 3.0, 100.0):
            assert min(c.cost + price * c.n_bytes for c in kept) <= offer.cost + price * offer.n_bytes


@settings(max_examples=200)
@given(matrices)
def test_every_point_is_the_best_mixture_of_its_size(found):
    frontier = Frontier(found)
    for point in frontier.points:
        assert point.cost == least_cost(found, point.n_bytes)
        chosen = frontier.within(point.n_bytes)
        assert sum(offer.cost for offer in chosen) <= point.cost
    sizes = [point.n_bytes for point in frontier.points]
    assert sizes == sorted(sizes)


@settings(max_examples=200)
@given(matrices, st.integers(0, 250))
def test_a_budget_is_kept_and_used(found, n_bytes):
    frontier = Frontier(found)
    least = sum(min(offer.n_bytes for offer in matrix) for matrix in found)
    if n_bytes < least:
        with pytest.raises(ParameterError, match=rf"smallest mixture, {least}"):
            frontier.within(n_bytes)
        return
    chosen = frontier.within(n_bytes)
    assert all(offer in matrix for offer, matrix in zip(chosen, found, strict=True))
    assert sum(offer.n_bytes for offer in chosen) <= n_bytes
    cost = sum(offer.cost for offer in chosen)
    assert cost >= least_cost(found, n_bytes)
    assert cost <= min(point.cost for point in frontier.points if point.n_bytes <= n_bytes)
