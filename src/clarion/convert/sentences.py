"""What a checkpoint of Sentence Transformers says beside its model: how rows become a text's vector, and what
stands before texts of a kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from clarion.convert.checkpoint import Checkpoint
from clarion.convert.config import Config
from clarion.errors import FormatError, UnsupportedError
from clarion.tokenizer.settings import PROMPTS

# The file's numbers, by the keys of older files and the names of newer ones.
_MODES = {
    "pooling_mode_mean_tokens": 1,
    "pooling_mode_cls_token": 2,
    "pooling_mode_lasttoken": 3,
    "mean": 1,
    "cls": 2,
    "lasttoken": 3,
}


def convert(checkpoint: Checkpoint, architecture: str) -> dict[str, Any]:
    """Metadata of a model of vectors; nothing where the checkpoint is none.

    Raises:
        FormatError: a file is malformed.
        UnsupportedError: another way to make a vector of rows.
    """
    metadata: dict[str, Any] = {}
    for kind, path, options in _modules(checkpoint):
        where = f"{checkpoint.folder}/{path}/config.json"
        if kind == "Pooling":
            metadata[f"{architecture}.pooling_type"] = _mode(options, where)
        elif kind == "Dense":
            metadata |= _dense(options, f"{architecture}.dense_{path.partition('_')[0]}", where)
    settings = checkpoint.json("config_sentence_transformers.json") or {}
    prompts = settings.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, str) for text in prompts.values()):
        where = f"{checkpoint.folder}/config_sentence_transformers.json"
        raise FormatError(f"{where}: prompts is {prompts!r:.80}, expected texts by name")
    return metadata | {f"{PROMPTS}.{name}": text for name, text in prompts.items() if text}


def _modules(checkpoint: Checkpoint) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """What stands behind the model: kinds of modules, their folders, and their options."""
    for module in checkpoint.list("modules.json"):
        kind, path = (module.get(key) for key in ("type", "path"))
        name = kind.rpartition(".")[2] if isinstance(kind, str) else ""
        if name not in ("Pooling", "Dense"):
            continue
        if not isinstance(path, str) or not path:
            raise FormatError(f"{checkpoint.folder}/modules.json: path is {path!r:.80}, expected a folder")
        options = checkpoint.json(f"{path}/config.json")
        if options is None:
            raise FormatError(f"{checkpoint.folder}/{path}/config.json is missing, which modules.json names")
        yield name, path, options


def _dense(options: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    """The size of a matrix behind the pooling."""
    config = Config(options, where)
    config.only("bias", False)
    config.only("activation_function", "torch.nn.modules.linear.Identity")
    return {
        f"{key}_feat_in": config.integer("in_features"),
        f"{key}_feat_out": config.integer("out_features"),
    }


def _mode(settings: Mapping[str, Any], where: str) -> int:
    named = settings.get("pooling_mode")
    modes = [key for key, value in settings.items() if key.startswith("pooling_mode_") and value is True]
    wanted = [named] if isinstance(named, str) else modes
    if len(wanted) != 1 or wanted[0] not in _MODES:
        raise UnsupportedError(f"{where}: pools by {wanted!r:.80}, supported: one of mean, cls, lasttoken")
    return _MODES[wanted[0]]
