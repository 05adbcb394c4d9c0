"""The ids are llama.cpp's: every kind of vocabulary, every pre-tokenizer, texts of every script."""

from __future__ import annotations

import pytest

from clarion.tokenizer import Tokenizer, pretokenizer
from tests.tokenizer.files import TEXTS, VOCABULARIES, golden

VARIANTS = [
    pytest.param(name, variant, case["ids"], id="-".join([name, *map(str, variant.values())]))
    for name in VOCABULARIES
    for case in golden(name)["cases"]
    for variant in case["variants"]
]
# They match [\r\n] after white space where others match [\r\n]+: the white space holds the rest.
EQUIVALENT = {"bailingmoe", "bailingmoe2", "llada-moe"}


@pytest.mark.parametrize(("name", "variant", "expected"), VARIANTS)
def test_ids(name, variant, expected):
    tokenizer = Tokenizer.from_metadata({**golden(name)["metadata"], **variant})
    for text, (plain, special) in zip(TEXTS, expected, strict=True):
        assert tokenizer.encode(text, add_special=False) == plain, ascii(text)
        assert tokenizer.encode(text, parse_special=True) == special, ascii(text)


def test_every_pre_tokenizer_has_a_golden():
    tested = {variant["tokenizer.ggml.pre"] for name in VOCABULARIES[:2] for variant in variants(name)}
    assert tested | {"whitespace"} == set(pretokenizer.names())


def variants(name):
    return [variant for case in golden(name)["cases"] for variant in case["variants"]]


@pytest.mark.parametrize("number", range(len(golden("roles"))))
def test_roles(number):
    expected = golden("roles")[number]
    tokenizer = Tokenizer.from_metadata(expected["metadata"])
    assert tokenizer.end_tokens == set(expected["end"])
    assert [piece.hex() for piece in tokenizer.pieces] == expected["pieces"]


def test_goldens_tell_pre_tokenizers_apart():
    """Else a wrong pattern might pass."""
    for case in golden("gpt2")["cases"]:
        names = {variant["tokenizer.ggml.pre"] for variant in case["variants"]}
        patterns = {pretokenizer.find(name).patterns for name in names - EQUIVALENT}
        assert len(patterns) <= 1, names
