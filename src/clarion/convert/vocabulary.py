"""A checkpoint's tokenizer as metadata of a GGUF file.

Read are tokenizer.json, sentencepiece's tokenizer.model, or vocab.json with merges.txt; tokenizer_config.json
and the other small files beside them say what is special. Where there is a tokenizer.json, the result is
compared with it on a text before anything is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clarion.convert import pretokenizers, sentencepiece
from clarion.convert.checkpoint import Checkpoint
from clarion.convert.sentencepiece import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED
from clarion.errors import FileError, FormatError, ModelError, UnsupportedError

_BYTE_TOKENS = {f"<0x{byte:02X}>" for byte in range(256)}
_UNREACHABLE = -1e6  # score of what no merge gives
_LEGACY_PRETOKENIZERS = {"qwen2": "qwen2", "qwen3": "qwen2", "qwen3_moe": "qwen2"}


@dataclass(slots=True)
class _Tokens:
    """A vocabulary under construction; ids are positions."""

    texts: list[str | None]
    kinds: list[int]
    scores: list[float]

    def put(self, token: int, text: str, kind: int, score: float = 0.0) -> None:
        missing = token + 1 - len(self.texts)
        self.texts += [None] * missing
        self.kinds += [UNUSED] * missing
        self.scores += [_UNREACHABLE] * missing
        self.texts[token], self.kinds[token], self.scores[token] = text, kind, score

    def id(self, text: object) -> int | None:
        return self.texts.index(text) if isinstance(text, str) and text in self.texts else None


def convert(checkpoint: Checkpoint, n_vocab: int) -> dict[str, Any]:
    """Metadata `tokenizer.*`, with exactly `n_vocab` tokens.

    Raises:
        FileError: there is no tokenizer.
        FormatError: a file is malformed.
        UnsupportedError: a tokenizer that GGUF files cannot express; the message names the part.
        ModelError: it has more tokens than the embedding has rows.
    """
    folder = checkpoint.folder
    library = checkpoint.json("tokenizer.json")
    model = checkpoint.raw("tokenizer.model")
    settings = checkpoint.json("tokenizer_config.json") or {}
    merges: list[str] | None = None
    if model is not None:
        tokens, flags = _from_sentencepiece(sentencepiece.parse(model, str(folder / "tokenizer.model")))
        kind = "llama"
    elif library is not None:
        kind, tokens, merges, flags = _from_library(library, f"{folder}/tokenizer.json")
    else:
        kind, tokens, flags = "gpt2", _from_vocab_json(checkpoint), {}
        merges = _merges_txt(checkpoint)
        pre = _LEGACY_PRETOKENIZERS.get(str(checkpoint.config.get("model_type")), "gpt-2")
        flags["tokenizer.ggml.pre"] = pre
    _put_added(tokens, checkpoint, library, settings)
    if len(tokens.texts) > n_vocab:
        raise ModelError(
            f"{folder}: the tokenizer has {len(tokens.texts)} tokens, the embedding {n_vocab} rows"
        )
    texts = [f"[PAD{i}]" if text is None else text for i, text in enumerate(tokens.texts)]
    padding = range(len(texts), n_vocab)
    metadata: dict[str, Any] = {
        "tokenizer.ggml.model": kind,
        "tokenizer.ggml.tokens": texts + [f"[PAD{i}]" for i in padding],
        "tokenizer.ggml.token_type": np.array(tokens.kinds + [UNUSED] * len(padding), np.int32),
    }
    if merges is not None:
        metadata["tokenizer.ggml.merges"] = merges
    else:
        scores = tokens.scores + [_UNREACHABLE] * len(padding)
        metadata["tokenizer.ggml.scores"] = np.array(scores, np.float32)
    metadata |= flags
    metadata |= _special_ids(checkpoint, tokens, settings)
    metadata |= _added_around(library, settings)
    metadata |= _templates(checkpoint, settings)
    if library is not None:
        _compare(metadata, library, f"{folder}/tokenizer.json")
    return metadata


def _from_sentencepiece(model: sentencepiece.Model) -> tuple[_Tokens, dict[str, Any]]:
    tokens = _Tokens([], [], [])
    for i, piece in enumerate(model.pieces):
        tokens.put(i, piece.text, piece.kind, piece.score)
    flags: dict[str, Any] = {
        "tokenizer.ggml.add_space_prefix": model.add_space_prefix,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
    }
    ids = {"bos": model.bos, "eos": model.eos, "unknown": model.unknown, "padding": model.pad}
    return tokens, flags | {f"tokenizer.ggml.{k}_token_id": np.uint32(i) for k, i in ids.items() if i >= 0}


def _from_library(
    library: Mapping[str, Any], where: str
) -> tuple[str, _Tokens, list[str] | None, dict[str, Any]]:
    """Kind, tokens, merges where the kind needs them, and flags."""
    model = library.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        found = model.get("type") if isinstance(model, dict) else model
        raise UnsupportedError(f"{where}: model is {found!r:.80}, supported: BPE")
    vocabulary, merges = model.get("vocab"), _merges(model.get("merges"), where)
    tokens = _vocabulary(vocabulary, where)
    if model.get("byte_fallback"):
        return "llama", *_scored(tokens, merges, library, model)
    parts = list(_parts(library.get("pre_tokenizer"), "pretokenizers"))
    if not any(part.get("type") == "ByteLevel" for part in parts):
        raise UnsupportedError(f"{where}: neither byte_fallback nor a ByteLevel pre_tokenizer")
    if any(part.get("add_prefix_space") for part in parts):
        raise UnsupportedError(f"{where}: ByteLevel with add_prefix_space, supported: without")
    for part in _parts(library.get("normalizer"), "normalizers"):
        if part.get("type") != "NFC":
            raise UnsupportedError(f"{where}: normalizer is {part.get('type')!r:.80}, supported: none or NFC")
    pre = pretokenizers.name(
        _parse(library, where), ignore_merges=bool(model.get("ignore_merges")), where=where
    )
    return "gpt2", tokens, merges, {"tokenizer.ggml.pre": pre}


def _scored(
    tokens: _Tokens, merges: Sequence[str], library: Mapping[str, Any], model: Mapping[str, Any]
) -> tuple[_Tokens, None, dict[str, Any]]:
    """A vocabulary of merges of text, as sentencepiece has it: a token's score is minus its merge's rank."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        ranks.setdefault(merge.replace(" ", "", 1), rank)
    for i, text in enumerate(tokens.texts):
        if text in _BYTE_TOKENS:
            tokens.kinds[i] = BYTE
        elif text == model.get("unk_token"):
            tokens.kinds[i] = UNKNOWN
        elif text is not None and len(text) > 1:
            tokens.scores[i] = -float(ranks[text]) if text in ranks else _UNREACHABLE
    prefix = any(
        part.get("type") == "Prepend" for part in _parts(library.get("normalizer"), "normalizers")
    ) or any(
        part.get("prepend_scheme", "always" if part.get("add_prefix_space", True) else "never") != "never"
        for part in _parts(library.get("pre_tokenizer"), "pretokenizers")
        if part.get("type") == "Metaspace"
    )
    return tokens, None, {"tokenizer.ggml.add_space_prefix": prefix}


