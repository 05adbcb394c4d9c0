"""A vocabulary of WordPiece in tokenizer.json, as BERT has it.

A file writes the beginning of a word with U+2581 before it, and what continues one without the `##` of the
checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clarion.convert.library import parts
from clarion.convert.sentencepiece import CONTROL, NORMAL, UNKNOWN
from clarion.convert.tokens import Tokens, Vocabulary, ids_of
from clarion.errors import UnsupportedError
from clarion.tokenizer.settings import OWN
from clarion.tokenizer.vocabulary import SPACE


def read(values: Mapping[str, Any], where: str) -> Vocabulary:
    """The vocabulary of a tokenizer.json whose model is WordPiece.

    Raises:
        FormatError: the vocabulary is malformed.
        UnsupportedError: what files cannot express; the message names it.
    """
    model = values["model"]
    continuing, unknown = model.get("continuing_subword_prefix", "##"), model.get("unk_token", "[UNK]")
    metadata = _normalizer(values, where)
    for part in parts(values.get("pre_tokenizer"), "pretokenizers"):
        if part.get("type") != "BertPreTokenizer":
            raise UnsupportedError(
                f"{where}: pre_tokenizer is {part.get('type')!r:.80}, "
                f"supported with WordPiece: BertPreTokenizer"
            )
    longest = model.get("max_input_chars_per_word", 100)
    metadata[OWN + "max_word_length"] = longest
    special = {
        entry.get("content")
        for entry in values.get("added_tokens") or ()
        if isinstance(entry, Mapping) and entry.get("special")
    }
    theirs, tokens = ids_of(model.get("vocab"), where), Tokens([], [], [])
    for token, text in enumerate(theirs.texts):
        if text is None:
            continue
        if text == unknown or text in special:
            tokens.put(token, text, UNKNOWN if text == unknown else CONTROL)
        elif text.startswith(continuing) and text != continuing:
            tokens.put(token, text.removeprefix(continuing), NORMAL, 0.0)
        else:
            tokens.put(token, SPACE + text, NORMAL, 0.0)
    ids = tokens.ids()
    roles = {"bos": "[CLS]", "eos": "[SEP]", "unk": unknown, "pad": "[PAD]"}
    known = {role: ids[text] for role, text in roles.items() if text in ids}
    if "[SEP]" in ids:
        metadata["tokenizer.ggml.seperator_token_id"] = ids["[SEP]"]  # the format's own spelling
    return Vocabulary("bert", tokens, None, metadata, known)


def _normalizer(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Metadata of what is done to characters before a text is cut into words."""
    found = parts(values.get("normalizer"), "normalizers")
    if [part.get("type") for part in found] != ["BertNormalizer"]:
        kinds = ", ".join(str(part.get("type")) for part in found) or "none"
        raise UnsupportedError(
            f"{where}: normalizer is {kinds:.80}, supported with WordPiece: BertNormalizer"
        )
    (part,) = found
    for key in ("clean_text", "handle_chinese_chars"):
        if part.get(key, True) is not True:
            raise UnsupportedError(f"{where}: {key} of normalizer is {part[key]!r:.80}, supported: true")
    lowercase = part.get("lowercase", True) is True
    accents = part.get("strip_accents")
    return {
        "tokenizer.ggml.normalizer.lowercase": lowercase,
        "tokenizer.ggml.normalizer.strip_accents": lowercase if accents is None else accents is True,
    }
