"""A program of one's own computes what the engine computes, whatever its batches, and with other weights."""

import numpy as np
import pytest

import clarion
from clarion.errors import ContextError, ParameterError
from clarion.programs import make_program, open_file
from clarion.residency import Mapped, Replaced, Store
from clarion.runtime.executor import Executor

TOKENS = np.random.default_rng(0).integers(0, 4096, 50).tolist()


def executor_of(file, batch=32, outputs=32, policy=None):
    program = make_program(file, context=64, batch=batch, outputs=outputs)
    return Executor(program, Store(program.weights, policy or Mapped(file.tensors)), threads=1)


@pytest.mark.parametrize("batch", [7, 50, 64])
@pytest.mark.parametrize("first", [0, 13, 49, 50])
def test_logits_are_the_engines(batch, first):
    with open_file() as file, clarion.load(threads=1, context=64) as model:
        found = executor_of(file, batch, batch).logits(TOKENS, first)
        np.testing.assert_array_equal(found, model.logits(TOKENS, first=first))


def test_batches_are_named_by_their_wanted_rows():
    with open_file() as file:
        executor = executor_of(file)
        assert list(executor.each_batch(TOKENS, 10)) == [slice(10, 32), slice(32, 50)]
        assert list(executor.each_batch(TOKENS, 40)) == [slice(32, 32), slice(40, 50)]


def test_replaced_weights_are_read():
    name = "blk.2.ffn_down.weight"
    with open_file() as file:
        weights = Replaced(file.tensors)
        executor = executor_of(file, policy=weights)
        before = executor.logits(TOKENS)
        zeros = np.zeros(file.tensors[name].n_bytes, np.uint8)
        weights.use({name: zeros})
        assert not (executor.logits(TOKENS) == before).all()
        weights.use({})
        np.testing.assert_array_equal(executor.logits(TOKENS), before)


def test_what_does_not_fit():
    with open_file() as file:
        with pytest.raises(ParameterError, match="outputs"):
            list(executor_of(file, outputs=31).each_batch([0]))
        with pytest.raises(ContextError, match=r"65 tokens .* context of 64"):
            list(executor_of(file).each_batch([0] * 65))


def test_vectors_cannot_be_replaced():
    """Programs have read them when they were built."""
    name = "blk.2.ffn_norm.weight"
    with open_file() as file:
        weights = Replaced(file.tensors)
        executor_of(file, policy=weights)
        with pytest.raises(ValueError, match=f"'{name}': found a vector"):
            weights.use({name: np.zeros(file.tensors[name].n_bytes, np.uint8)})
