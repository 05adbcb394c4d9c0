"""A program of one's own computes what the engine computes, whatever its batches, and with other weights."""

import numpy as np
import pytest

import clarion
from clarion.errors import ContextError, ParameterError
from clarion.model import make_program, open_file
from clarion.residency import Mapped, Replaced
from clarion.runtime.executor import Executor

TOKENS = np.random.default_rng(0).integers(0, 4096, 50).tolist()


def program(file, batch=32, outputs=32):
    return make_program(file, context=64, batch=batch, outputs=outputs)


@pytest.mark.parametrize("batch", [7, 50, 64])
@pytest.mark.parametrize("first", [0, 13, 49, 50])
def test_logits_are_the_engines(batch, first):
    with open_file() as file, clarion.load(threads=1, context=64) as model:
        found = Executor(program(file, batch, batch), Mapped(file.tensors), threads=1).logits(TOKENS, first)
        np.testing.assert_array_equal(found, model.logits(TOKENS, first=first))


def test_batches_are_named_by_their_wanted_rows():
    with open_file() as file:
        executor = Executor(program(file), Mapped(file.tensors), threads=1)
        assert list(executor.each_batch(TOKENS, 10)) == [slice(10, 32), slice(32, 50)]
        assert list(executor.each_batch(TOKENS, 40)) == [slice(32, 32), slice(40, 50)]


def test_replaced_weights_are_read():
    name = "blk.2.ffn_down.weight"
    with open_file() as file:
        executor = Executor(program(file), Mapped(file.tensors), threads=1)
        before = executor.logits(TOKENS)
        zeros = np.zeros(file.tensors[name].n_bytes, np.uint8)
        executor.use(Replaced(Mapped(file.tensors), {name: zeros}))
        assert not (executor.logits(TOKENS) == before).all()
        executor.use(Mapped(file.tensors))
        np.testing.assert_array_equal(executor.logits(TOKENS), before)


def test_what_does_not_fit():
    with open_file() as file:
        with pytest.raises(ParameterError, match="outputs"):
            list(Executor(program(file, outputs=31), Mapped(file.tensors), threads=1).each_batch([0]))
        with pytest.raises(ContextError, match=r"65 tokens .* context of 64"):
            list(Executor(program(file), Mapped(file.tensors), threads=1).each_batch([0] * 65))
