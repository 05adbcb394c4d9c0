"""Models that judge how well a document answers a query, through their face: tiny ones of random weights."""

from __future__ import annotations

import lzma

import numpy as np
import pytest

import clarion
from clarion.errors import ContextError, ParameterError
from tests.models.test_encoders import FOLDER

DOCUMENTS = ["the cat", "a hat on the mat", "the cat's hat", "the king and the youngest"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("ranks") / "judge.gguf"
    path.write_bytes(lzma.decompress((FOLDER / "xlm-roberta-classifier.gguf.xz").read_bytes()))
    return path


def test_scores_are_those_of_the_pairs(path):
    with clarion.load(path, threads=1, activations="exact") as model:
        scores = model.rerank("where is the cat", DOCUMENTS)
        assert scores.shape == (4,)
        alone = [float(model.rerank("where is the cat", [document])[0]) for document in DOCUMENTS]
        np.testing.assert_array_equal(scores, np.float32(alone))
        assert len(set(alone)) == 4
        assert model.rerank("another question", DOCUMENTS).tolist() != alone
        vectors = model.embed(DOCUMENTS)
        assert vectors.shape == (4, 32)


def test_what_is_refused(path):
    with clarion.load(path, threads=1) as model:
        with pytest.raises(ParameterError, match="documents: found 'a'"):
            model.rerank("q", "a")
        with pytest.raises(ParameterError, match="query: found 7"):
            model.rerank(7, ["a"])
        with pytest.raises(ContextError, match=r"document 1: \d+ tokens are more than the context"):
            model.rerank("q", ["a", "the cat " * 100])
        assert np.isfinite(model.rerank("q", ["a", "the cat " * 100], truncate=True)).all()