def _from_vocab_json(checkpoint: Checkpoint) -> _Tokens:
    vocabulary = checkpoint.json("vocab.json")
    if vocabulary is None:
        raise FileError(
            f"{checkpoint.folder}: no tokenizer, expected tokenizer.json, tokenizer.model, "
            f"or vocab.json and merges.txt"
        )
    return _vocabulary(vocabulary, f"{checkpoint.folder}/vocab.json")


def _merges_txt(checkpoint: Checkpoint) -> list[str]:
    text = checkpoint.text("merges.txt") or ""
    lines = [line for line in text.split("\n") if line and not line.startswith("#version")]
    return _merges(lines, f"{checkpoint.folder}/merges.txt")


def _vocabulary(vocabulary: Any, where: str) -> _Tokens:
    """The tokens of an object that gives ids of texts."""
    if not isinstance(vocabulary, dict) or not vocabulary:
        raise FormatError(f"{where}: vocab is {vocabulary!r:.80}, expected texts and ids")
    for text, token in vocabulary.items():
        if type(token) is not int or not 0 <= token < 2**24:
            raise FormatError(f"{where}: id of {text!r:.80} is {token!r:.80}, expected 0 to 2^24")
    if len(set(vocabulary.values())) < len(vocabulary):
        raise FormatError(f"{where}: two texts of vocab have the same id")
    tokens = _Tokens([], [], [])
    for text, token in sorted(vocabulary.items(), key=lambda pair: pair[1]):
        tokens.put(token, text, NORMAL)
    return tokens


def _merges(merges: Any, where: str) -> list[str]:
    """Pairs, written as one string or as two."""
    pairs = []
    for merge in merges if isinstance(merges, list) else ():
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(s, str) for s in pair):
            raise FormatError(f"{where}: merge is {merge!r:.80}, expected two texts")
        pairs.append(f"{pair[0]} {pair[1]}")
    if not pairs:
        raise FormatError(f"{where}: no merges")
    return pairs


