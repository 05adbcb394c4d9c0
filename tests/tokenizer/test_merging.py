"""Merging by ranks, against a few lines that do it one merge at a time, and against the library."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers.models import BPE

from clarion._native.files import Merging

CHARACTERS = "abcä\u4e16\U0001f600"
symbols = st.text(CHARACTERS, min_size=1, max_size=4)
words = st.text(CHARACTERS + "z\x00 ", max_size=40)


def places(strings: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    raws = [text.encode("utf-8", "surrogateescape") for text in strings]
    lengths = np.array([len(raw) for raw in raws], np.int64)
    return np.frombuffer(b"".join(raws), np.uint8), np.cumsum(lengths) - lengths, lengths


def merging(pairs: list[tuple[str, str]], tokens: list[str]) -> Merging:
    return Merging(*places([f"{left} {right}" for left, right in pairs]), *places(tokens))


def one_by_one(word: str, pairs: list[tuple[str, str]], tokens: list[str]) -> list[int]:
    ranks = {pair: rank for rank, pair in reversed(list(enumerate(pairs)))}
    parts = list(word)
    while candidates := [(ranks[pair], i) for i, pair in enumerate(pairwise(parts)) if pair in ranks]:
        _, i = min(candidates)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    ids = {token: i for i, token in enumerate(tokens)}
    found: list[int] = []
    for part in parts:
        found += [ids[part]] if part in ids else [-1 - byte for byte in part.encode()]
    return found


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(symbols, symbols), max_size=30), st.lists(symbols, unique=True, min_size=1), words)
@example([("a", "a"), ("aa", "aa"), ("aa", "a")], ["a", "aa", "aaaa", "aaa"], "a" * 11)
@example([("b", "c"), ("a", "b"), ("a", "b")], ["ab", "bc"], "abcabab")
def test_merges(pairs: list[tuple[str, str]], tokens: list[str], word: str) -> None:
    assert merging(pairs, tokens).encode(word) == one_by_one(word, pairs, tokens)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 1000), max_size=40), words)
def test_a_vocabulary_in_which_every_merge_gives_a_token_is_the_librarys(picks: list[int], word: str) -> None:
    tokens, pairs = list(CHARACTERS), []
    for pick in picks:
        left, right = tokens[pick % len(tokens)], tokens[pick // len(tokens) % len(tokens)]
        if left + right not in tokens:
            tokens.append(left + right)
            pairs.append((left, right))
    library = BPE({token: i for i, token in enumerate(tokens)}, pairs)
    known = "".join(character for character in word if character in CHARACTERS)
    wanted = [token.id for token in library.tokenize(known)]
    assert merging(pairs, tokens).encode(known) == wanted


def test_long_words_take_no_longer_for_each_byte() -> None:
    pairs = [("a" * n, "a" * n) for n in (1, 2, 4, 8)]
    made = merging(pairs, ["a" * n for n in (1, 2, 4, 8, 16)])
    assert made.encode("a" * 1_000_000) == [4] * 62_500


def test_bytes_that_are_no_text_are_no_symbols() -> None:
    made = merging([("a", "b"), ("\udcff", "a")], ["ab", "\udcffa", ""])
    assert made.encode("ab\u00ff") == [0, -1 - 0xC3, -1 - 0xBF]
    assert made.encode("") == []


@pytest.mark.parametrize("wrong", ["ab", " b", "a ", "", " "])
def test_what_is_no_merge_is_numbered(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"^1$"):
        Merging(*places(["a b", wrong]), *places(["a"]))
