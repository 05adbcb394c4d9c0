"""Answers of a server become what `Model` gives: pieces and completions.

Clarion's servers say all of it in the field `clarion` of each choice. Others say the text and how it ended;
then a completion has no tokens, and its timings are what was seen from here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any, cast

from clarion.client.fields import Asked
from clarion.errors import ServerError, UnsupportedError
from clarion.runtime.completion import Completion, FinishReason, Timings, TokenLogprob
from clarion.runtime.pieces import Piece

# Between these a text has its reasoning, where a server sets it apart.
_OPEN, _CLOSE = "<think>\n", "\n</think>\n\n"


class Text:
    """One text, as far as it has come.

    Attributes:
        completion: the whole, once it is there.
        prompt_tokens: how long the prompt is, once that is known.
        is_over: the server has said how it ended.
    """

    def __init__(self, asked: Asked) -> None:
        self.completion: Completion | None = None
        self.prompt_tokens: int | None = None
        self.is_over = False
        self._asked = asked
        self._text: list[str] = []
        self._tokens: list[int] = []
        self._logprobs: list[TokenLogprob] | None = [] if "logprobs" in asked.fields else None
        self._reason: FinishReason = "stop"
        self._is_reasoning = False
        self._usage: Mapping[str, Any] = {}
        self._started = time.perf_counter()
        self._first = self._last = 0.0

    # ---- what comes ---------------------------------------------------------------------------------------

    def take(self, choice: Mapping[str, Any]) -> Piece | None:
        """A choice of a chunk, or of a whole answer; gives its piece of text, if it has one."""
        found = choice.get("clarion")
        if not self._asked.has_details:
            piece = Piece(self._said(choice))
        elif isinstance(found, dict) and "timings" in found:
            self.completion = _completion(found, self._asked.detokenize)
            self.is_over = True
            return None
        elif isinstance(found, dict):
            self.prompt_tokens = found["prompt_tokens"]
            piece = Piece(found["text"], tuple(found["tokens"]), _logprobs(found["logprobs"]))
        else:
            return None  # who answers, before there is a text
        if (reason := choice.get("finish_reason")) is not None:
            self._reason = _reason(reason)
            self.is_over = True
        if not piece and not piece.tokens:
            return None
        self._last = time.perf_counter()
        self._first = self._first or self._last
        self._tokens += piece.tokens
        if self._logprobs is not None:
            self._logprobs += piece.logprobs or ()
        if not self._asked.detokenize:
            return None
        self._text.append(piece)
        return piece

    def count(self, usage: object) -> None:
        """The tokens of the request."""
        if isinstance(usage, dict):
            self._usage = usage

    # ---- what there is ------------------------------------------------------------------------------------

    def whole(self) -> Completion:
        """The completion, once the text is over."""
        return self.completion or self._so_far(self._reason)

    def cancelled(self) -> Completion:
        """What there is of a text that was left."""
        return self.completion or self._so_far("cancelled")

    def _so_far(self, reason: FinishReason) -> Completion:
        details = self._usage.get("prompt_tokens_details")
        reused = details.get("cached_tokens") if isinstance(details, dict) else None
        timings = Timings(
            prompt_tokens=self._usage.get("prompt_tokens") or self.prompt_tokens or 0,
            reused_tokens=reused or 0,
            generated_tokens=self._usage.get("completion_tokens") or len(self._tokens),
            waiting=0.0,
            prompt=(self._first or time.perf_counter()) - self._started,
            generation=self._last - self._first,
        )
        return Completion(
            "".join(self._text),
            tuple(self._tokens),
            reason,
            None,
            None if self._logprobs is None else tuple(self._logprobs),
            self._asked.seed,
            timings,
        )

    # ---- other servers ------------------------------------------------------------------------------------

    def _said(self, choice: Mapping[str, Any]) -> str:
        """The text of a choice in OpenAI's form; reasoning stands where models write it."""
        message = choice.get("delta", choice.get("message"))
        if not isinstance(message, dict):
            text = choice["text"]
            if not isinstance(text, str):
                raise TypeError(f"found the text {text!r:.40}")
            return text
        if message.get("tool_calls"):
            raise UnsupportedError(
                "the server answers with calls of tools, which it sets apart from the text"
            )
        reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
        content = message.get("content") or message.get("refusal") or ""
        said = ""
        if reasoning:
            said = reasoning if self._is_reasoning else _OPEN + reasoning
            self._is_reasoning = True
        if content and self._is_reasoning:
            said += _CLOSE
            self._is_reasoning = False
        return f"{said}{content}"


def _completion(found: Mapping[str, Any], detokenize: bool) -> Completion:
    """The completion that these details describe."""
    logprobs = _logprobs(found["logprobs"])
    timings = Timings(**found["timings"])
    text = found["text"] if detokenize else ""
    reason = cast(FinishReason, found["finish_reason"])
    return Completion(
        text, tuple(found["tokens"]), reason, found["stopped_by"], logprobs, found["seed"], timings
    )


def _logprobs(found: Any) -> tuple[TokenLogprob, ...] | None:
    return None if found is None else tuple(map(logprob, found))


def logprob(found: Any) -> TokenLogprob:
    """[token, logprob, [[token, logprob], ...]], where null stands for an infinite one."""
    token, value, top = found
    return TokenLogprob(token, _number(value), tuple((other, _number(each)) for other, each in top))


def _number(value: float | None) -> float:
    return -math.inf if value is None else value


def _reason(found: object) -> FinishReason:
    if found == "length":
        return "length"
    if found == "content_filter":
        raise ServerError("the server withholds the rest of the answer (content_filter)")
    return "stop"
