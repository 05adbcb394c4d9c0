r"""How byte-pair vocabularies cut text into words before merging, by the name in `tokenizer.ggml.pre`.

A pre-tokenizer is a list of stages. Each stage isolates its matches within the pieces that the stages before
it left; what lies between two matches is a piece of its own. The patterns mean what llama.cpp's mean, which
define the format. There, a pattern with `\p{..}` runs over the classes of the characters
(`characters.collapse`), so it cannot tell cases apart beyond ASCII; any other runs over the text, with the
`\s` and `\d` of ASCII. Every pattern takes linear time on any text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Final, TypeAlias

from clarion.tokenizer import characters

Stage: TypeAlias = Callable[[str, list[int]], list[int]]  # text, ends of its pieces → ends of finer pieces

_CLASSES: Final = {
    "N": "0-9" + characters.NUMBER,
    "L": "A-Za-z" + characters.LETTER + characters.HAN_LETTER,
    "P": r"!-#%-*,-/:;?@\[-\]_{}" + characters.PUNCTUATION,
    "M": characters.MARK,
    "S": "$+<->^`|~" + characters.SYMBOL,
    "Upper": "A-Z" + characters.LETTER,  # may begin a word; only ASCII letters have a case
    "Lower": "a-z" + characters.LETTER,
    "Han": characters.HAN_LETTER + characters.HAN_UNASSIGNED,
}
_CUT_AFTER_THOUSANDS, _CUT_BEFORE_THOUSANDS = "cut after thousands", "cut before thousands"


@dataclass(frozen=True, slots=True)
class Pretokenizer:
    """How to cut a text into words, and what else the name in the file implies."""

    patterns: tuple[str, ...]
    byte_level: bool = True  # tokens are written in GPT-2's alphabet of bytes, else as text with <0xXX> bytes
    escape_spaces: bool = False  # a space is written as U+2581
    drop_spaces: bool = False  # white space is no part of any word
    ignore_merges: bool = False  # a word that is a token is not merged from its letters
    ignore_merges_of_newlines: bool = False
    add_bos: bool = False  # where the file does not say
    always_add_bos: bool = False  # whatever the file says
    default_bos: bool = True  # token 11 is BOS where the file does not say

    def split(self, text: str) -> list[str]:
        """The words of a text, in order."""
        ends = [len(text)]
        for pattern in self.patterns:
            ends = _stage(pattern)(text, ends)
        start = 0
        words = []
        for end in ends:
            words.append(text[start:end])
            start = end
        return words


def find(name: str) -> Pretokenizer | None:
    """The pre-tokenizer of a name, or None if the name is unknown."""
    return _BY_NAME.get(name)


def names() -> list[str]:
    """The names that `find` knows."""
    return sorted(_BY_NAME)


def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\p\{(\w+)\}", lambda name: _CLASSES[name[1]], pattern), re.ASCII)


@cache
def _stage(pattern: str) -> Stage:
    if pattern == _CUT_AFTER_THOUSANDS:
        return _cut_after_thousands
    if pattern == _CUT_BEFORE_THOUSANDS:
        return _cut_before_thousands
    view = characters.blank
    if r"\p{Han}" in pattern:
        view = characters.collapse_han
    elif r"\p{" in pattern:
        view = characters.collapse
    finditer = _compile(pattern).finditer

    def isolate(text: str, ends: list[int]) -> list[int]:
        subject = view(text)
        finer = []
        start = 0
        for end in ends:
            for match in finditer(subject, start, end):
                begin = match.start()
                if begin > start:
                    finer.append(begin)
                start = match.end()
                finer.append(start)
            if start < end:
                finer.append(end)
                start = end
        return finer

    return isolate


def _cut_after_thousands(text: str, ends: list[int]) -> list[int]:
    """Ends a piece after every third digit counted from a run's end: `abc12345 x` → `abc12`, `345`, ` x`."""
    cuts = set(ends)
    for run in _compile(r"[\p{N}]+").finditer(characters.collapse(text)):
        cuts.update(range(run.end(), run.start(), -3))
    return sorted(cuts)


def _cut_before_thousands(text: str, ends: list[int]) -> list[int]:
    """Begins a piece at every third ASCII digit counted from a run's end: `12345` → `12`, `345`."""
    cuts = set(ends)
    for run in _compile("[0-9]+").finditer(text):
        cuts.update(range(run.end() - 3, run.start() - 1, -3))
    return sorted(cuts - {0})


