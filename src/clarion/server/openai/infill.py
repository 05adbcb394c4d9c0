"""What stands between two texts: prompts for models that were trained to fill in the middle."""

from __future__ import annotations

from typing import Final

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


def infill(model: Model, before: str, after: str) -> list[int]:
    """The ids of a prompt whose continuation stands between the two texts.

    Raises:
        RefusedError: 400, the vocabulary has no tokens for that.
    """
    prefix, suffix, middle = (_token(model, key, names) for key, names in _TOKENS)
    return [
        *model.tokenizer.before,
        prefix,
        *model.tokenize(before, add_special=False),
        suffix,
        *model.tokenize(after, add_special=False),
        middle,
    ]


def _token(model: Model, key: str, names: tuple[str, ...]) -> int:
    found = model.metadata.get(key)
    if isinstance(found, int) and 0 <= found < model.n_vocab:
        return found
    for name in names:
        ids = model.tokenize(name, add_special=False, parse_special=True)
        if len(ids) == 1:
            return ids[0]
    raise RefusedError(
        400,
        f"suffix: the model's vocabulary has no token {names[0]} (or {', '.join(names[1:3])}, ...), so it "
        f"cannot fill in the middle",
        param="suffix",
        code="unsupported",
    )
