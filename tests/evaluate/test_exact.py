"""The float64 evaluator against Hugging Face transformers, and against the engine."""

import numpy as np
import pytest

import clarion
from clarion.evaluate.exact import Exact
from clarion.gguf import File
from clarion.plan.observe import SquareSums
from clarion.programs import open_file
from tests.models.files import NAMES, context, expected, nmse, unpack

BOUND = 1e-12  # transformers keeps norms, softmax and rotations in float32


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_transformers(name, tmp_path):
    ids, wanted = expected(name)
    with File.open(unpack(name, tmp_path)) as file:
        exact = Exact(file, context=context(name))
        found = exact.logits(ids)
        assert found.dtype == np.float64
        assert nmse(found, wanted) < BOUND
        np.testing.assert_allclose(exact.logits(ids, 20), found[20:], rtol=1e-9, atol=1e-9)


def test_the_engine_comes_near():
    ids = np.random.default_rng(0).integers(0, 4096, 64)
    with open_file() as file:
        wanted = Exact(file).logits(ids)
    for activations, bound in (("exact", 1e-11), ("high", 1e-7), ("fast", 1e-3)):
        with clarion.load(activations=activations, threads=1) as model:
            assert 0 < nmse(model.logits(ids), wanted) < bound


def test_sums_of_squares_are_those_of_the_input(tmp_path):
    """Of the first matrix, whose input is the norm of an embedding."""
    ids, _ = expected("llama-mha")
    squares = SquareSums(lambda name: name == "blk.0.attn_q.weight")
    with File.open(unpack("llama-mha", tmp_path)) as file:
        found = Exact(file, observe=squares).run(ids)
        table, gain = (file.tensors[f"{name}.weight"] for name in ("token_embd", "blk.0.attn_norm"))
        x = np.asarray(table.data).view(np.float32).reshape(table.shape)[ids].astype(np.float64)
        eps = file.metadata["llama.attention.layer_norm_rms_epsilon"]
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * np.asarray(gain.data).view(np.float32)
    where = squares.found["blk.0.attn_q.weight"]
    np.testing.assert_allclose(found[where.sums], (x * x).sum(0)[None], rtol=1e-12)
    assert found[where.counts].tolist() == [[len(ids)]]
