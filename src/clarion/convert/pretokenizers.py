"""Which name in `tokenizer.ggml.pre` stands for the pre-tokenizer of a tokenizer.json.

Files name a pre-tokenizer, they do not describe it. So the name is found by behaviour: the one whose words
are those of the library on a text in which the known ones differ.
"""

from __future__ import annotations

from tokenizers import Tokenizer

from clarion.errors import UnsupportedError
from clarion.tokenizer import pretokenizer

PROBE = (
    "Hello world, it's HE'S we'Ll They've i'm I'D don't 'til\n\n\n  x  =  1234567890 + 12 345,678;\t\tend  \n"
    "   leading   and trailing   \r\n\r\n a1b22c333d4444 $5 €6 #7 %8 x_y-z a/b\\c http://a.b/c?d=e&f  "
    "CamelCaseWord HTTPServer éÉ ñandú straße naïve über ÀB Привет МИР ελληνικά "
    "你好世界 漢字カタカナひらがな 한국어 สวัสดี नमस्ते مرحبا שלום 😀👍🏽 ½² "
    "!!! ... ?!\n***\n(foo) [bar] {baz} <tag/> \"quoted\" 'single' `tick` ~^|"
    "\u00a0\u3000end\n \n\tdone!\n/x//\n//"
)
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
    wanted = words(library, PROBE)
    nearest, nearest_name = 0, ""
    for candidate in (*_PREFERRED, *pretokenizer.names()):
        rules = pretokenizer.find(candidate)
        if rules is None or not rules.byte_level or rules.ignore_merges != ignore_merges:
            continue
        found = rules.split(PROBE)
        if found == wanted:
            return candidate
        n_equal = next((i for i, pair in enumerate(zip(found, wanted)) if pair[0] != pair[1]), 0)  # noqa: B905
        if n_equal > nearest:
            nearest, nearest_name = n_equal, candidate
    raise UnsupportedError(
        f"{where}: pre_tokenizer is none of those that files can name; nearest is {nearest_name!r}, "
        f"which differs at {''.join(wanted[nearest : nearest + 3])!r}"
    )
