"""Whether a file's tokenizer gives the ids of the checkpoint's own, compared as a model uses it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice, takewhile
from typing import Any

import numpy as np

from clarion.convert.pretokenizers import COMMON
from clarion.convert.sentencepiece import NORMAL
from clarion.errors import ClarionError, UnsupportedError
from clarion.tokenizer import Tokenizer
from clarion.tokenizer.vocabulary import SPACE

_MAX_PLAIN = 1000  # tokens of the vocabulary that are compared
_MAX_OVERLAPS = 1000  # pairs of added tokens of which one ends as the other begins
_SHOWN = 8  # ids in a message


def end_tokens(metadata: Mapping[str, Any]) -> frozenset[int]:
    """The tokens that end a generation, as a reader of the file finds them."""
    return Tokenizer.from_metadata(_plain(metadata)).end_tokens


def refuse_differences(metadata: Mapping[str, Any], reference: Any, where: str) -> None:
    """Compares ids of texts that hold what tokenizers treat differently.

    Args:
        metadata: of the file that is to be written.
        reference: the library's tokenizer of the checkpoint.
        where: begins the message of an error.

    Raises:
        UnsupportedError: other ids; the message names the text, and the added token if it is one's fault.
    """
    ours = Tokenizer.from_metadata(_plain(metadata))
    added = reference.get_added_tokens_decoder()
    found = _Comparison(ours, reference, where)
    for text in COMMON.split("\n\t"):
        found.check(text)
    for text in ("", " ", "a", " a", "  a", "\na", "a ", "a\n", " \n a"):
        found.check(text)
        found.check(text, add_special=True)
    if "nfc" in (metadata.get("tokenizer.clarion.normalizers") or ()):
        found.check("cafe\u0301")
    if metadata["tokenizer.ggml.model"] == "llama":
        found.check("\u2581a")
    for text in _plain_texts(metadata, frozenset(added)):
        found.check(text)
    contents = {token.content: token for token in added.values() if token.content}
    _refuse_equal(contents.values(), reference.normalizer, where)
    first = next((text for text, token in contents.items() if token.special), "")
    for text, token in contents.items():
        texts = _around(token, first)
        if not found.equal("".join(texts)):  # which of them differs is asked only then
            for smaller in (*texts, "".join(texts)):
                found.check(smaller, token=token)
        found.check(f" {text} a", add_special=True, token=token)
    for left, right, text in islice(_overlaps(contents), _MAX_OVERLAPS):
        found.check(f"a{text}b", token=contents[left], other=contents[right])


def _refuse_equal(tokens: Iterable[Any], normalizer: Any, where: str) -> None:
    """Raises UnsupportedError where two added tokens are looked for as the same text: either may be found."""
    known: dict[str, Any] = {}
    for token in tokens:
        if token.normalized and normalizer is not None:
            other = known.setdefault(normalizer.normalize_str(token.content), token)
            if other is not token:
                raise UnsupportedError(
                    f"{where}: added tokens {_shown(other)} and {_shown(token)} are the same when normalised"
                )


class _Comparison:
    def __init__(self, ours: Tokenizer, theirs: Any, where: str) -> None:
        self._ours = ours
        self._theirs = theirs
        self._where = where

    def equal(self, text: str) -> bool:
        try:
            found = self._ours.encode(text, add_special=False, parse_special=True)
        except ClarionError:
            return False
        return bool(found == self._theirs.encode(text, add_special_tokens=False).ids)

    def check(self, text: str, *, add_special: bool = False, token: Any = None, other: Any = None) -> None:
        expected = self._theirs.encode(text, add_special_tokens=add_special).ids
        try:
            found = self._ours.encode(text, add_special=add_special, parse_special=True)
        except ClarionError as error:
            raise UnsupportedError(
                f"{self._where}: as metadata it has no ids for {text!r:.80}: {error}"
            ) from None
        if found == expected:
            return
        n_equal = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(found, expected)))  # noqa: B905
        begin = max(n_equal - 1, 0)
        who = "" if token is None else f"added token {_shown(token)}"
        who += "" if other is None else f" beside {_shown(other)}"
        raise UnsupportedError(
            f"{self._where}: {who + ': ' if who else ''}as metadata it gives other tokens for {text!r:.80}"
            f"{', with the tokens around it' if add_special else ''}: {found[begin : begin + _SHOWN]}, "
            f"expected {expected[begin : begin + _SHOWN]}, from token {begin} on"
        )


def _shown(token: Any) -> str:
    options = [name for name in ("lstrip", "rstrip", "single_word", "normalized") if getattr(token, name)]
    return f"{token.content!r:.80}" + (f" ({', '.join(options)})" if options else "")


def _around(token: Any, special: str) -> list[str]:
    """Short texts with an added token in different neighbourhoods."""
    text = token.content
    simple = [text, f"a{text}a", f"a {text} a", f"a\n{text}\na", f"a  {text}  a", f"{text}{text}a"]
    simple += [f"a\t{text}\t a", f"_{text}1", f"{text}'s", f"\u00e9{text}\u00e9"]
    simple.append(f"{special}{text} a{special} {text}")
    if token.lstrip:
        simple.append(f"a\u3000{text}a")
    if token.rstrip:
        simple.append(f"a{text}\u00a0\u2003a")
    return [*simple, f"a {text}"]


def _plain_texts(metadata: Mapping[str, Any], added: frozenset[int]) -> Iterator[str]:
    """Texts of tokens evenly from the vocabulary."""
    texts, kinds = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    tokens = [token for token in np.flatnonzero(np.asarray(kinds) == NORMAL).tolist() if token not in added]
    for token in tokens[:: len(tokens) // _MAX_PLAIN + 1]:
        text = texts[token]
        if metadata["tokenizer.ggml.model"] in ("llama", "t5"):
            yield text.replace(SPACE, " ")
        elif metadata["tokenizer.ggml.model"] == "bert":
            if text.startswith(SPACE):
                yield text.removeprefix(SPACE)
        elif text.replace("\u0120", "").isascii():  # the rest may differ, as pre-tokenizers with names do
            yield text.replace("\u0120", " ")


def _overlaps(contents: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Added tokens of which one ends as another begins, and a text in which they share characters."""
    beginnings: dict[str, list[str]] = {}
    for text in contents:
        for end in range(1, len(text)):
            beginnings.setdefault(text[:end], []).append(text)
    for text in contents:
        for begin in range(1, len(text)):
            for other in beginnings.get(text[begin:], ()):
                yield text, other, text[:begin] + other


def _plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """numpy's numbers as Python's, as a file gives them."""
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in metadata.items()}
