"""Checkpoints of models that make vectors and scores: what stands beside the model, and what it becomes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import clarion
from clarion.convert import convert, sentences
from clarion.convert.checkpoint import Checkpoint
from clarion.errors import FormatError, ModelError, TokenizerError, UnsupportedError
from clarion.gguf import File, Writer
from tests.convert.files import unpack

PROMPTS = {"query": "Find what answers: ", "document": ""}


@pytest.fixture
def checkpoint(tmp_path):
    """Qwen 3, as one that makes vectors is published: no head, and no `model.` before names."""
    return unpack("qwen3-fp8", tmp_path / "checkpoint")


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


def metadata(folder, tmp_path):
    """That of the file which the checkpoint becomes, as far as it is no array."""
    path = tmp_path / "converted.gguf"
    convert(folder, path)
    with File.open(path) as file:
        return {key: value for key, value in file.metadata.items() if isinstance(value, str | int | float)}


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
    "mode",
    [
        {"pooling_mode": "mean"},
        {"pooling_mode": ["mean"]},
        {"pooling_mode": "mean", "include_prompt": True},
        {"pooling_mode": "mean", "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False},
    ],
)
def test_the_names_of_a_pooling(checkpoint, tmp_path, mode):
    beside(checkpoint, mode)
    assert metadata(checkpoint, tmp_path)["qwen3.pooling_type"] == 1


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ({"pooling_mode_max_tokens": True}, r"pooling_mode is \['pooling_mode_max_tokens'\], supported"),
        ({}, r"pooling_mode is \[\], supported: one of mean, cls, lasttoken"),
        ({"pooling_mode": "weightedmean"}, "pooling_mode is"),
        ({"pooling_mode": ["mean", "cls"]}, "pooling_mode is"),
        ({"pooling_mode": [["mean"]]}, "pooling_mode is"),
        ({"pooling_mode": 1}, "pooling_mode is 1"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "pooling_mode is"),
        ({"pooling_mode": "mean", "include_prompt": False}, "include_prompt is False, supported: True"),
    ],
)
def test_other_poolings_are_refused(checkpoint, tmp_path, mode, message):
    beside(checkpoint, mode)
    with pytest.raises(UnsupportedError, match=message):
        convert(checkpoint, tmp_path / "vectors.gguf")


@pytest.mark.parametrize(
    "mode",
    [
        {"pooling_mode": "mean", "pooling_mode_cls_token": True},
        {"pooling_mode": "mean", "pooling_mode_mean_tokens": False},
        {"pooling_mode": "cls", "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
        {"pooling_mode_mean_tokens": 1},
    ],
)
def test_a_pooling_that_contradicts_itself(checkpoint, tmp_path, mode):
    beside(checkpoint, mode)
    with pytest.raises(ModelError, match=r"1_Pooling/config\.json: pooling_mode.* is .*, expected"):
        convert(checkpoint, tmp_path / "vectors.gguf")


def modules(folder, *named):
    """Writes modules.json with these behind the model and its pooling: each a name and a path."""
    of_model = ("Transformer", ""), ("Pooling", "1_Pooling")
    entries = [
        {"idx": i, "path": path, "type": name if "." in name else f"sentence_transformers.models.{name}"}
        for i, (name, path) in enumerate([*of_model, *named])
    ]
    (folder / "modules.json").write_text(json.dumps(entries))


def test_modules_that_change_nothing(checkpoint, tmp_path):
    beside(checkpoint, {"pooling_mode": "mean"})
    plain = metadata(checkpoint, tmp_path)
    modules(checkpoint, ("Dropout", "2_Dropout"), ("Normalize", "3_Normalize"))
    assert metadata(checkpoint, tmp_path) == plain


@pytest.mark.parametrize(
    "named",
    [
        [("LayerNorm", "2_LayerNorm")],
        [("WeightedLayerPooling", "2_Weighted")],
        [("LSTM", "2_LSTM")],
        [("CNN", "2_CNN")],
        [("sentence_transformers.sparse_encoder.models.SpladePooling", "2_SpladePooling")],
        [("custom.Normalize", "2_Normalize")],
        [("Pooling", "1_Pooling")],
        [("Transformer", "")],
        [("Normalize", "2_Normalize"), ("Dense", "3_Dense")],  # of a vector of length 1
        [("Dense", "heads")],
        [("Transformers", "2_x")],
    ],
)
def test_other_modules_are_refused(checkpoint, tmp_path, named):
    beside(checkpoint, {"pooling_mode": "mean"})
    modules(checkpoint, *named)
    name = named[-1][0].rpartition(".")[2]
    with pytest.raises(
        UnsupportedError, match=rf"modules\.json: module {len(named) + 1} (is .*{name}|has path)"
    ):
        convert(checkpoint, tmp_path / "vectors.gguf")


def test_a_model_in_a_folder_of_its_own_is_refused(checkpoint, tmp_path):
    entry = {"idx": 0, "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}
    (checkpoint / "modules.json").write_text(json.dumps([entry]))
    with pytest.raises(UnsupportedError, match="module 0 has path '0_Transformer', supported: ''"):
        convert(checkpoint, tmp_path / "vectors.gguf")


@pytest.mark.parametrize("path", ["pooling", "1_Pooling", "my pooling", "..pooling", "Größe"])
def test_any_folder_of_the_checkpoint_may_hold_a_module(checkpoint, tmp_path, path):
    beside(checkpoint, {"pooling_mode": "cls"})
    (checkpoint / "1_Pooling").rename(checkpoint / path)
    entry = {"idx": 1, "path": path, "type": "sentence_transformers.models.Pooling"}
    (checkpoint / "modules.json").write_text(json.dumps([entry]))
    assert metadata(checkpoint, tmp_path)["qwen3.pooling_type"] == 2


@pytest.mark.parametrize(
    "path", ["..", ".", "../up", "a/b", "a\\b", "/etc", "a\0b", "x" * 5000, "\ud800", "", 7, None]
)
def test_no_module_lies_elsewhere(checkpoint, tmp_path, path):
    beside(checkpoint, {"pooling_mode": "mean"})
    (checkpoint.parent / "up").mkdir()
    (checkpoint.parent / "up" / "config.json").write_text('{"pooling_mode": "cls"}')
    entry = {"idx": 1, "path": path, "type": "sentence_transformers.models.Pooling"}
    (checkpoint / "modules.json").write_text(json.dumps([entry]))
    with pytest.raises(FormatError, match=r"module 0 has path .*, expected the name of a folder beside it"):
        convert(checkpoint, tmp_path / "vectors.gguf")


@pytest.mark.parametrize("name", ["../config.json", "./config.json", "/etc/config.json", "notes.txt", "a\0b"])
def test_only_files_of_a_checkpoint_are_read(checkpoint, name):
    with pytest.raises(FormatError, match="no file of a checkpoint is called"):
        Checkpoint(checkpoint).raw(name)


@pytest.mark.parametrize(
    "prompts",
    [{"query": 7}, [], False, "x", {"": "a"}, {"\ud800": "a"}, {"query": "\ud800"}],
)
def test_prompts_that_are_none(checkpoint, tmp_path, prompts):
    beside(checkpoint, {"pooling_mode": "mean"}, prompts)
    with pytest.raises(FormatError, match="prompts is"):
        convert(checkpoint, tmp_path / "vectors.gguf")


def settings(folder, name, **values):
    """Changes a file of the checkpoint, which need not be there."""
    path = folder / name
    found = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(found | values))


def test_the_prompt_of_texts_of_which_nobody_says_it(checkpoint, tmp_path):
    beside(checkpoint, {"pooling_mode": "mean"}, PROMPTS)
    settings(checkpoint, "config_sentence_transformers.json", default_prompt_name="query")
    path = tmp_path / "vectors.gguf"
    convert(checkpoint, path)
    with clarion.load(path, threads=1) as model:
        found, plain = model.embed("the cat"), model.embed("the cat", prompt="")
        np.testing.assert_array_equal(found, model.embed("the cat", prompt="query"))
        np.testing.assert_array_equal(found, model.embed("Find what answers: the cat", prompt=""))
        assert abs(float(plain @ found)) < 0.9999


def test_a_default_prompt_that_is_none(checkpoint, tmp_path):
    beside(checkpoint, {"pooling_mode": "mean"}, PROMPTS)
    for name in (None, "document"):  # which is empty
        settings(checkpoint, "config_sentence_transformers.json", default_prompt_name=name)
        assert not any("default_prompt" in key for key in metadata(checkpoint, tmp_path))
    for name in ("other", 7, [], False):
        settings(checkpoint, "config_sentence_transformers.json", default_prompt_name=name)
        with pytest.raises(
            FormatError, match=r"default_prompt_name is .*, expected of prompts 'query', 'doc"
        ):
            convert(checkpoint, tmp_path / "vectors.gguf")


def test_texts_are_as_long_as_their_authors_say(checkpoint, tmp_path):
    """The file keeps what the model was made for, and a shorter length of texts beside it."""
    beside(checkpoint, {"pooling_mode": "mean"})
    made_for = json.loads((checkpoint / "config.json").read_text())["max_position_embeddings"]
    path = tmp_path / "vectors.gguf"

    def found():
        convert(checkpoint, path)
        with clarion.load(path, threads=1) as model:
            assert model.metadata["qwen3.context_length"] == made_for
            return model.context

    settings(checkpoint, "tokenizer_config.json", model_max_length=10**30)
    assert found() == made_for
    settings(checkpoint, "tokenizer_config.json", model_max_length=20)
    assert found() == 20
    settings(checkpoint, "sentence_bert_config.json", max_seq_length=None)
    assert found() == 20
    settings(checkpoint, "sentence_bert_config.json", max_seq_length=12, do_lower_case=False)
    assert found() == 12
    with clarion.load(path, threads=1, context=24) as model:
        assert model.context == 24
    settings(checkpoint, "sentence_bert_config.json", max_seq_length=2 * made_for)
    assert found() == made_for
    (checkpoint / "sentence_bert_config.json").rename(checkpoint / "sentence_xlnet_config.json")
    settings(checkpoint, "sentence_xlnet_config.json", max_seq_length=13)
    assert found() == 13


@pytest.mark.parametrize("length", [0, -1, "x", 1.5, [], 2**40])
def test_a_length_of_texts_that_is_none(checkpoint, tmp_path, length):
    beside(checkpoint, {"pooling_mode": "mean"})
    settings(checkpoint, "sentence_bert_config.json", max_seq_length=length)
    with pytest.raises(
        ModelError, match=r"sentence_bert_config\.json: max_seq_length is .*, expected a whole"
    ):
        convert(checkpoint, tmp_path / "vectors.gguf")


def test_texts_in_small_letters(checkpoint, tmp_path):
    """Only a tokenizer makes them so."""
    beside(checkpoint, {"pooling_mode": "mean"})
    settings(checkpoint, "sentence_bert_config.json", do_lower_case=True)
    with pytest.raises(
        UnsupportedError, match=r"sentence_bert_config\.json: do_lower_case is True, supported"
    ):
        convert(checkpoint, tmp_path / "vectors.gguf")
    model = {"general.architecture": "bert", "bert.context_length": 512}
    lowers = {"tokenizer.ggml.model": "bert", "tokenizer.ggml.normalizer.lowercase": True}
    assert sentences.convert(Checkpoint(checkpoint), model, lowers) == {"bert.pooling_type": 1}


@pytest.mark.parametrize(("key", "value"), [("text_length", 0), ("text_length", [8]), ("default_prompt", 3)])
def test_a_file_that_states_them_wrongly(checkpoint, tmp_path, key, value):
    beside(checkpoint, {"pooling_mode": "mean"})
    path, other = tmp_path / "vectors.gguf", tmp_path / "other.gguf"
    convert(checkpoint, path)
    with (
        File.open(path) as file,
        Writer(other, {**file.metadata, f"tokenizer.clarion.{key}": value}) as writer,
    ):
        for tensor in file.tensors.values():
            writer.add(tensor.name, tensor.shape, tensor.format, tensor.view)

    def embed():
        with clarion.load(other, threads=1) as model:
            model.embed("the cat")

    with pytest.raises(TokenizerError, match=rf"tokenizer\.clarion\.{key} is"):
        embed()


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
