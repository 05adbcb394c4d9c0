"""What a checkpoint of Sentence Transformers says beside its model: how rows become a text's vector, what
stands before texts of a kind, and where long texts are cut."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from clarion.convert.checkpoint import SENTENCE_LIMITS, Checkpoint
from clarion.convert.config import Config, whole
from clarion.errors import FormatError, UnsupportedError
from clarion.tokenizer.settings import DEFAULT_PROMPT, PROMPTS, TEXT_LENGTH

# The file's numbers, by the keys of older files and the names of newer ones.
_FLAG = "pooling_mode_"
_MODES = {"mean": 1, "cls": 2, "lasttoken": 3}
_FLAGS = {f"{_FLAG}mean_tokens": "mean", f"{_FLAG}cls_token": "cls", f"{_FLAG}lasttoken": "lasttoken"}
# Modules as their authors order them: the length of a vector is made 1 behind all that changes it.
_ORDER = ("Transformer", "Pooling", "Dense", "Dropout", "Normalize")
_SEVERAL = ("Dense", "Dropout")
_LONGEST_NAME = 255  # bytes that a name in a folder has at most
_FOLDER = re.compile(r"[^/\\\0]+")


def convert(checkpoint: Checkpoint, model: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata of a model of vectors; nothing where the checkpoint is none.

    Args:
        model, tokenizer: the metadata of its model and its tokenizer.

    Raises:
        FormatError: a file is malformed.
        ModelError: a file contradicts itself, or a figure is out of range.
        UnsupportedError: another way to make a vector of a text.
    """
    architecture = model["general.architecture"]
    metadata: dict[str, Any] = {}
    for kind, path in _modules(checkpoint):
        if kind not in ("Pooling", "Dense"):
            continue
        where = f"{checkpoint.folder}/{path}/config.json"
        options = checkpoint.json(f"{path}/config.json")
        if options is None:
            raise FormatError(f"{where} is missing, which modules.json names")
        if kind == "Pooling":
            metadata[f"{architecture}.pooling_type"] = _mode(Config(options, where), options)
        else:
            metadata |= _dense(Config(options, where), f"{architecture}.dense_{path.partition('_')[0]}")
    longest = _longest(checkpoint, tokenizer)
    shorter = longest is not None and longest < model[f"{architecture}.context_length"]
    return metadata | _prompts(checkpoint) | ({TEXT_LENGTH: longest} if shorter else {})


