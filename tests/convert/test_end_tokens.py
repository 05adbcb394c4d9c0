"""Every token that a checkpoint ends a generation with ends one."""

import json

import pytest

import clarion
from clarion.errors import FormatError, ModelError
from clarion.gguf import File
from tests.convert.checkpoints import bytes_tokenizer, converted, text_tokenizer

NAMES = ("<a>", "<b>", "<c>", "<d>", "<e>", "<f>")
TOKENIZER = bytes_tokenizer(specials=NAMES)
A, B, C, D, E, F = map(TOKENIZER.token_to_id, NAMES)


def ends(path):
    tokenizer = clarion.Tokenizer.from_gguf(path)
    return tokenizer.eos, set(tokenizer.end_tokens)


@pytest.mark.parametrize(
    ("settings", "generation", "config", "eos", "expected"),
    [
        ({"eos_token": "<a>"}, None, None, A, {A}),
        ({"eos_token": "<a>"}, {"eos_token_id": [B, C]}, None, A, {A, B, C}),
        ({"eos_token": "<c>"}, {"eos_token_id": [A, B, C]}, None, C, {A, B, C}),
        ({}, {"eos_token_id": [B, A]}, None, B, {A, B}),
        ({}, {"eos_token_id": B}, None, B, {B}),
        ({}, None, [C, A], C, {A, C}),
        ({}, None, C, C, {C}),
        ({"eos_token": "<a>"}, {"eos_token_id": [B, C]}, [D, E, F], A, {A, B, C, D, E, F}),
        (
            {"eos_token": {"content": "<a>"}},
            {"eos_token_id": [A, B, C, D, E, F]},
            None,
            A,
            {A, B, C, D, E, F},
        ),
        ({"eos_token": "<a>"}, {"eos_token_id": []}, [], A, {A}),
        ({"eos_token": "<a>"}, {"eos_token_id": None}, B, A, {A, B}),
        ({"eos_token": "<a>"}, {"eos_token_id": [float(B), C]}, None, A, {A, B, C}),
        ({}, {"eos_token_id": [B, B, B]}, [B], B, {B}),
        ({}, {}, None, None, set()),
        # Ordinary tokens, if the checkpoint says so; but what transformers write where nobody set it is none.
        ({"eos_token": "<a>"}, {"eos_token_id": [10, 11, 12, 13]}, None, A, {A, 10, 11, 12, 13}),
        ({"eos_token": "<a>"}, None, 2, A, {A}),
        ({"eos_token": "<a>"}, None, 2.0, A, {A}),
        ({"eos_token": "<a>"}, None, -1, A, {A}),
        ({"eos_token": "<a>"}, None, 20, A, {A, 20}),
        ({"eos_token": "<a>"}, None, [2], A, {A, 2}),
        ({"eos_token": "<a>"}, {"eos_token_id": 2}, None, A, {A, 2}),
        ({"eos_token": "<a>"}, {"eos_token_id": [B]}, 20, A, {A, B}),
        ({}, {"eos_token_id": B}, 100_000, B, {B}),
        ({}, None, 2, 2, {2}),
    ],
)
def test_all_of_them_end_a_generation(tmp_path, settings, generation, config, eos, expected):
    path = converted(tmp_path, TOKENIZER, settings, generation, eos_token_id=config)
    assert ends(path) == (eos, expected)


def test_keys_that_others_know_are_used_first(tmp_path):
    path = converted(tmp_path, TOKENIZER, {"eos_token": "<a>"}, {"eos_token_id": [B, C]})
    with File.open(path) as file:
        keys = [file.metadata.int(f"tokenizer.ggml.{role}_token_id") for role in ("eos", "eot", "eom")]
        assert keys == [A, B, C]
        assert "tokenizer.clarion.end_token_ids" not in file.metadata


def test_a_generation_ends_at_each(tmp_path):
    path = converted(tmp_path, TOKENIZER, {"eos_token": "<a>"}, {"eos_token_id": [B, C, D, E]})
    with clarion.load(path, threads=1) as model:
        for token in (A, B, C, D, E):
            bias = {token: 100.0}
            assert model.generate("the", max_tokens=4, greedy=True, logit_bias=bias).text == ""


def test_texts_that_others_end_with_and_this_checkpoint_too(tmp_path):
    """Beside ends of messages, readers take `<|end|>` for no end; a checkpoint may say otherwise."""
    names = ("<|end|>", "<|call|>", "<|return|>")
    tokenizer = bytes_tokenizer(specials=names)
    ids = set(map(tokenizer.token_to_id, names))
    path = converted(tmp_path, tokenizer, {"eos_token": "<|return|>"}, {"eos_token_id": sorted(ids)})
    assert ends(path)[1] == ids


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("generation_config.json", [A, 100_000]),
        ("generation_config.json", -1),
        ("generation_config.json", "<a>"),
        ("generation_config.json", [A, "<b>"]),
        ("generation_config.json", True),
        ("generation_config.json", 1.5),
        ("generation_config.json", {"id": A}),
        ("config.json", [A, 100_000]),
        ("config.json", [None]),
        ("config.json", "2"),
    ],
)
def test_ids_that_are_none(tmp_path, where, value):
    generation, config = ({"eos_token_id": value}, None) if where[0] == "g" else (None, value)
    n_vocab = TOKENIZER.get_vocab_size() + 8
    message = rf"{where}: eos_token_id is .*, expected ids below the embedding's {n_vocab} rows"
    with pytest.raises(ModelError, match=message):
        converted(tmp_path, TOKENIZER, {"eos_token": "<a>"}, generation, eos_token_id=config)


def test_an_end_that_the_vocabulary_lacks(tmp_path):
    with pytest.raises(ModelError, match="eos_token is '<x>', which is not in the vocabulary"):
        converted(tmp_path, bytes_tokenizer(), {"eos_token": "<x>"}, spare=0)


@pytest.mark.parametrize("make", [bytes_tokenizer, text_tokenizer])
def test_no_token_has_a_role_by_its_number(tmp_path, make):
    """GGUF's defaults, as token 11 for BOS and EOS, hold for files that say nothing."""
    tokenizer = make()
    path = converted(tmp_path, tokenizer)
    ours = clarion.Tokenizer.from_gguf(path)
    assert (ours.bos, ours.eos) == (None, None)
    assert not {1, 2, 11} & ours.end_tokens or make is text_tokenizer
    assert ours.encode("") == []


def test_bos_in_a_template_that_has_none(tmp_path):
    template = {"chat_template": "[{{ bos_token }}]{{ messages[0].content }}"}
    path = converted(tmp_path, bytes_tokenizer(), {"eos_token": "<|end|>"} | template)
    with clarion.load(path, threads=1) as model:
        assert model.apply_chat_template([{"role": "user", "content": "x"}]) == "[]x"


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("role", ["bos", "eos"])
@pytest.mark.parametrize("found", [["<a>", "<b>"], 5, False, {"a": 1}, {"content": 5}, "\ud800"])
def test_a_role_that_is_no_token_is_refused(tmp_path, file, role, found):
    settings, files = ({f"{role}_token": found}, {})
    if file == "special_tokens_map.json":
        settings, files = {}, {file: json.dumps(settings)}
    with pytest.raises(FormatError, match=rf"{file}: {role}_token is .*, expected a token"):
        converted(tmp_path, TOKENIZER, settings, files=files)
