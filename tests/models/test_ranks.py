"""Models that judge how well a document answers a query, through their face: tiny ones of random weights."""

from __future__ import annotations

import lzma

import numpy as np
import pytest

import clarion
from clarion.errors import ContextError, ModelError, ParameterError, UnsupportedError
from clarion.gguf import File, Writer
from clarion.models.keys import TOKEN_TYPES
from clarion.plan.output import Ranks
from tests.models.test_encoders import FOLDER

TEMPLATE = "tokenizer.chat_template.rerank"
DOCUMENTS = ["the cat", "a hat on the mat", "the cat's hat", "the king and the youngest"]


def unpacked(name, folder):
    path = folder / f"{name}.gguf"
    path.write_bytes(lzma.decompress((FOLDER / f"{name}.gguf.xz").read_bytes()))
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return unpacked("xlm-roberta-classifier", tmp_path_factory.mktemp("ranks"))


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


def test_types_of_tokens_are_refused(tmp_path):
    with (
        clarion.load(unpacked("bert-classifier", tmp_path), threads=1) as model,
        pytest.raises(UnsupportedError, match="trained with 2 types of tokens"),
    ):
        model.rerank("q", ["a"])


def changed(path, out, metadata=(), without=(), tensors=()):
    """The file with other keys and tensors."""
    with File.open(path) as file:
        kept = {key: value for key, value in file.metadata.items() if key not in without}
        writer = Writer(out, kept | dict(metadata))
        for name, tensor in file.tensors.items():
            if name not in dict(tensors):
                writer.add(name, tensor.shape, tensor.format.name, bytes(tensor.view))
        for name, values in dict(tensors).items():
            writer.add(name, values.shape, "F32", values.tobytes())
        writer.close()
    return out


def test_types_of_tokens_are_those_of_the_tensor(tmp_path):
    """Whatever the key says, or where there is none."""
    path = unpacked("bert-classifier", tmp_path)
    silent = changed(path, tmp_path / "silent.gguf", without=[TOKEN_TYPES])
    with (
        clarion.load(silent, threads=1) as model,
        pytest.raises(UnsupportedError, match="trained with 2 types of tokens"),
    ):
        model.rerank("q", ["a"])
    for value in (2.0, True, "2", 1, np.array([2], np.uint32), np.array([2, 2], np.uint32)):
        other = changed(path, tmp_path / "other.gguf", {TOKEN_TYPES: value})
        with pytest.raises(ModelError, match=r"token_type_count is .*'token_types.weight' holds 2"):
            clarion.load(other, threads=1)


def test_a_cut_leaves_what_stands_behind_the_document(path, tmp_path, monkeypatch):
    ended = changed(path, tmp_path / "ended.gguf", {"tokenizer.ggml.add_eos_token": True})
    with clarion.load(ended, threads=1) as model:
        seen = []
        embedder = model._vectors._embedder(Ranks("cls"))
        rows = embedder.rows
        monkeypatch.setattr(embedder, "rows", lambda ids: seen.extend(ids) or rows(ids))
        tokenizer = model.tokenizer
        (end,) = tokenizer.after
        model.rerank("where", ["the cat " * 100], truncate=True)
        (ids,) = seen
        before = [*tokenizer.encode("where"), *tokenizer.between]
        document = tokenizer.encode("the cat " * 100, add_special=False)
        n = model.context - len(before) - 1
        assert ids == [*before, *document[:n], end]


def test_a_query_that_leaves_no_room(path):
    with clarion.load(path, threads=1) as model:
        query = "the cat " * 100
        with pytest.raises(
            ContextError, match=r"document 0: no token of the document fits into the context of 62: the query"
        ):
            model.rerank(query, ["a cat"], truncate=True)
        with pytest.raises(
            ContextError, match=r"document 0: 203 tokens .*2 of the document, 201 of the query"
        ):
            model.rerank(query, ["a cat"])


@pytest.mark.parametrize(
    "documents", [lambda: (text for text in DOCUMENTS), lambda: iter(DOCUMENTS), lambda: tuple(DOCUMENTS)]
)
def test_any_iterable_of_texts(path, documents):
    with clarion.load(path, threads=1) as model:
        np.testing.assert_array_equal(model.rerank("cat", documents()), model.rerank("cat", DOCUMENTS))
        np.testing.assert_array_equal(model.embed(documents()), model.embed(DOCUMENTS))
        assert model.rerank("cat", []).shape == (0,)


@pytest.mark.parametrize("texts", [None, 5, b"abc", [None], ["a", b"b"], 1.5])
def test_what_are_no_texts(path, texts):
    with clarion.load(path, threads=1) as model:
        with pytest.raises(ParameterError, match="texts: found"):
            model.embed(texts)
        with pytest.raises(ParameterError, match="documents: found"):
            model.rerank("q", texts)
        for prompt in (5, [], {}, b"query"):
            with pytest.raises(ParameterError, match="prompt: found"):
                model.embed("a", prompt=prompt)
        for pooling in (5, [], np.zeros(2), "max"):
            with pytest.raises(ParameterError, match="pooling: found"):
                model.embed("a", pooling=pooling)


# ---- a model that judges in words -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """Makes a file that judges behind a template: the model that comes with Clarion, with two rows as its
    classifier."""
    folder = tmp_path_factory.mktemp("judge")
    with clarion.load(threads=1) as model:
        source, width = model.path, model.program.hyperparameters.n_embd
    rows = np.random.default_rng(0).normal(size=(2, width)).astype(np.float32) / 100

    def make(template):
        keys = {TEMPLATE: template, "llama.pooling_type": 4}
        return changed(source, folder / "judge.gguf", keys, tensors={"cls.output.weight": rows})

    return make


@pytest.mark.parametrize(
    "template",
    [
        "no places",
        "",
        "{query} alone",
        "{document} alone",
        "{query}{query}{document}",
        "{query}{document}{document}",
    ],
)
def test_a_template_without_its_places(judge, template):
    with (
        clarion.load(judge(template), threads=1) as model,
        pytest.raises(
            ModelError, match=r"tokenizer\.chat_template\.rerank is .*\{query\} and \{document\} once each"
        ),
    ):
        model.rerank("q", ["a"])


def test_a_template_that_is_no_text(judge):
    with (
        clarion.load(judge(7), threads=1) as model,
        pytest.raises(ModelError, match=r"tokenizer\.chat_template\.rerank is 7"),
    ):
        model.rerank("q", ["a"])


@pytest.mark.parametrize("template", ["Q {query} D {document} A:", "D {document} Q {query} A:"])
def test_both_orders_and_what_is_cut(judge, template):
    """The scores of a document that is cut are those of its beginning: what stands behind it is not cut."""
    with clarion.load(judge(template), threads=1, context=64) as model:
        whole = "cat " * 300
        (found,) = model.rerank("the king", [whole], truncate=True)
        ids = model._vectors._pair(model.tokenizer, "the king", whole)
        room = 64 - len(ids.before) - len(ids.after)
        assert 0 < room < len(ids.text)
        embedder = model._vectors._embedder(Ranks("last"))
        no, yes = embedder.rows([[*ids.before, *ids.text[:room], *ids.after]])[0][::-1]
        np.testing.assert_allclose(found, 1 / (1 + np.exp(no - yes)), rtol=1e-6)
        first, second = model.rerank("the king", ["a cat", "a dog"])
        assert first != second
        assert model.rerank("a queen", ["a cat"])[0] != first
