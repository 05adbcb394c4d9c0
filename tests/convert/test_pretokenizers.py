"""Pre-tokenizers as checkpoints describe them get the names that files have for them."""

import pytest
from tokenizers import Regex, Tokenizer, models
from tokenizers import pre_tokenizers as parts

from clarion.convert.pretokenizers import COMMON, name, words
from clarion.errors import UnsupportedError

TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA_3 = rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{TAIL}"
QWEN_2 = LLAMA_3.replace("{1,3}", "")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
LEAD = r"[^\r\n\p{L}\p{N}]?"
SLASHED_TAIL = TAIL.replace("[\\r\\n]*", "[\\r\\n/]*", 1)
TEKKEN = rf"{LEAD}{UPPER}*{LOWER}+|{LEAD}{UPPER}+{LOWER}*|\p{{N}}|{SLASHED_TAIL}"
MARKED = QWEN_2.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]")


def split(pattern):
    return [parts.Split(Regex(pattern), "isolated"), parts.ByteLevel(False, use_regex=False)]


CASES = {
    "llama-bpe": (split(LLAMA_3), True),
    "smaug-bpe": (split(LLAMA_3), False),
    "qwen2": (split(QWEN_2), False),
    "qwen35": (split(MARKED), False),
    "gpt-2": ([parts.ByteLevel(False)], False),
    "starcoder": ([parts.Digits(True), parts.ByteLevel(False)], False),
    "tekken": (split(TEKKEN), True),
}


def tokenizer(stages):
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = parts.Sequence(stages)
    return made


@pytest.mark.parametrize("expected", CASES)
def test_names(expected):
    stages, ignore_merges = CASES[expected]
    assert name(tokenizer(stages), ignore_merges=ignore_merges, where="tokenizer.json") == expected


def test_an_unknown_one_is_refused_and_the_place_is_shown():
    with pytest.raises(UnsupportedError, match=r"tokenizer\.json: .*nearest is .*, which differs at .12"):
        name(tokenizer(split(r"12|" + QWEN_2)), ignore_merges=False, where="tokenizer.json")


def test_words_are_the_text():
    stages, _ = CASES["qwen2"]
    assert "".join(words(tokenizer(stages), COMMON)) == COMMON
