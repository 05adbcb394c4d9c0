"""What prompts of requests have in common."""

from __future__ import annotations

from collections.abc import Sequence

from clarion.errors import ContextError, ParameterError
from clarion.model import Model


def check_room(model: Model, ids: Sequence[int]) -> None:
    """
    Raises:
        ParameterError: the prompt has no tokens.
        ContextError: it leaves no room for an answer.
    """
    if not ids:
        raise ParameterError("prompt: found no tokens, expected at least one")
    if len(ids) >= model.context:
        # Clients find the usual words in it.
        raise ContextError(
            f"the prompt has {len(ids)} tokens, but this model's maximum context length is {model.context} "
            f"tokens, prompt and answer together; -c gives it more (it was made for "
            f"{model.program.hyperparameters.context_length})"
        )