def _put_added(
    tokens: _Tokens, checkpoint: Checkpoint, library: Mapping[str, Any] | None, settings: Mapping[str, Any]
) -> None:
    """Tokens that are looked for before anything else; those that are special carry no text of their own."""
    entries: list[tuple[Any, Any, Any]] = []
    for text, token in (checkpoint.json("added_tokens.json") or {}).items():
        entries.append((token, text, False))
    for entry in _objects((library or {}).get("added_tokens")):
        entries.append((entry.get("id"), entry.get("content"), entry.get("special")))
    decoder = settings.get("added_tokens_decoder")
    for token, entry in decoder.items() if isinstance(decoder, dict) else ():
        if isinstance(entry, dict) and token.isdecimal():
            entries.append((int(token), entry.get("content"), entry.get("special")))
    added: dict[int, tuple[str, bool]] = {}
    for token, text, special in entries:
        if type(token) is not int or not 0 <= token < 2**24 or not isinstance(text, str):
            raise FormatError(f"{checkpoint.folder}: added token {text!r:.80} has id {token!r:.80}")
        added[token] = (text, bool(special))
    for token, (text, special) in sorted(added.items()):
        known = tokens.kinds[token] if token < len(tokens.kinds) else UNUSED
        if known in (UNKNOWN, BYTE) and tokens.texts[token] == text:
            continue
        tokens.put(token, text, CONTROL if special else USER_DEFINED)


def _special_ids(checkpoint: Checkpoint, tokens: _Tokens, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Ids by role: named in tokenizer_config.json, else numbered by the model's configuration."""
    generation = checkpoint.json("generation_config.json") or {}
    metadata = {}
    for role, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        text = settings.get(f"{role}_token")
        token = tokens.id(text["content"] if isinstance(text, dict) and "content" in text else text)
        for source in (checkpoint.config, generation):
            if token is None:
                number = source.get(f"{role}_token_id")
                number = number[0] if isinstance(number, list) and number else number
                token = number if type(number) is int and 0 <= number < len(tokens.texts) else None
        if token is not None:
            metadata[f"tokenizer.ggml.{key}_token_id"] = np.uint32(token)
    return metadata


def _added_around(library: Mapping[str, Any] | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Whether a text begins with BOS and ends with EOS: tokenizer_config.json, else the template."""
    metadata = {}
    for part in _parts((library or {}).get("post_processor"), "processors"):
        if part.get("type") == "TemplateProcessing":
            kinds = [next(iter(item), "") for item in _objects(part.get("single"))]
            around = (kinds[:1], kinds[-1:])
            for role, kind in zip(("bos", "eos"), around, strict=True):
                metadata[f"tokenizer.ggml.add_{role}_token"] = kind == ["SpecialToken"]
    for role in ("bos", "eos"):
        if type(settings.get(f"add_{role}_token")) is bool:
            metadata[f"tokenizer.ggml.add_{role}_token"] = settings[f"add_{role}_token"]
    if library is not None:
        for role in ("bos", "eos"):
            metadata.setdefault(f"tokenizer.ggml.add_{role}_token", False)
    return metadata


def _templates(checkpoint: Checkpoint, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The chat template, and others by their names."""
    found = checkpoint.text("chat_template.jinja")
    found = (checkpoint.json("chat_template.json") or {}).get("chat_template") if found is None else found
    found = settings.get("chat_template") if found is None else found
    if isinstance(found, str):
        return {"tokenizer.chat_template": found}
    named = {str(entry.get("name")): str(entry.get("template")) for entry in _objects(found)}
    metadata: dict[str, Any] = {
        "tokenizer.chat_template" if name == "default" else f"tokenizer.chat_template.{name}": template
        for name, template in named.items()
    }
    others = [name for name in named if name != "default"]
    return metadata | ({"tokenizer.chat_templates": others} if others else {})


def _parts(value: Any, key: str) -> list[Mapping[str, Any]]:
    """A normalizer, pre-tokenizer or processor, or all of a sequence of them."""
    if not isinstance(value, dict):
        return []
    return _objects(value.get(key)) if value.get("type") == "Sequence" else [value]


def _objects(value: Any) -> list[Mapping[str, Any]]:
    """The objects in a list; what is no list holds none."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _parse(library: Mapping[str, Any], where: str) -> Any:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(json.dumps(library))
    except Exception as error:  # the library's own, which has no class
        raise FormatError(f"{where}: cannot be read: {error}") from error


def _compare(metadata: Mapping[str, Any], library: Mapping[str, Any], where: str) -> None:
    """Raises UnsupportedError if the file's tokenizer gives other ids than the checkpoint's."""
    from clarion.tokenizer import Tokenizer

    ours, theirs = Tokenizer.from_metadata(_plain(metadata)), _parse(library, where)
    for text in pretokenizers.COMMON.split("\n\t"):
        found = ours.encode(text, add_special=False)
        expected = theirs.encode(text, add_special_tokens=False).ids
        if found != expected:
            i = next((i for i, pair in enumerate(zip(found, expected)) if pair[0] != pair[1]), 0)  # noqa: B905
            raise UnsupportedError(
                f"{where}: as metadata it gives other tokens: {found[i : i + 4]} for {expected[i : i + 4]}, "
                f"after {theirs.decode(expected[:i])[-20:]!r}"
            )


def _plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """numpy's numbers as Python's, as a file gives them."""
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in metadata.items()}