def _modules(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    """What makes the vector, in order: kinds of modules, and their folders, of which the model's is ""."""
    last = ""
    for i, module in enumerate(checkpoint.list("modules.json")):
        where = f"{checkpoint.folder}/modules.json: module {i}"
        kind, path = module.get("type"), module.get("path")
        name = kind.rpartition(".")[2] if isinstance(kind, str) else ""
        if not isinstance(kind, str) or not kind.startswith("sentence_transformers.") or name not in _ORDER:
            raise UnsupportedError(f"{where} is {kind!r:.120}, supported: {', '.join(_ORDER)}")
        if (last and _ORDER.index(name) < _ORDER.index(last)) or (name == last and name not in _SEVERAL):
            raise UnsupportedError(f"{where} is {kind!r:.120} behind {last}, supported: {', '.join(_ORDER)}")
        last = name
        if name == "Transformer":
            if path != "":
                raise UnsupportedError(f"{where} has path {path!r:.80}, supported: '', beside modules.json")
        elif not isinstance(path, str) or not _is_folder(path):
            raise FormatError(f"{where} has path {path!r:.80}, expected the name of a folder beside it")
        elif name == "Dense" and not re.fullmatch(r"\d+_Dense", path):
            raise UnsupportedError(f"{where} has path {path!r:.80}, supported: a number, as 2_Dense")
        yield name, path


def _is_folder(path: str) -> bool:
    """Whether a path is one name, of something in the folder that it is looked for in."""
    try:
        short = len(os.fsencode(path)) <= _LONGEST_NAME
    except UnicodeEncodeError:
        return False
    return short and path not in (".", "..") and _FOLDER.fullmatch(path) is not None


def _dense(config: Config, key: str) -> dict[str, Any]:
    """The size of a matrix behind the pooling."""
    config.only("bias", False)
    config.only("activation_function", "torch.nn.modules.linear.Identity")
    return {
        f"{key}_feat_in": config.integer("in_features"),
        f"{key}_feat_out": config.integer("out_features"),
    }


def _mode(config: Config, options: Mapping[str, Any]) -> int:
    """The file's number of the pooling, which has a name, or a flag for each, or both."""
    config.only("include_prompt", True)
    flags = {key: config.flag(key) for key in options if key.startswith(_FLAG)}
    by_flags = [_FLAGS.get(key, key) for key, value in flags.items() if value]
    named = config.get("pooling_mode")
    wanted = by_flags if named is None else [named] if isinstance(named, str) else named
    if not isinstance(wanted, list) or len(wanted) != 1 or wanted[0] not in list(_MODES):
        raise config.unsupported("pooling_mode", wanted, "one of mean, cls, lasttoken")
    if flags and by_flags != wanted:
        found = ", ".join(key for key, value in flags.items() if value) or "none"
        raise config.error("pooling_mode", wanted[0], f"what the keys {_FLAG}* say, of which {found} is true")
    return _MODES[wanted[0]]


def _prompts(checkpoint: Checkpoint) -> dict[str, str]:
    """What stands before texts of a kind, and of which kind a text is where nobody says."""
    where = f"{checkpoint.folder}/config_sentence_transformers.json"
    settings = checkpoint.json("config_sentence_transformers.json") or {}
    prompts = {} if settings.get("prompts") is None else settings["prompts"]
    if (
        not isinstance(prompts, dict)
        or not all(prompts)
        or not all(_is_text(text) for pair in prompts.items() for text in pair)
    ):
        raise FormatError(f"{where}: prompts is {prompts!r:.80}, expected texts by name")
    metadata = {f"{PROMPTS}.{name}": text for name, text in prompts.items() if text}
    default = settings.get("default_prompt_name")
    if default is None:
        return metadata
    if not isinstance(default, str) or default not in prompts:
        known = ", ".join(map(repr, prompts)) or "none"
        raise FormatError(
            f"{where}: default_prompt_name is {default!r:.80}, expected of prompts {known:.200}"
        )
    return metadata | ({DEFAULT_PROMPT: default} if prompts[default] else {})


def _is_text(value: object) -> bool:
    """Whether it is a text, without half a character as JSON can have it."""
    return isinstance(value, str) and value.encode(errors="replace").decode() == value


def _longest(checkpoint: Checkpoint, tokenizer: Mapping[str, Any]) -> int | None:
    """After how many tokens texts are cut; None: where the model's positions end."""
    beside = ((name, checkpoint.json(name)) for name in SENTENCE_LIMITS)
    name, settings = next(((name, found) for name, found in beside if found is not None), ("", {}))
    config = Config(settings, f"{checkpoint.folder}/{name}")
    if config.flag("do_lower_case", default=False) and not _lowers(tokenizer):
        raise config.unsupported("do_lower_case", True, "false, or true of a tokenizer that does so itself")
    if config.get("max_seq_length") is not None:
        return config.integer("max_seq_length")
    if checkpoint.raw("modules.json") is None:
        return None
    # Without that number Sentence Transformers cuts where the tokenizer ends; one without an end has 10^30.
    most = whole((checkpoint.json("tokenizer_config.json") or {}).get("model_max_length"))
    return most if most is not None and most > 0 else None


def _lowers(tokenizer: Mapping[str, Any]) -> bool:
    """Whether capital letters are small ones to the tokenizer."""
    model, flag = (tokenizer.get(f"tokenizer.ggml.{key}") for key in ("model", "normalizer.lowercase"))
    return model == "bert" and flag is not False
