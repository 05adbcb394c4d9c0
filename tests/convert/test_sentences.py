"""Checkpoints of models that make vectors and scores: what stands beside the model, and what it becomes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import clarion
from clarion.convert import convert
from clarion.errors import FormatError, UnsupportedError
from clarion.gguf import File
from tests.convert.files import unpack

PROMPTS = {"query": "Find what answers: ", "document": ""}


@pytest.fixture
def checkpoint(tmp_path):
    """Qwen 3, as one that makes vectors is published: no head, and no `model.` before names."""
    return unpack("qwen3-fp8", tmp_path)


def beside(folder, mode, prompts=None):
    modules = [
        {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(mode))
    if prompts is not None:
        settings = {"prompts": prompts}
        (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))


def test_pooling_and_prompts(checkpoint, tmp_path):
    beside(checkpoint, {"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, PROMPTS)
    path = tmp_path / "vectors.gguf"
    convert(checkpoint, path)
    with clarion.load(path, threads=1) as model:
        assert model.metadata["qwen3.pooling_type"] == 3
        plain, asked = model.embed("the cat"), model.embed("the cat", prompt="query")
        np.testing.assert_array_equal(asked, model.embed("Find what answers: the cat"))
        assert abs(float(plain @ asked)) < 0.9999
        with pytest.raises(clarion.errors.ParameterError, match="one that the file names: query"):
            model.embed("the cat", prompt="document")
        with pytest.raises(UnsupportedError, match="makes vectors of texts"):
            model.generate("the cat")


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ({"pooling_mode_max_tokens": True}, "pools by"),
        ({}, "pools by"),
        ({"pooling_mode": "weightedmean"}, "pools by"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "pools by"),
    ],
)
def test_other_poolings_are_refused(checkpoint, tmp_path, mode, message):
    beside(checkpoint, mode)
    with pytest.raises(UnsupportedError, match=message):
        convert(checkpoint, tmp_path / "vectors.gguf")


def test_prompts_that_are_none(checkpoint, tmp_path):
    beside(checkpoint, {"pooling_mode": "mean"}, {"query": 7})
    with pytest.raises(FormatError, match="prompts is"):
        convert(checkpoint, tmp_path / "vectors.gguf")


def test_a_judge_in_words(checkpoint, tmp_path):
    """The score is the probability of "yes" against "no" behind the template, as the whole head gives it."""
    config = json.loads((checkpoint / "config.json").read_text()) | {"max_position_embeddings": 512}
    (checkpoint / "config.json").write_text(json.dumps(config))
    folder = tmp_path / "Qwen3-Reranker-0.0B"
    shutil.copytree(checkpoint, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    ids = tokenizer["model"]["vocab"]
    yes, no = ids["the"], ids["at"]
    ids["yes"], ids["no"] = ids.pop("the"), ids.pop("at")
    merges = [m for m in tokenizer["model"]["merges"] if "".join(m).replace(" ", "") not in ("the", "at")]
    parts = ("the", "at")
    tokenizer["model"]["merges"] = [
        m for m in merges if not set(m if isinstance(m, list) else m.split()) & set(parts)
    ]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    judge, writer = tmp_path / "judge.gguf", tmp_path / "writer.gguf"
    convert(folder, judge, type="f32")
    convert(checkpoint, writer, type="f32")
    with File.open(judge) as file:
        assert file.metadata["qwen3.pooling_type"] == 4
        template = file.metadata["tokenizer.chat_template.rerank"]
    with (
        clarion.load(judge, threads=1, activations="exact") as model,
        clarion.load(writer, threads=1, activations="exact") as other,
    ):
        found = model.rerank("a cat?", ["hat", "mat"])
        for score, document in zip(found, ("hat", "mat"), strict=True):
            before, _, rest = template.partition("{query}")
            between, _, after = rest.partition("{document}")
            ids = []
            for i, text in enumerate((before, "a cat?", between, document, after)):
                ids += model.tokenizer.encode(text, add_special=False, parse_special=i % 2 == 0)
            logits = other.logits(ids)[-1]
            wanted = 1 / (1 + np.exp(logits[no] - logits[yes]))
            assert abs(score - wanted) < 1e-5
