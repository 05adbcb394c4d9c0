"""What a request ends with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A generated token under the model's own distribution: before bias, penalties, filters, temperature."""

    token: int
    logprob: float  # natural logarithm
    top: tuple[tuple[int, float], ...]  # (token, logprob) of the most probable tokens, most probable first


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of one request went, in seconds. What was cancelled counts as far as it came."""

    prompt_tokens: int  # computed or reused: all of the prompt, unless it was cancelled before
    reused_tokens: int  # of the prompt, whose keys and values were still in the cache
    generated_tokens: int  # with the one that ended the text
    waiting: float  # until the engine took the request up
    prompt: float  # from then to the first token, or to the last step of a prompt that was not finished
    generation: float  # from the first token to the last

    @property
    def first_token(self) -> float:
        """From the request to its first token; 0 where there was none."""
        return self.waiting + self.prompt if self.generated_tokens else 0.0

    @property
    def prompt_rate(self) -> float:
        """Prompt tokens computed in a second; 0 where nothing was measured."""
        return (self.prompt_tokens - self.reused_tokens) / self.prompt if self.prompt > 0 else 0.0

    @property
    def generation_rate(self) -> float:
        """Tokens generated in a second after the first; 0 where there was no second one."""
        return (self.generated_tokens - 1) / self.generation if self.generation > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Completion:
    """The result of `generate`.

    Attributes:
        text: what was generated, without the string that ended it.
        tokens: every token generated, without the one that ended the text, with those of a stop string.
        finish_reason: "stop" (by the model or a stop), "length" (`max_tokens` or the context), "cancelled".
        stopped_by: the stop string or the token that ended it.
        logprobs: one for each of `tokens`, where they were asked for.
        seed: draws the same tokens again.
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    stopped_by: str | int | None
    logprobs: tuple[TokenLogprob, ...] | None
    seed: int
    timings: Timings
