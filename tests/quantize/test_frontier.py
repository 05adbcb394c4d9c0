"""The frontier, against all mixtures there are."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarion.errors import ParameterError
from clarion.quantize.frontier import Choice, Frontier, hull

choices = st.lists(
    st.builds(Choice, st.sampled_from("abcde"), st.integers(1, 60), st.integers(0, 60).map(float)),
    min_size=1,
    max_size=4,
)
matrices = st.lists(choices, min_size=1, max_size=4)


def least_cost(matrices, n_bytes):
    """Of every mixture that fits; None if there is none."""
    costs = [
        sum(choice.cost for choice in mixture)
        for mixture in product(*matrices)
        if sum(choice.n_bytes for choice in mixture) <= n_bytes
    ]
    return min(costs, default=None)


@given(choices)
def test_a_hull_is_convex_and_leaves_nothing_below_it(found):
    kept = hull(found)
    assert set(kept) <= set(found)
    for a, b in zip(kept, kept[1:], strict=False):
        assert a.n_bytes < b.n_bytes
        assert a.cost > b.cost
    for choice in found:
        for price in (0.01, 0.3, 1.0, 3.0, 100.0):
            assert min(c.cost + price * c.n_bytes for c in kept) <= choice.cost + price * choice.n_bytes


@settings(max_examples=200)
@given(matrices)
def test_every_point_is_the_best_mixture_of_its_size(found):
    frontier = Frontier(found)
    for point in frontier.points:
        assert point.cost == least_cost(found, point.n_bytes)
        chosen = frontier.within(point.n_bytes)
        assert sum(choice.cost for choice in chosen) <= point.cost
    sizes = [point.n_bytes for point in frontier.points]
    assert sizes == sorted(sizes)


@settings(max_examples=200)
@given(matrices, st.integers(0, 250))
def test_a_budget_is_kept_and_used(found, n_bytes):
    frontier = Frontier(found)
    least = sum(min(choice.n_bytes for choice in matrix) for matrix in found)
    if n_bytes < least:
        with pytest.raises(ParameterError, match=rf"smallest mixture, {least}"):
            frontier.within(n_bytes)
        return
    chosen = frontier.within(n_bytes)
    assert all(choice in matrix for choice, matrix in zip(chosen, found, strict=True))
    assert sum(choice.n_bytes for choice in chosen) <= n_bytes
    cost = sum(choice.cost for choice in chosen)
    assert cost >= least_cost(found, n_bytes)
    assert cost <= min(point.cost for point in frontier.points if point.n_bytes <= n_bytes)
