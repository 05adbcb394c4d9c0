"""Which tokens of a long text are predicted from which."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from clarion.errors import ParameterError
from clarion.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens to compute together, and those that are to be predicted.

    Attributes:
        tokens: what the model sees.
        first: the first of them whose logits are wanted; row t predicts `targets[t]`.
        targets: the tokens that follow `tokens[first]` and the ones after it.
        position: of the first target in the text.
    """

    tokens: list[int]
    first: int
    targets: list[int]
    position: int


def beginning(tokenizer: Tokenizer) -> int | None:
    """The BOS that each chunk begins with, where the model's tokenizer puts one before a text."""
    return (
        tokenizer.bos if tokenizer.bos is not None and tokenizer.encode("")[:1] == [tokenizer.bos] else None
    )


def halves(tokens: Sequence[int], context: int, bos: int | None) -> Iterator[Chunk]:
    """As llama.cpp's `llama-perplexity` does: chunks side by side, of which the second half is scored.

    What does not fill a chunk at the text's end is left out. `bos`, where there is one, takes the place of
    each chunk's first token.

    Raises:
        ParameterError: the text fills fewer than two chunks.
    """
    _check(tokens, context)
    if len(tokens) < 2 * context:
        raise ParameterError(
            f"the text has {len(tokens)} tokens, expected at least two chunks of {context}: {2 * context}"
        )
    first = context // 2
    for begin in range(0, len(tokens) - context + 1, context):
        end = begin + context
        yield _chunk(tokens, begin, end, begin + first + 1, bos)


def windows(tokens: Sequence[int], context: int, stride: int, bos: int | None) -> Iterator[Chunk]:
    """A window that moves by `stride`: every token but the first is scored once.

    Those of the first window see what is before them, all others at least context - stride tokens.

    Raises:
        ParameterError: the text is shorter than two tokens, or the stride is not 1 to context - 1.
    """
    _check(tokens, context)
    if not 1 <= stride < context:
        raise ParameterError(f"stride is {stride}, expected 1 to {context - 1}")
    if len(tokens) < 2:
        raise ParameterError(f"the text has {len(tokens)} tokens, expected at least 2")
    end = min(context, len(tokens))
    yield _chunk(tokens, 0, end, 1, None)
    while end < len(tokens):
        scored = end
        end = min(end + stride, len(tokens))
        yield _chunk(tokens, end - context, end, scored, bos)


def _check(tokens: Sequence[int], context: int) -> None:
    if context < 4:
        raise ParameterError(f"context is {context}, expected at least 4")


def _chunk(tokens: Sequence[int], begin: int, end: int, scored: int, bos: int | None) -> Chunk:
    """The targets are tokens scored to end; the last token is only a target."""
    seen = list(tokens[begin : end - 1])
    if bos is not None:
        seen[0] = bos
    return Chunk(seen, scored - begin - 1, list(tokens[scored:end]), scored)
