"""What stands around a text, and spaces before it: as the checkpoint's own tokenizer has it."""

import json

import numpy as np
import pytest
from tokenizers import AddedToken, processors

import clarion
from clarion.convert import convert
from clarion.errors import ModelError, TokenizerError, UnsupportedError
from clarion.gguf import File, Writer
from tests.convert.checkpoints import (
    around,
    bytes_tokenizer,
    converted,
    differences,
    metaspace,
    sentencepiece_model,
    text_tokenizer,
    write,
)

TEXTS = ["", "a", " a", "  the king", "\n", "<|eot|>", "a <|begin|> b<|end|>"]
SINGLES = [
    "$A",
    "<|begin|> $A",
    "$A <|end|>",
    "<|begin|> $A <|end|>",
    "<|begin|> <|eot|> $A",
    "<|eot|> $A",
    "<|eot|> $A <|eot|>",
    "$A <|end|> <|eot|>",
    "<|begin|> <|begin|> $A",
]
NAMES = [
    {},
    {"bos_token": "<|begin|>", "eos_token": "<|end|>"},
    {"bos_token": "<|end|>", "eos_token": "<|begin|>"},
    {"add_bos_token": True, "bos_token": "<|begin|>"},
    {"add_bos_token": False, "add_eos_token": True, "eos_token": "<|end|>"},
]


@pytest.mark.parametrize("single", SINGLES)
@pytest.mark.parametrize("names", NAMES)
def test_the_template_is_the_truth(tmp_path, single, names):
    tokenizer = around(bytes_tokenizer(), single)
    assert differences(converted(tmp_path, tokenizer, names), tokenizer, TEXTS) == []


def bert(tokenizer, kind):
    end, begin = ((text, tokenizer.token_to_id(text)) for text in ("<|end|>", "<|begin|>"))
    tokenizer.post_processor = kind(end, begin)
    return tokenizer


@pytest.mark.parametrize("kind", [processors.BertProcessing, processors.RobertaProcessing])
def test_other_post_processors(tmp_path, kind):
    tokenizer = bert(bytes_tokenizer(), kind)
    assert differences(converted(tmp_path, tokenizer), tokenizer, TEXTS) == []


def test_a_template_inside_a_sequence(tmp_path):
    tokenizer = around(bytes_tokenizer(), "<|begin|> $A")
    template = tokenizer.post_processor
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), template])
    path = converted(tmp_path, tokenizer)
    assert differences(path, tokenizer, TEXTS) == []
    assert clarion.Tokenizer.from_gguf(path).bos == tokenizer.token_to_id("<|begin|>")


def test_a_template_that_is_no_frame_is_refused(tmp_path):
    tokenizer = bytes_tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A $A", special_tokens=[])
    with pytest.raises(
        UnsupportedError, match=r"tokenizer\.json: the post_processor's template has the text 2 times"
    ):
        converted(tmp_path, tokenizer)


def test_one_bos_and_one_eos_need_no_keys_of_our_own(tmp_path):
    tokenizer = around(bytes_tokenizer(), "<|begin|> $A <|end|>")
    with File.open(converted(tmp_path, tokenizer, {"eos_token": "<|end|>"})) as file:
        values = file.metadata
        assert values["tokenizer.ggml.add_bos_token"]
        assert values["tokenizer.ggml.add_eos_token"]
        assert values.int("tokenizer.ggml.bos_token_id") == tokenizer.token_to_id("<|begin|>")
        assert not {f"tokenizer.clarion.{side}_token_ids" for side in ("before", "after")} & set(values)


@pytest.mark.parametrize(
    "content", ["<|begin|>", {"content": "<|begin|>", "lstrip": False, "rstrip": False, "normalized": False}]
)
def test_bos_in_special_tokens_map_alone(tmp_path, content):
    tokenizer = around(bytes_tokenizer(), "<|begin|> $A")
    files = {"special_tokens_map.json": json.dumps({"bos_token": content, "eos_token": "<|eot|>"})}
    path = converted(tmp_path, tokenizer, {}, files=files, bos_token_id=1)
    ours = clarion.Tokenizer.from_gguf(path)
    assert (ours.bos, ours.eos) == tuple(map(tokenizer.token_to_id, ("<|begin|>", "<|eot|>")))
    assert differences(path, tokenizer, TEXTS) == []


