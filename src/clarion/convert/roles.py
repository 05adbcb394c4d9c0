"""Which tokens of a checkpoint begin a text, end it, end a generation, stand for what is unknown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from clarion.convert.checkpoint import Checkpoint
from clarion.convert.config import whole
from clarion.errors import FormatError, ModelError
from clarion.tokenizer.settings import OWN

_KEYS = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
# Where no token is named, a file's reader takes the one with the usual number.
_HAVE_DEFAULTS = {"llama": ("bos", "eos", "unknown"), "gpt2": ("bos", "eos")}

_END_OF_NOBODY = 2  # `eos_token_id` of config.json where nobody set it


def named(checkpoint: Checkpoint, settings: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Tokens by role, as objects with `content`: in tokenizer_config.json, else special_tokens_map.json.

    transformers read the second only where the first does not list the added tokens, and there it wins.

    Raises:
        FormatError: what stands for a role is no token.
    """
    beside = _tokens(
        checkpoint.json("special_tokens_map.json") or {}, f"{checkpoint.folder}/special_tokens_map.json"
    )
    own = _tokens(settings, f"{checkpoint.folder}/tokenizer_config.json")
    if "added_tokens_decoder" in settings:
        return {role: token for role, token in beside.items() if f"{role}_token" not in settings} | own
    return own | beside


def more(checkpoint: Checkpoint, settings: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Special tokens without a role, of the same files.

    Raises:
        FormatError: what stands there is no list of tokens.
    """
    files = [("tokenizer_config.json", settings)]
    if "added_tokens_decoder" not in settings:
        files.append(("special_tokens_map.json", checkpoint.json("special_tokens_map.json") or {}))
    for name, values in files:
        for key in ("additional_special_tokens", "extra_special_tokens"):
            found = values.get(key) or []
            found = list(found.values()) if isinstance(found, dict) else found
            for token in map(_token, found) if isinstance(found, list) else [None]:
                if token is None:
                    raise FormatError(f"{checkpoint.folder}/{name}: {key} is {found!r:.80}, expected tokens")
                yield token


def special_ids(
    kind: str,
    names: Mapping[str, Mapping[str, Any]],
    ids: Mapping[str, int],
    checkpoint: Checkpoint,
    n_vocab: int,
    around: tuple[Sequence[int], Sequence[int]] | None,
    known: Mapping[str, int],
    added: Iterable[int],
) -> tuple[dict[str, Any], list[int]]:
    """Metadata with the ids of roles, and all tokens that end a generation.

    Args:
        kind: `tokenizer.ggml.model`.
        names: tokens by role.
        ids: of the vocabulary's texts.
        around: what the post-processor puts before and after a text, where there is one.
        known: ids by role of sentencepiece's model, which hold where nothing else names one.
        added: tokens that are no ordinary ones of the vocabulary.

    Raises:
        ModelError: an id is no integer, or out of range.
    """
    generation = checkpoint.json("generation_config.json") or {}
    files = [("config.json", checkpoint.config), ("generation_config.json", generation)]

    def numbers(role: str, file: tuple[str, Mapping[str, Any]]) -> list[int]:
        return _numbers(f"{checkpoint.folder}/{file[0]}", f"{role}_token_id", file[1], n_vocab)

    found: dict[str, int] = {}
    for role in _KEYS:
        token = ids.get(str(names[role]["content"])) if role in names else None
        if token is None and role == "bos" and around is not None and around[0]:
            token = around[0][0]
        if token is None:
            token = known.get(role)
        if token is None and role != "eos":
            given = [i for file in files for i in numbers(role, file)]
            token = given[0] if given else None
        if token is not None:
            found[role] = token
    ends = numbers("eos", files[1])
    single = checkpoint.config.get("eos_token_id")
    # transformers read config.json only where generation_config.json gives no ends, and write a number there
    # where nobody set it. So one number that is a token like others counts only where nothing says better.
    ordinary = whole(single) not in (None, *added)
    unset = "eos" in found and (whole(single) == _END_OF_NOBODY or not _is_id(single, n_vocab))
    if not (ordinary and (ends or unset)):
        ends += numbers("eos", files[0])
    if "eos" not in found and ends:
        found["eos"] = ends[0]
    if "eos" in found:
        ends = [found["eos"], *ends]
    elif "eos" in names:
        raise ModelError(
            f"{checkpoint.folder}: eos_token is {names['eos']['content']!r:.80}, "
            f"which is not in the vocabulary"
        )
    metadata: dict[str, Any] = {
        f"tokenizer.ggml.{key}_token_id": np.uint32(found[role])
        for role, key in _KEYS.items()
        if role in found
    }
    if any(f"tokenizer.ggml.{key}_token_id" not in metadata for key in _HAVE_DEFAULTS.get(kind, ())):
        metadata[OWN + "default_token_ids"] = False
    ends = list(dict.fromkeys(ends))
    for key, token in zip(("eot", "eom"), ends[1:], strict=False):
        metadata[f"tokenizer.ggml.{key}_token_id"] = np.uint32(token)
    return metadata, ends


def added_around(metadata: Mapping[str, Any], before: Sequence[int], after: Sequence[int]) -> dict[str, Any]:
    """Metadata that puts tokens around a text; keys of our own where BOS and EOS do not say it."""
    bos, eos = (metadata.get(f"tokenizer.ggml.{role}_token_id") for role in ("bos", "eos"))
    found: dict[str, Any] = {
        "tokenizer.ggml.add_bos_token": before[:1] == [bos],
        "tokenizer.ggml.add_eos_token": after[-1:] == [eos],
    }
    if (before and before != [bos]) or (after and after != [eos]):
        for side, tokens in (("before", before), ("after", after)):
            if tokens:
                found[f"{OWN}{side}_token_ids"] = np.array(tokens, np.uint32)
    return found


def _tokens(values: Mapping[str, Any], where: str) -> dict[str, Mapping[str, Any]]:
    """All keys like `bos_token`, by what stands before `_token`."""
    found = {}
    for key, value in values.items():
        role = key.removesuffix("_token")
        token = _token(value) if role != key else None
        if token is not None:
            found[role] = token
        elif role != key and role in _KEYS and value is not None:
            raise FormatError(f"{where}: {key} is {value!r:.80}, expected a token")
    return found


def _token(value: Any) -> Mapping[str, Any] | None:
    """A token, written as its text or as an object; its text has no half of a surrogate pair."""
    token = {"content": value} if isinstance(value, str) else value
    content = token.get("content") if isinstance(token, Mapping) else None
    return token if isinstance(content, str) and not re.search("[\ud800-\udfff]", content) else None


def _is_id(value: Any, n_vocab: int) -> bool:
    token = whole(value)
    return token is not None and 0 <= token < n_vocab


def _numbers(where: str, key: str, values: Mapping[str, Any], n_vocab: int) -> list[int]:
    """The ids of a key that holds one or a list of them."""
    value = values.get(key)
    required = key.startswith(("bos", "eos"))
    found = []
    for item in value if isinstance(value, list) else () if value is None else (value,):
        token = whole(item)
        if token is not None and _is_id(token, n_vocab):
            found.append(token)
        elif required:  # others are often numbers of tokens that nobody ever added
            raise ModelError(
                f"{where}: {key} is {value!r:.80}, expected ids below the embedding's {n_vocab} rows"
            )
    return found
