"""What stands between two texts: prompts for models that were trained to fill in the middle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from clarion.model import Model
from clarion.server.errors import RefusedError

# Of the tokens that begin the text before, the text behind, and what is to be written: the key in the file,
# and the names that families give them.
_TOKENS: Final = (
    (
        "tokenizer.ggml.fim_pre_token_id",
        ("<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<|fim▁begin|>", "<PRE>", "▁<PRE>", "[PREFIX]"),
    ),
    (
        "tokenizer.ggml.fim_suf_token_id",
        ("<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<|fim▁hole|>", "<SUF>", "▁<SUF>", "[SUFFIX]"),
    ),
    (
        "tokenizer.ggml.fim_mid_token_id",
        ("<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<|fim▁end|>", "<MID>", "▁<MID>", "[MIDDLE]"),
    ),
)

# Of those that begin a collection of files, and a file in it.
_FILES: Final = (
    ("tokenizer.ggml.fim_rep_token_id", ("<|repo_name|>", "<reponame>", "<repo_name>")),
    ("tokenizer.ggml.fim_sep_token_id", ("<|file_sep|>", "<file_sep>", "<filename>")),
)


class Extra(msgspec.Struct):
    """Another file that the model is shown."""

    text: str
    filename: str = ""


def infill(model: Model, before: str, after: str, extra: Sequence[Extra] = ()) -> list[int]:
    """The ids of a prompt whose continuation stands between the two texts.

    Other files stand before: behind the tokens that the model was trained to find there, or, where it has
    none, as texts.

    Raises:
        RefusedError: 400, the vocabulary has no tokens for that.
    """
    prefix, suffix, middle = (_token(model, key, names) for key, names in _TOKENS)
    return [
        *model.tokenizer.before,
        *_files(model, extra),
        prefix,
        *model.tokenize(before, add_special=False),
        suffix,
        *model.tokenize(after, add_special=False),
        middle,
    ]


def _files(model: Model, extra: Sequence[Extra]) -> list[int]:
    if not extra:
        return []
    repository, file = (_found(model, key, names) for key, names in _FILES)
    ids: list[int] = []
    if file is None:
        for each in extra:
            ids += model.tokenize(f"\n\n{each.filename}\n{each.text}", add_special=False)
        return [*ids, *model.tokenize("\n\n", add_special=False)]
    if repository is not None:
        ids = [repository, *model.tokenize("repository\n", add_special=False)]
    for each in extra:
        ids += [file, *model.tokenize(f"{each.filename}\n{each.text}\n", add_special=False)]
    return [*ids, file, *model.tokenize("this file\n", add_special=False)]


def _token(model: Model, key: str, names: tuple[str, ...]) -> int:
    if (found := _found(model, key, names)) is not None:
        return found
    raise RefusedError(
        400,
        f"suffix: the model's vocabulary has no token {names[0]} (or {', '.join(names[1:3])}, ...), so it "
        f"cannot fill in the middle",
        param="suffix",
        code="unsupported",
    )


def _found(model: Model, key: str, names: tuple[str, ...]) -> int | None:
    found = model.metadata.get(key)
    if isinstance(found, int) and 0 <= found < model.n_vocab:
        return found
    for name in names:
        ids = model.tokenize(name, add_special=False, parse_special=True)
        if len(ids) == 1:
            return ids[0]
    return None