def test_bos_that_only_the_template_names(tmp_path):
    """The model's configuration has a number that transformers write where nobody set it."""
    tokenizer = around(bytes_tokenizer(), "<|begin|> $A")
    path = converted(tmp_path, tokenizer, {"eos_token": "<|end|>"}, bos_token_id=1)
    assert clarion.Tokenizer.from_gguf(path).encode("a")[0] == tokenizer.token_to_id("<|begin|>")


def test_a_number_for_bos_that_is_none(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json: bos_token_id is 100000"):
        converted(tmp_path, bytes_tokenizer(), bos_token_id=100_000)


@pytest.mark.parametrize(
    "flags", [{}, {"add_bos_token": True}, {"add_bos_token": False, "add_eos_token": True}]
)
def test_flags_hold_where_there_is_no_template_file(tmp_path, flags):
    tokenizer = bytes_tokenizer()
    model = json.loads(tokenizer.to_str())["model"]
    files = {
        "vocab.json": json.dumps(model["vocab"]),
        "merges.txt": "\n".join(map(" ".join, model["merges"])),
    }
    decoder = {
        token: {"content": entry.content, "special": True}
        for token, entry in tokenizer.get_added_tokens_decoder().items()
    }
    settings = {"bos_token": "<|begin|>", "eos_token": "<|end|>", "added_tokens_decoder": decoder, **flags}
    path = converted(tmp_path, tokenizer, settings, files={"tokenizer.json": None, **files})
    before = "<|begin|> " if flags.get("add_bos_token") else ""
    single = f"{before}$A <|end|>" if flags.get("add_eos_token") else f"{before}$A"
    assert differences(path, around(tokenizer, single), TEXTS) == []


def test_a_flag_for_a_token_that_nothing_names(tmp_path):
    tokenizer = bytes_tokenizer()
    model = json.loads(tokenizer.to_str())["model"]
    files = {
        "vocab.json": json.dumps(model["vocab"]),
        "merges.txt": "\n".join(map(" ".join, model["merges"])),
    }
    with pytest.raises(ModelError, match="add_bos_token asks for a token that nothing names"):
        converted(tmp_path, tokenizer, {"add_bos_token": True}, files={"tokenizer.json": None, **files})


# ---- spaces --------------------------------------------------------------------------------------------

SPACED = [
    "",
    " ",
    "a",
    " a",
    "  a",
    "the  king",
    "<s>a",
    "<s> a",
    "a</s>b",
    " <s>  b ",
    "\u2581a \u2581",
    "<x>a <x> b",
]


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("normalized", [True, False])
def test_metaspace(tmp_path, scheme, split, normalized):
    added = [AddedToken("<x>", normalized=normalized)]
    tokenizer = around(text_tokenizer(None, metaspace(scheme, split), added), "<s> $A")
    assert differences(converted(tmp_path, tokenizer), tokenizer, SPACED) == []


@pytest.mark.parametrize("normalizer", [("Prepend", "Replace"), ("Replace", "Prepend"), ("Replace",)])
@pytest.mark.parametrize("pre_tokenizer", [None, metaspace("first", False), metaspace("always", True)])
def test_normalizers(tmp_path, normalizer, pre_tokenizer):
    added = [AddedToken("<x>", normalized=True), AddedToken("<y>", normalized=False, rstrip=True)]
    tokenizer = text_tokenizer(normalizer, pre_tokenizer, added)
    assert differences(converted(tmp_path, tokenizer), tokenizer, [*SPACED, "a<y>  b"]) == []


@pytest.mark.parametrize(
    ("edit", "word"),
    [
        (lambda t: t.update(normalizer={"type": "Lowercase"}), "Lowercase"),
        (lambda t: t.update(normalizer={"type": "Strip", "strip_left": True, "strip_right": True}), "Strip"),
        (lambda t: t.update(normalizer={"type": "Prepend", "prepend": "x"}), "Prepend"),
        (lambda t: t.update(pre_tokenizer={"type": "Whitespace"}), "Whitespace"),
        (lambda t: t.update(pre_tokenizer={**metaspace("first", False), "replacement": "_"}), "Metaspace"),
        (lambda t: t.update(normalizer=None), "spaces"),
        (lambda t: t["model"].update(dropout=0.1), "dropout"),
        (lambda t: t["model"].update(end_of_word_suffix="</w>"), "end_of_word_suffix"),
        (lambda t: t["model"].update(ignore_merges=True), "ignore_merges"),
    ],
)
def test_what_is_not_implemented_is_named(tmp_path, edit, word):
    tokenizer = text_tokenizer()
    values = json.loads(tokenizer.to_str())
    edit(values)
    with pytest.raises(UnsupportedError, match=rf"tokenizer\.json: .*{word}"):
        converted(tmp_path, tokenizer, files={"tokenizer.json": json.dumps(values)})


@pytest.mark.parametrize("scheme", ["always", "first"])
def test_a_sentencepiece_model_beside_tokenizer_json(tmp_path, scheme):
    tokenizer = around(text_tokenizer(None, metaspace(scheme, False)), "<s> $A")
    files = {"tokenizer.model": sentencepiece_model(tokenizer)}
    path = converted(tmp_path, tokenizer, files=files)
    assert differences(path, tokenizer, SPACED) == []
    assert clarion.Tokenizer.from_gguf(path).bos == 1


def test_a_sentencepiece_model_of_another_tokenizer(tmp_path):
    other = {"tokenizer.model": sentencepiece_model(text_tokenizer())}
    tokenizer = around(bytes_tokenizer(), "<|begin|> $A")
    assert differences(converted(tmp_path, tokenizer, files=other), tokenizer, TEXTS) == []


# ---- the keys in a file --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("before_token_ids", np.array([10**6], np.uint32), "expected ids below"),
        ("added_token_ids", "x", "expected an array"),
        ("end_token_ids", np.array([-1], np.int32), "expected ids below"),
        ("added_token_flags", np.array([], np.uint32), "array of 0"),
        ("default_token_ids", 1, "expected a bool"),
        ("split_at_spaces", "yes", "expected a bool"),
    ],
)
def test_keys_with_other_values(tmp_path, key, value, message):
    path = write_changed(tmp_path, key, value)
    with pytest.raises(TokenizerError, match=rf"tokenizer\.clarion\.{key} is .*{message}"):
        clarion.Tokenizer.from_gguf(path)


