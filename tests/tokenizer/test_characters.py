"""The table of character classes, and the mappings beside it."""

from __future__ import annotations

import pytest

from clarion.tokenizer import characters
from clarion.tokenizer.characters import (
    CONTROL,
    HAN_LETTER,
    HAN_UNASSIGNED,
    LETTER,
    MARK,
    NUMBER,
    PUNCTUATION,
    SYMBOL,
    UNASSIGNED,
)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("\u00e9\u01c5\u02b0\u05d0\u4e00\U0001d400", LETTER),
        ("\u0663\u2167\u00bd\U0001d7d8", NUMBER),
        ("\u0301\u093f\u20e3\ufe0f", MARK),
        ("\u2019\u3001\uff08\u203f", PUNCTUATION),
        ("\u20ac\u00d7\u02c2\U0001f600", SYMBOL),
        ("\u0080\u00ad\u200d\ue000\ufeff\U0010fffd", CONTROL),
        ("\u0378\ufffe\U0010ffff", UNASSIGNED),
        ("\u2ffc\u31ef", SYMBOL),  # since Unicode 15.1
        ("\U0002ebf0\U000323af", LETTER),  # since 15.1 and 15.0
        ("\u1c89\ua7cb\U0001fae9", UNASSIGNED),  # until 16.0
        ("\x85\xa0\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000", "\v"),
    ],
)
def test_classes(text, kind):
    assert characters.collapse(text) == kind * len(text)


def test_ascii_is_its_own_class():
    text = "".join(map(chr, range(0x80)))
    assert characters.collapse(text) == text
    assert characters.classes()[:0x80] == text
    assert len(characters.classes()) == len(characters.han_classes()) == 0x110000


def test_han_characters_are_letters_of_their_own():
    assert characters.collapse_han("\u3400\u4e00\ufa0e\U00020000\U0002ebe0") == HAN_LETTER * 5
    assert characters.collapse_han("\u3042\uac00\U00030000") == LETTER * 3
    assert characters.collapse_han("\ufa6e") == HAN_UNASSIGNED


def test_blank_keeps_all_but_white_space():
    assert characters.blank("a\u3000\u00e9\x85\n\u200b") == "a\v\u00e9\v\n\u200b"


def test_mappings_of_single_characters():
    assert [characters.lower(c) for c in "A\u00c9\u0130\u1e9e\u01c5\u4e00"] == list(
        "a\u00e9i\u00df\u01c6\u4e00"
    )