_SUFFIX = r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?[\p{L}]+| ?[\p{N}]+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_ASCII_PUNCTUATION = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"""
_LEAD = r"[^\r\n\p{L}\p{N}]?"
_ONE_DIGIT, _THREE_DIGITS = r"[\p{N}]", r"[\p{N}]{1,3}"


def _words(digits: str, spaces: str = _SPACES, suffix: str = _SUFFIX + "|", letters: str = r"\p{L}") -> str:
    """Letters and one character before them, digits, punctuation and a space before it, white space."""
    return (
        rf"{suffix}{_LEAD}[{letters}]+|{digits}"
        rf"| ?[^\s{letters}\p{{N}}]+[\r\n]*|{spaces}"
    )


def _cased_words(digits: str, upper: str, lower: str, suffix: str = f"(?:{_SUFFIX})?") -> str:
    """`_words` that end before an uppercase letter after a lowercase one; suffixes belong to their word."""
    return (
        rf"{_LEAD}[{upper}]*[{lower}]+{suffix}|{_LEAD}[{upper}]+[{lower}]*{suffix}|{digits}"
        rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
    )


def _marked_words(spaces: str) -> str:
    """DeepSeek's: ASCII punctuation may lead a word, marks are letters."""
    return (
        rf"{_ASCII_PUNCTUATION}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
        rf"| ?[\p{{P}}\p{{S}}]+{spaces}"
    )


_ANY_CASE = r"\p{L}\p{M}"
_SENTENCES = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
_LINES = r"[^\n]+|[\n]+"
_KANA_AND_IDEOGRAPHS = "[\u4e00-\u9fa5\u3040-\u30ff]+"
_EAST_ASIAN = "[\u0800-\u9fa5\uac00-\ud7ff]+"
_SOUTH_AND_EAST_ASIAN = (
    "[\u4e00-\u9fff\u3400-\u4dbf\u8c48-\ufaff\u3040-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0eff"
    "\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+"
)
_YOUTU_SCRIPTS = (
    "[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f"
    f"\ufe30-\ufe4f]+|[\u3105-\u312f]+|{_KANA_AND_IDEOGRAPHS}"
)
_CASED_LETTERS = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370"
    "-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-"
    "\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-"
    "\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-"
    "\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4"
    "\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a"
    "-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-"
    "\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-"
    "\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-"
    "\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-"
    "\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
# After spaces that are cut off no newline follows; looking for one each time would take quadratic time.
_HALVING_SPACES = "|".join(
    [
        r"(?<![^\S\r\n])\s*[\r\n]+",
        *(rf"\s{{{2**exponent}}}(?!\S)" for exponent in range(9, 1, -1)),
        r"\s{1,2}(?!\S)|\s",
    ]
)

_GPT_2 = Pretokenizer((_GPT2,))
_STARCODER = Pretokenizer((_ONE_DIGIT, _GPT2))
_LLAMA_3 = Pretokenizer((_words(_THREE_DIGITS),))
_QWEN_2 = Pretokenizer((_words(_ONE_DIGIT),))
_DEEPSEEK_3 = Pretokenizer((_THREE_DIGITS, _KANA_AND_IDEOGRAPHS, _marked_words(rf"[\r\n]*|{_SPACES}")))

