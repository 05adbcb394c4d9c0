"""What a caller gave as prompt: one, or several."""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from clarion.errors import ParameterError

Prompt = str | Iterable[int]

# Characters or token ids of a prompt that is read in less than about 0.1 ms, which is what it takes to let
# another thread do it.
_SHORT: Final = 1024


def look(prompt: object) -> tuple[Any, bool]:
    """The prompt, as a text or a list, and whether the list holds prompts instead of token ids.

    Raises:
        ParameterError: it is neither; or a conversation, or a part of one.
    """
    if isinstance(prompt, str):
        return prompt, False
    if not isinstance(prompt, Iterable) or isinstance(prompt, bytes | bytearray | Mapping):
        raise _error("prompt", prompt, "a text, token ids, or a list of these")
    items = list(prompt)
    if not items or not (_is_prompt(items[0]) or isinstance(items[0], Mapping)):
        return items, False
    for i, item in enumerate(items):
        if not _is_prompt(item):
            raise _error(f"prompt {i}", item, "a text or token ids")
    return items, True


def is_short(prompt: object) -> bool:
    """Whether an event loop reads a prompt itself: what it is, is known, and is little."""
    return isinstance(prompt, str | list | tuple) and len(prompt) <= _SHORT


def _error(name: str, found: object, expected: str) -> ParameterError:
    hint = "; `chat` takes messages" if isinstance(found, Mapping) else ""
    return ParameterError(f"{name}: found {reprlib.repr(found)}, expected {expected}{hint}")


def _is_prompt(item: object) -> bool:
    if isinstance(item, str):
        return True
    try:
        operator.index(item)  # type: ignore[arg-type]
    except TypeError:
        return isinstance(item, Iterable) and not isinstance(item, bytes | bytearray | Mapping)
    return False  # an array without dimensions, say


def check_ids(tokens: Iterable[int], n_vocab: int | None) -> list[int]:
    """Token ids, or a ParameterError that names the one that is none. `n_vocab`: None where nobody knows."""
    if not isinstance(tokens, Iterable) or isinstance(tokens, str | bytes):
        raise ParameterError(f"tokens: found {tokens!r:.40}, expected token ids")
    ids = []
    for i, token in enumerate(tokens):
        try:
            ids.append(operator.index(token))
        except TypeError:
            raise ParameterError(f"token {i}: found {token!r}, expected a token id") from None
        if ids[-1] < 0 or (n_vocab is not None and ids[-1] >= n_vocab):
            most = "or more" if n_vocab is None else f"to {n_vocab - 1}"
            raise ParameterError(f"token {i}: found {ids[-1]}, expected 0 {most}")
    return ids
