"""A really trained encoder, all-MiniLM-L6-v2, beside what transformers make of real sentences."""

from __future__ import annotations

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

import clarion
from clarion.convert import convert
from clarion.errors import ClosedError, ContextError, ParameterError, UnsupportedError
from tests.end_to_end.sentences import sentences
from tests.real_models import minilm

N = 500
# The texts are whole, and some have more tokens than the 256 that the model was trained with.
CONTEXT = 512


@pytest.fixture(scope="module")
def texts():
    return sentences(N)


@pytest.fixture(scope="module")
def expected(texts):
    with np.load(Path(__file__).parent / "sentences.npz") as golden:
        assert sha256("\0".join(texts).encode()).hexdigest() == golden["digest"], "other sentences"
        vectors = golden["vectors"].astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("minilm")
    found = {}
    for kind in ("f32", "q8_0"):
        found[kind] = folder / f"minilm-{kind}.gguf"
        convert(minilm(), found[kind], type=kind)
    return found


@pytest.fixture(scope="module")
def model(paths):
    with clarion.load(paths["f32"], threads=2, context=CONTEXT) as loaded:
        yield loaded


@pytest.mark.parametrize(
    ("kind", "activations", "least"),
    [("f32", "exact", 0.99999), ("f32", "high", 0.99999), ("q8_0", "high", 0.999), ("q8_0", "fast", 0.997)],
)
def test_vectors_are_those_of_transformers(paths, texts, expected, kind, activations, least):
    with clarion.load(paths[kind], threads=2, context=CONTEXT, activations=activations) as loaded:
        found = loaded.embed(texts)
    assert found.shape == expected.shape
    assert (found * expected).sum(1).min() >= least


def test_a_vector_does_not_depend_on_its_company(model, texts):
    some = texts[:40]
    together = model.embed(some)
    np.testing.assert_array_equal(together, [model.embed(text) for text in some])
    np.testing.assert_array_equal(together, model.embed(some[::-1])[::-1])


def test_neighbours_mean_the_same(model):
    """Which of the texts is nearest to each question."""
    about = [
        "The cat sat on the mat and slept.",
        "Interest rates rose again in March.",
        "Mix the flour with water and a little salt.",
    ]
    questions = ["How do I make bread?", "Where is my pet?", "What do loans cost?"]
    near = (model.embed(questions) @ model.embed(about).T).argmax(1)
    assert near.tolist() == [2, 0, 1]


def test_options(model, texts):
    (vector,) = model.embed(texts[:1])
    assert vector.shape == (384,)
    assert model.embed(texts[0]).shape == (384,)
    raw = model.embed(texts[0], normalize=False)
    np.testing.assert_allclose(raw / np.linalg.norm(raw), vector, atol=1e-6)
    short = model.embed(texts[0], dimensions=64)
    assert short.shape == (64,)
    np.testing.assert_allclose(short, raw[:64] / np.linalg.norm(raw[:64]), atol=1e-6)
    first = model.embed(texts[0], pooling="cls")
    assert (first @ vector) < 0.99
    assert model.embed([]).shape == (0, 384)


def test_refusals(model):
    for wrong, message in (
        ({"pooling": "max"}, "pooling: found 'max'"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": 385}, "dimensions"),
        ({"prompt": "query"}, "prompt: found 'query', expected one that the file names: none"),
    ):
        with pytest.raises(ParameterError, match=message):
            model.embed("a", **wrong)
    with pytest.raises(ParameterError, match="texts: found"):
        model.embed([1.5])
    long = "word " * 600
    with pytest.raises(ContextError, match="text 1: 602 tokens are more than the context of 512"):
        model.embed(["a", long])
    cut = model.embed(["a", long], truncate=True)
    np.testing.assert_array_equal(cut[1], model.embed("word " * 510))
    with pytest.raises(UnsupportedError, match="no classifier"):
        model.rerank("a", ["b"])
    with pytest.raises(UnsupportedError, match="makes vectors of texts"):
        model.generate("a")


def test_texts_are_cut_where_those_of_the_training_were(paths, model):
    """Its positions reach further, and are there for who asks for them."""
    long = "word " * 600
    with clarion.load(paths["f32"], threads=2) as loaded:
        assert loaded.context == 256
        assert loaded.program.hyperparameters.context_length == CONTEXT
        assert loaded.embed("word " * 254).shape == (384,)
        with pytest.raises(ContextError, match="text 0: 257 tokens are more than the context of 256"):
            loaded.embed("word " * 255)
        cut = loaded.embed(long, truncate=True)
        np.testing.assert_array_equal(cut, loaded.embed("word " * 254))
    np.testing.assert_allclose(cut, model.embed("word " * 254), atol=1e-6)
    assert float(cut @ model.embed(long, truncate=True)) < 0.99999


def test_a_model_that_writes_gives_vectors_too():
    with clarion.load(threads=2) as writer:
        found = writer.embed(["Once upon a time", "There was a king", "Once upon a time"])
        assert found.shape == (3, writer.program.hyperparameters.n_embd)
        np.testing.assert_array_equal(found[0], found[2])
        assert abs(float(found[0] @ found[1])) < 0.999
        mean = writer.embed("Once upon a time", pooling="mean")
        assert mean @ found[0] < 0.999
        text = writer.generate("Once upon a time", max_tokens=4, greedy=True).text
        assert text
    with pytest.raises(ClosedError):
        writer.embed("a")


def test_the_command(paths, texts, tmp_path):
    def run(*arguments, text=None):
        command = [sys.executable, "-m", "clarion", *map(str, arguments)]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    one, two = texts[:2]
    lines = [json.loads(line) for line in run("embed", paths["f32"], one, two).splitlines()]
    assert np.shape(lines) == (2, 384)
    by_line = json.loads(run("embed", "-m", paths["f32"], "--json", text=f"{one}\n\n{two}\n"))["embeddings"]
    assert [by_line[0], by_line[2]] == lines  # and between them the vector of the empty line
    run("embed", paths["f32"], one, two, "-o", tmp_path / "vectors.npy")
    np.testing.assert_allclose(np.load(tmp_path / "vectors.npy"), lines, atol=1e-6)
