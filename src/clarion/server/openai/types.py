"""What OpenAI's endpoints answer with. Fields that are None are left out."""

from __future__ import annotations

import os
import time
from typing import Any

import msgspec


class TopLogprob(msgspec.Struct):
    """One of the most probable tokens at a place."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprobs(msgspec.Struct):
    """A token of a chat's answer."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChatLogprobs(msgspec.Struct):
    content: list[TokenLogprobs]


class TextLogprobs(msgspec.Struct):
    """Tokens of a completion, in lists side by side. Of the first token of an echoed prompt nothing is
    known."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class PromptDetails(msgspec.Struct):
    cached_tokens: int


class CompletionDetails(msgspec.Struct):
    reasoning_tokens: int


class Usage(msgspec.Struct, omit_defaults=True):
    """Tokens of a request. `cached_tokens` were not computed again; `dropped_messages` were left out, since
    the conversation is longer than the context."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None
    dropped_messages: int = 0


class Delta(msgspec.Struct, omit_defaults=True):
    """What a chunk adds to an answer."""

    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None


class ChunkChoice(msgspec.Struct):
    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None
    clarion: Any = msgspec.UNSET  # details.Found, of which a schema would want tags


class Message(msgspec.Struct):
    role: str
    content: str | None
    reasoning_content: str | msgspec.UnsetType = msgspec.UNSET
    refusal: str | None = None


class ChatChoice(msgspec.Struct):
    index: int
    message: Message
    logprobs: ChatLogprobs | None
    finish_reason: str
    clarion: Any = msgspec.UNSET  # details.Found, of which a schema would want tags


class TextChoice(msgspec.Struct):
    text: str
    index: int
    logprobs: TextLogprobs | None
    finish_reason: str | None
    clarion: Any = msgspec.UNSET  # details.Found, of which a schema would want tags


class Reply(msgspec.Struct):
    """A completion, a chat's answer, or a chunk of one."""

    id: str
    object: str
    created: int
    model: str
    choices: list[Any]
    usage: Usage | msgspec.UnsetType = msgspec.UNSET
    system_fingerprint: str = "clarion"


class TextReply(Reply, kw_only=True):
    """The answer of `/v1/completions`, as it is described."""

    choices: list[TextChoice]


class ChatReply(Reply, kw_only=True):
    """The answer of `/v1/chat/completions`, as it is described."""

    choices: list[ChatChoice]


def new_id(kind: str) -> str:
    """The name of an answer, as `chatcmpl-...`."""
    return f"{kind}-{os.urandom(12).hex()}"


def now() -> int:
    """Seconds of Unix."""
    return int(time.time())
