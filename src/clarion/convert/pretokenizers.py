"""Which name in `tokenizer.ggml.pre` stands for the pre-tokenizer of a tokenizer.json.

Files name a pre-tokenizer, they do not describe it. So the name is found by behaviour: the one whose words
are those of the library on a text in which the known ones differ.
"""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

from clarion.errors import UnsupportedError
from clarion.tokenizer import pretokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

COMMON = (
    "Hello world, it's HE'S we'Ll They've i'm I'D don't 'til\n\n\n  x  =  1234567890 + 12 345,678;\t\tend  \n"
    "   leading   and trailing   \r\n\r\n a1b22c333d4444 $5 €6 #7 %8 x_y-z a/b\\c http://a.b/c?d=e&f  "
    "CamelCaseWord HTTPServer café ñandú straße naïve über Привет МИР ελληνικά "
    "你好世界 漢字カタカナひらがな 한국어 مرحبا שלום 😀👍🏽 ½² "
    "!!! ... ?!\n***\n(foo) [bar] {baz} <tag/> \"quoted\" 'single' `tick` ~^|end\n \n\tdone!\n/x//\n//"
)
# What llama.cpp's patterns, which define the names, may see otherwise than their originals: marks, and what
# is not ASCII of capital letters inside words and of spaces. Decides where it can, else is left out.
RARE = " สวัสดี नमस्ते éÉ ÀB \u00a0\u3000end"
# Where several names mean the same, others know this one best.
_PREFERRED = (
    "gpt-2",
    "llama-bpe",
    "qwen2",
    "smaug-bpe",
    "starcoder",
    "tekken",
    "deepseek-llm",
    "deepseek-v3",
)


def words(library: Tokenizer, text: str) -> list[str]:
    """The words into which the library cuts a text before it merges."""
    if library.pre_tokenizer is None:
        return [text]
    return [text[begin:end] for _, (begin, end) in library.pre_tokenizer.pre_tokenize_str(text)]


def name(library: Tokenizer, *, ignore_merges: bool, where: str) -> str:
    """The name of a byte-level tokenizer's pre-tokenizer.

    Raises:
        UnsupportedError: no known one cuts the probe as this one does.
    """
    candidates = [
        (candidate, rules)
        for candidate in (*_PREFERRED, *pretokenizer.names())
        if (rules := pretokenizer.find(candidate))
        and rules.byte_level
        and rules.ignore_merges == ignore_merges
    ]
    for probe in (COMMON + RARE, COMMON):
        wanted = words(library, probe)
        for candidate, rules in candidates:
            if rules.split(probe) == wanted:
                return candidate
    n_equal, nearest = max(
        (_n_equal(rules.split(COMMON), wanted), candidate) for candidate, rules in candidates
    )
    raise UnsupportedError(
        f"{where}: pre_tokenizer is none of those that files can name; nearest is {nearest!r}, "
        f"which differs at {''.join(wanted[n_equal : n_equal + 3])!r}"
    )


def _n_equal(found: list[str], wanted: list[str]) -> int:
    """How many words at the beginning are the same."""
    pairs = zip(found, wanted, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
