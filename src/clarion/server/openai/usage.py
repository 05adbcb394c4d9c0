"""Tokens of a request, counted from what the engine says of its texts."""

from __future__ import annotations

from collections.abc import Sequence

from clarion.runtime.completion import Completion
from clarion.server.openai.types import CompletionDetails, PromptDetails, Usage


def usage(prompts: Sequence[Sequence[Completion]], n_reasoning: int | None = None) -> Usage:
    """The usage of a request: for each of its prompts, the texts that were written. A prompt counts once."""
    n_prompt = sum(texts[0].timings.prompt_tokens for texts in prompts if texts)
    n_reused = sum(texts[0].timings.reused_tokens for texts in prompts if texts)
    n_text = sum(text.timings.generated_tokens for texts in prompts for text in texts)
    details = None if n_reasoning is None else CompletionDetails(n_reasoning)
    return Usage(n_prompt, n_text, n_prompt + n_text, PromptDetails(n_reused), details)
