"""Which tokens are scored, from which context."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarion.errors import ParameterError
from clarion.evaluate.chunks import halves, windows


@given(st.integers(4, 40), st.integers(0, 200))
def test_halves_are_those_of_llama_perplexity(context, extra):
    tokens = list(range(100, 100 + 2 * context + extra))
    chunks = list(halves(tokens, context, bos=7))
    assert len(chunks) == len(tokens) // context
    first = context // 2
    for i, chunk in enumerate(chunks):
        whole = tokens[i * context : (i + 1) * context]
        # That program scores rows first to context - 2, of which row j predicts token j + 1.
        assert chunk.targets == [whole[j + 1] for j in range(first, context - 1)]
        assert chunk.first == first
        assert chunk.tokens == [7, *whole[1:-1]]
        assert tokens[chunk.position] == chunk.targets[0]


@given(st.integers(4, 40), st.integers(2, 200), st.data())
def test_windows_score_every_token_but_the_first_once(context, n, data):
    stride = data.draw(st.integers(1, context - 1))
    tokens = list(range(100, 100 + n))
    chunks = list(windows(tokens, context, stride, bos=None))
    assert [target for chunk in chunks for target in chunk.targets] == tokens[1:]
    for i, chunk in enumerate(chunks):
        assert len(chunk.tokens) < context
        assert tokens[chunk.position : chunk.position + len(chunk.targets)] == chunk.targets
        assert len(chunk.tokens) - chunk.first == len(chunk.targets)
        assert chunk.tokens[chunk.first] == chunk.targets[0] - 1
        assert chunk.tokens[-1] == chunk.targets[-1] - 1
        if i:
            assert chunk.first + 1 >= context - stride


def test_bos_takes_the_place_of_the_first_token_of_later_windows():
    chunks = list(windows(list(range(100, 120)), 8, 4, bos=7))
    assert [chunk.tokens[0] for chunk in chunks] == [100, 7, 7, 7]


@pytest.mark.parametrize(
    "make",
    [
        lambda: list(halves([1] * 15, 8, None)),
        lambda: list(halves([1] * 15, 3, None)),
        lambda: list(windows([1], 8, 4, None)),
        lambda: list(windows([1] * 9, 8, 8, None)),
        lambda: list(windows([1] * 9, 8, 0, None)),
    ],
)
def test_what_makes_no_chunks(make):
    with pytest.raises(ParameterError, match="expected"):
        make()
