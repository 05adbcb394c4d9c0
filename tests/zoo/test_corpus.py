"""From xz files to ids."""

from __future__ import annotations

import lzma

import numpy as np
import pytest

from clarion.errors import FileError, FormatError
from clarion.tokenizer import Tokenizer
from tests.zoo.files import write_corpus
from zoo import corpus


def test_documents_end_at_their_marker_and_lose_empty_lines_around_them():
    lines = ["One\n", "\n", "two\n", "<|endoftext|>\n", "\n", "<|endoftext|>\n", "three <|endoftext|>\n"]
    assert list(corpus.documents(iter(lines))) == ["One\n\ntwo", "three <|endoftext|>"]


def test_ids_are_the_tokenizer_s_and_begin_with_token_0(tmp_path):
    folder = write_corpus(tmp_path)
    tokens = corpus.prepare(folder, tmp_path / "cache")["valid"]
    tokenizer = Tokenizer.from_gguf(corpus.TOKENIZER)
    documents = [
        tokenizer.decode(tokens.ids[a + 1 : b].tolist())
        for a, b in zip(tokens.starts[:-1], tokens.starts[1:], strict=True)
    ]
    assert (tokens.ids[tokens.starts[:-1]] == 0).all()
    assert "\n\n".join(documents) + "\n" == corpus.read_text(folder, "valid")
    assert len(documents) == 10


def test_ids_are_made_once_and_again_when_the_text_changes(tmp_path, monkeypatch):
    folder, cache = write_corpus(tmp_path), tmp_path / "cache"
    first = corpus.prepare(folder, cache)["train"]
    with monkeypatch.context() as patch:
        patch.setattr(corpus, "_tokenize", lambda *_: pytest.fail("tokenized again"))
        np.testing.assert_array_equal(corpus.prepare(folder, cache)["train"].ids, first.ids)
    write_corpus(folder, 44)
    assert len(corpus.prepare(folder, cache)["train"].ids) > len(first.ids)


def test_texts_that_cannot_be_read(tmp_path):
    with pytest.raises(FileError, match=r"train\.txt\.xz"):
        corpus.prepare(tmp_path, tmp_path / "cache")
    write_corpus(tmp_path)
    path = tmp_path / "train.txt.xz"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(FileError, match=r"train\.txt\.xz"):
        corpus.prepare(tmp_path, tmp_path / "cache")
    with lzma.open(path, "wt") as file:
        file.write("\n<|endoftext|>\n")
    with pytest.raises(FormatError, match="train holds no text"):
        corpus.prepare(tmp_path, tmp_path / "cache")