@pytest.mark.parametrize(("key", "value"), [("space_prefix", "often"), ("normalizers", ["nfc", "rot13"])])
def test_keys_of_a_later_version(tmp_path, key, value):
    path = write_changed(tmp_path, key, value)
    with pytest.raises(UnsupportedError, match=rf"tokenizer\.clarion\.{key} .*known are"):
        clarion.Tokenizer.from_gguf(path)


def write_changed(folder, key, value):
    source = converted(folder, bytes_tokenizer(added=["<x>"]))
    path = folder / "changed.gguf"
    with File.open(source) as file:
        metadata = {**file.metadata.exact(), f"tokenizer.clarion.{key}": value}
        with Writer(path, metadata):
            return path


def test_parts_and_the_command_line_keep_the_keys(tmp_path):
    from clarion.cli.main import execute

    tokenizer = around(bytes_tokenizer(added=[AddedToken("<x>", lstrip=True)]), "<|begin|> <|eot|> $A")
    folder = write(tmp_path / "c", tokenizer)
    convert(folder, tmp_path / "p.gguf", "f32", max_bytes=20_000)
    assert execute(["merge", str(min(tmp_path.glob("p-*"))), str(tmp_path / "m.gguf")]) == 0
    assert execute(["quantize", str(tmp_path / "m.gguf"), str(tmp_path / "q.gguf"), "F16"]) == 0
    for name in ("m.gguf", "q.gguf"):
        assert differences(tmp_path / name, tokenizer, ["a <x> b", " a"]) == []


def test_a_token_around_a_text_that_the_embedding_has_no_row_for(tmp_path):
    tokenizer = bytes_tokenizer()
    values = json.loads(around(tokenizer, "<|begin|> $A").to_str())
    values["post_processor"]["special_tokens"]["<|begin|>"]["ids"] = [5000]
    message = r"tokenizer\.json: post_processor puts token 5000 around a text, expected ids below .* 341 rows"
    with pytest.raises(ModelError, match=message):
        converted(tmp_path, tokenizer, files={"tokenizer.json": json.dumps(values)})
