"""The order of the text: a function of seed and step, in which every pass sees every token once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.zoo.files import numbered
from zoo.order import Order

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=12)


@given(LENGTHS, st.integers(1, 7), st.integers(0, 3))
def test_a_pass_sees_no_token_twice_and_leaves_out_at_most_two_windows(lengths, context, seed):
    tokens = numbered(*lengths)
    if (len(tokens.ids) - 1) // context < 2:
        with pytest.raises(ValueError, match="expected at least"):
            Order(tokens, context, seed)
        return
    order = Order(tokens, context, seed)
    for epoch in range(2):
        seen = order.batch(epoch, order.n_windows)[:, :-1].ravel()
        assert len(set(seen.tolist())) == len(seen)
        assert len(tokens.ids) - len(seen) <= 2 * context


@given(LENGTHS.filter(lambda lengths: sum(lengths) > 20), st.integers(0, 3))
def test_targets_follow_inputs_in_the_shuffled_text(lengths, seed):
    tokens = numbered(*lengths)
    ends = set(tokens.starts[1:].tolist())
    for row in Order(tokens, 4, seed).batch(0, 2):
        for token, following in zip(row[:-1].tolist(), row[1:].tolist(), strict=True):
            # The next token of the same document, or the first of another one.
            assert following == token + 1 or (token + 1 in ends and following in tokens.starts)


def test_batches_depend_on_seed_and_step_alone():
    tokens = numbered(500, 700, 300)
    first = Order(tokens, 16, seed=3)
    wanted = [first.batch(step, 8) for step in range(40)]  # more than three passes
    again = Order(tokens, 16, seed=3)
    for step in (39, 0, 17, 20, 3):
        np.testing.assert_array_equal(again.batch(step, 8), wanted[step])
    assert not np.array_equal(Order(tokens, 16, seed=4).batch(0, 8), wanted[0])


def test_passes_differ():
    order = Order(numbered(500, 700, 300), 16, seed=3)
    n = order.n_windows
    assert not np.array_equal(order.batch(0, n), order.batch(1, n))
    # The text is cut elsewhere, too.
    assert set(order.batch(0, n)[:, 0].tolist()) != set(order.batch(1, n)[:, 0].tolist())
