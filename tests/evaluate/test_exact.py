"""The float64 evaluator against Hugging Face transformers, and against the engine."""

import numpy as np
import pytest

import clarion
from clarion.evaluate.exact import Exact
from clarion.gguf import File
from clarion.model import open_file
from tests.models.files import NAMES, expected, nmse, unpack

BOUND = 1e-12  # transformers keeps norms, softmax and rotations in float32


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_transformers(name, tmp_path):
    ids, wanted = expected(name)
    with File.open(unpack(name, tmp_path)) as file:
        exact = Exact(file, len(ids))
        found = exact.logits(ids)
        assert found.dtype == np.float64
        assert nmse(found, wanted) < BOUND
        np.testing.assert_allclose(exact.logits(ids, 20), found[20:], rtol=1e-9, atol=1e-9)


def test_the_engine_comes_near():
    ids = np.random.default_rng(0).integers(0, 4096, 64)
    with open_file() as file:
        wanted = Exact(file, 64).logits(ids)
    for activations, bound in (("exact", 1e-11), ("high", 1e-7), ("fast", 1e-3)):
        with clarion.load(activations=activations, threads=1) as model:
            assert 0 < nmse(model.logits(ids), wanted) < bound
