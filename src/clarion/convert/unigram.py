"""A vocabulary of scores (Unigram) in tokenizer.json, as XLM-RoBERTa has it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np

from clarion.convert.config import whole
from clarion.convert.library import parts
from clarion.convert.sentencepiece import CONTROL, NORMAL, UNKNOWN
from clarion.convert.tokens import Tokens, Vocabulary
from clarion.errors import FormatError, UnsupportedError
from clarion.tokenizer.vocabulary import SPACE

_SPACES = {"Regex": " {2,}"}


def read(values: Mapping[str, Any], where: str) -> Vocabulary:
    """The vocabulary of a tokenizer.json whose model is Unigram.

    Raises:
        FormatError: the vocabulary or its map of characters is malformed.
        UnsupportedError: what files cannot express; the message names it.
    """
    model = values["model"]
    if model.get("byte_fallback"):
        raise UnsupportedError(f"{where}: byte_fallback of model is true, supported with Unigram: false")
    special = {
        entry.get("content")
        for entry in values.get("added_tokens") or ()
        if isinstance(entry, Mapping) and entry.get("special")
    }
    unknown = whole(model.get("unk_id"))
    tokens = Tokens([], [], [])
    for token, entry in enumerate(model.get("vocab") or ()):
        if (
            not isinstance(entry, list)
            or len(entry) != 2
            or not isinstance(entry[0], str)
            or type(entry[1]) not in (int, float)
        ):
            raise FormatError(
                f"{where}: entry {token} of vocab is {entry!r:.80}, expected a text and a score"
            )
        text, score = entry
        kind = UNKNOWN if token == unknown else CONTROL if text in special else NORMAL
        tokens.put(token, text, kind, float(score))
    if not tokens.texts:
        raise FormatError(f"{where}: vocab is empty, expected texts and scores")
    metadata = _normalizer(values, where) | _spaces(values, where)
    known = {} if unknown is None else {"unk": unknown}
    return Vocabulary("t5", tokens, None, metadata, known)


def _normalizer(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Metadata of what is done to characters."""
    metadata: dict[str, Any] = {}
    for part in parts(values.get("normalizer"), "normalizers"):
        kind = part.get("type")
        if kind == "Precompiled":
            try:
                data = base64.b64decode(part.get("precompiled_charsmap") or "", validate=True)
            except (binascii.Error, ValueError, TypeError) as error:
                raise FormatError(f"{where}: precompiled_charsmap is no base64: {error}") from error
            if data:
                metadata["tokenizer.ggml.precompiled_charsmap"] = np.frombuffer(data, np.uint8)
        elif not (kind == "Replace" and part.get("pattern") == _SPACES and part.get("content") == " "):
            raise UnsupportedError(
                f"{where}: normalizer is {kind!r:.80}, supported with Unigram: Precompiled, and Replace of "
                f"several spaces by one"
            )
    return metadata


def _spaces(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Metadata of where words begin."""
    found = parts(values.get("pre_tokenizer"), "pretokenizers")
    kinds = [part.get("type") for part in found]
    supported = (["Metaspace"], ["WhitespaceSplit", "Metaspace"])
    if kinds not in supported or found[-1].get("replacement") != SPACE:
        raise UnsupportedError(
            f"{where}: pre_tokenizer is {kinds!r:.120}, "
            f"supported with Unigram: Metaspace, perhaps after WhitespaceSplit"
        )
    last = found[-1]
    scheme = last.get("prepend_scheme", "always" if last.get("add_prefix_space", True) else "never")
    if scheme != "always":
        raise UnsupportedError(f"{where}: prepend_scheme is {scheme!r:.80}, supported with Unigram: always")
    return {
        "tokenizer.ggml.add_space_prefix": True,
        "tokenizer.ggml.remove_extra_whitespaces": True,
    }