_BY_NAMES: Final[dict[str, Pretokenizer]] = {
    "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert jina-v1-en "
    "jina-v2-code roberta-bpe mpt olmo jais trillion granite-docling exaone4": _GPT_2,
    "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2": _STARCODER,
    "dbrx smaug-bpe": _LLAMA_3,
    "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano": replace(
        _LLAMA_3, ignore_merges=True, add_bos=True
    ),
    "chatglm-bpe": replace(_LLAMA_3, default_bos=False),
    "glm4 glm5": replace(_LLAMA_3, default_bos=False, ignore_merges=True),
    "minicpm5": Pretokenizer((_THREE_DIGITS, _words(r"[\p{N}]+")), ignore_merges=True),
    "jais-2": Pretokenizer((_words(_THREE_DIGITS, _HALVING_SPACES),)),
    "qwen2 deepseek-r1-qwen kormo f2llmv2 stablelm2 hunyuan solar-open megrez grok-2": _QWEN_2,
    "qwen35": Pretokenizer((_words(_ONE_DIGIT, letters=r"\p{L}\p{M}"),)),
    "ufakzeka": Pretokenizer((_words(_ONE_DIGIT, suffix=""),)),
    "laguna": Pretokenizer((_LINES, *_QWEN_2.patterns)),
    "bailingmoe bailingmoe2 llada-moe": Pretokenizer((_words(_ONE_DIGIT, r"\s*[\r\n]|\s+(?!\S)|\s+"),)),
    "seed-coder": Pretokenizer(
        (rf"{_SUFFIX}|{_LEAD}[\p{{L}}]+|[\p{{N}}]| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}",)
    ),
    "exaone-moe": Pretokenizer(
        (
            rf"{_SUFFIX}|{_LEAD}[\p{{L}}](?:[\p{{L}}\p{{M}}]+| [\p{{L}}])*|[\p{{N}}]"
            r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
        )
    ),
    "tekken": Pretokenizer(
        (_cased_words(_ONE_DIGIT, r"\p{Upper}", r"\p{Lower}", suffix=""),), ignore_merges=True, add_bos=True
    ),
    "gpt-4o llama4 kanana2 talkie minimax-m2": Pretokenizer(
        (_cased_words(_THREE_DIGITS, r"\p{Upper}", r"\p{Lower}"),)
    ),
    "granite-embed-multi-97m": Pretokenizer(
        (_cased_words(_THREE_DIGITS, r"\p{Upper}\p{M}", r"\p{Lower}\p{M}"),), ignore_merges=True
    ),
    "youtu": Pretokenizer(
        (_YOUTU_SCRIPTS, _cased_words(_ONE_DIGIT, _ANY_CASE, _ANY_CASE)), ignore_merges=True
    ),
    "tiny_aya cohere2moe": Pretokenizer(
        (_CUT_AFTER_THOUSANDS, _cased_words(_THREE_DIGITS, _ANY_CASE, _ANY_CASE))
    ),
    "kimi-k2": Pretokenizer(
        (
            rf"[\p{{Han}}]+|[^\r\n\p{{L}}\p{{N}}\p{{Han}}]?[\p{{Upper}}\p{{Lower}}]+(?:{_SUFFIX})?|{_THREE_DIGITS}"
            rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}",
        )
    ),
    "deepseek-v3 hunyuan-dense joyai-llm hy_v4": _DEEPSEEK_3,
    "spark2_5": Pretokenizer(
        (*_DEEPSEEK_3.patterns[:2], _marked_words(r"|[\r\n]|\s+(?!\S)|\s+"), _ONE_DIGIT)
    ),
    "afmoe": Pretokenizer((_CUT_AFTER_THOUSANDS, _SOUTH_AND_EAST_ASIAN, _DEEPSEEK_3.patterns[2])),
    "deepseek-llm": Pretokenizer(
        (
            r"[\r\n]",
            rf"\s?[{_CASED_LETTERS}]+",
            "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
            r"(?<!\s)\s+\Z",
            _EAST_ASIAN,
            r"[\p{N}]+",
        )
    ),
    "deepseek-coder": Pretokenizer((r"[\r\n]", r"\s?[\p{L}]+", r"\s?[\p{P}]+", _EAST_ASIAN, _ONE_DIGIT)),
    "falcon": Pretokenizer((r"[\p{P}$+<=>^~|`]+", _GPT2, "[0-9][0-9][0-9]")),
    "default": Pretokenizer((r"[\p{P}$+<=>^~|]+", _GPT2, r"[\p{N}]+", "[0-9][0-9][0-9]")),
    "poro-chat bloom gpt3-finnish": Pretokenizer((_SENTENCES,)),
    "viking": Pretokenizer((_SENTENCES, _ONE_DIGIT)),
    "superbpe": Pretokenizer((r"[\p{N}]+", _CUT_BEFORE_THOUSANDS)),
    "chameleon": Pretokenizer(
        (
            "<sentinel:[0-9]+>",
            "IMGIMG[A-I]{1,4}Z",
            r"[\t\n]|    |  ",
            _ONE_DIGIT,
            r"[\p{P}!-/:-@\[-`{-~]",
            _GPT2,
        ),
        add_bos=True,
    ),
    "gemma4 granite-embed-multi-311m": Pretokenizer(
        (_LINES,), byte_level=False, escape_spaces=True, ignore_merges_of_newlines=True, always_add_bos=True
    ),
    "sarvam-moe": Pretokenizer((_LINES,), byte_level=False, escape_spaces=True),
    "whitespace": Pretokenizer((r"\S+",), byte_level=False, drop_spaces=True),
}
_BY_NAME: Final = {name: pretokenizer for names, pretokenizer in _BY_NAMES.items() for name in names.split()}
