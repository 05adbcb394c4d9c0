"""POST /v1/chat/completions: answers to conversations."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from clarion.conversation.reasoning import Markers, begins_inside
from clarion.model import Model
from clarion.runtime.completion import Completion
from clarion.runtime.sampling import Options
from clarion.server.call import Call
from clarion.server.details import Found, Wanted, details
from clarion.server.errors import RefusedError, bad
from clarion.server.events import Events, event
from clarion.server.fields import read
from clarion.server.openai.answers import Answer, Said
from clarion.server.openai.completions import MOST_CHOICES, StreamOptions, final, seeded
from clarion.server.openai.conversations import (
    HARMLESS,
    UNSUPPORTED,
    Messages,
    check_length,
    conversation,
    fitted,
)
from clarion.server.openai.logprobs import of_chat
from clarion.server.openai.types import (
    ChatChoice,
    ChunkChoice,
    Delta,
    Message,
    Reply,
    Usage,
    new_id,
    now,
)
from clarion.server.openai.usage import usage
from clarion.server.sampling import options, slot_of
from clarion.server.tally import Count
from clarion.server.writing import Budget, Job, merge

MOST_TOP: Final = 100


class ChatRequest(Messages, kw_only=True):
    """The fields of a request. What it says of reasoning is read by `thinking`."""

    n: int = 1
    logprobs: bool = False
    top_logprobs: int = 0
    stream: bool = False
    stream_options: StreamOptions | None = None
    clarion: Wanted = False


@dataclass(frozen=True, slots=True)
class _Prompt:
    """What the model continues.

    Attributes:
        ids: the conversation.
        markers: how its template writes reasoning.
        begins_inside: whether it opened the reasoning.
        budget: of reasoning.
    """

    ids: list[int]
    markers: Markers | None
    begins_inside: bool
    budget: int | None

    def job(self, wanted: Options, *, whole: bool) -> Job:
        budget = None
        if self.budget is not None and self.markers is not None:
            budget = Budget(self.budget, self.markers, self.begins_inside)
        # Tokens of reasoning are counted piece by piece.
        return Job(self.ids, wanted, whole and self.markers is None, budget)


async def answer(call: Call) -> None:
    """Answers a conversation."""
    request, given = await read(call, ChatRequest, unsupported=UNSUPPORTED, harmless=HARMLESS)
    _check(request, call.server.settings.max_messages)
    served = call.server.pool.find(request.model)
    async with call.watch, call.server.pool.use(served, request.n) as model:
        more: Options = {"logprobs": request.top_logprobs} if request.logprobs else {}
        wanted = options(request, model, call.server.settings.options, **more)
        most = wanted.get("max_tokens")
        prompt = await asyncio.to_thread(_prepare, call, model, request, given, most)
        count = served.tally.request(call.arrived, slot_of(call, request))
        whole = not request.stream or request.clarion == "whole"
        jobs = seeded([prompt.job(wanted, whole=whole)] * request.n, request.n)
        reply = Reply(new_id("chatcmpl"), "chat.completion", now(), served.name, [])
        answers = [Answer(prompt.markers, prompt.begins_inside) for _ in jobs]
        if request.stream:
            await _stream(call, model, request, jobs, answers, reply, count)
            return
        async with aclosing(merge(model, jobs, count, same_prompt=True)) as batches:
            async for batch in batches:
                for index, item in batch:
                    found = answers[index]
                    found.end(item) if isinstance(item, Completion) else found.feed(item)
        reply.choices = [_choice(call, model, request, found, index) for index, found in enumerate(answers)]
        reply.usage = _count(call, answers)
        await call.answer(reply)


def _check(request: ChatRequest, most: int) -> None:
    if not 1 <= request.n <= MOST_CHOICES:
        raise bad("n", f"found {request.n}, expected 1 to {MOST_CHOICES}")
    check_length(request.messages, most)
    if not 0 <= request.top_logprobs <= MOST_TOP:
        raise bad("top_logprobs", f"found {request.top_logprobs}, expected 0 to {MOST_TOP}")
    if request.top_logprobs and not request.logprobs:
        raise bad("top_logprobs", f"found {request.top_logprobs}, but logprobs is not true")
    if request.tool_choice not in (None, "auto", "none"):
        raise RefusedError(
            400,
            'tool_choice: not implemented but for "auto" and "none"',
            param="tool_choice",
            code="unsupported_parameter",
        )


def _prepare(
    call: Call, model: Model, request: ChatRequest, given: dict[str, Any], most: int | None
) -> _Prompt:
    """The conversation as the model's template writes it."""
    said = conversation(call, model, request, given)
    text, ids = fitted(call, said, request, most)
    call.server.log.text("prompt", text)
    return _Prompt(ids, said.markers, begins_inside(text), said.budget)


def _choice(call: Call, model: Model, request: ChatRequest, found: Answer, index: int) -> ChatChoice:
    message = Message("assistant", found.content)
    if found.reasoning:
        message.reasoning_content = found.reasoning
    logprobs = of_chat(model.tokenizer, found.logprobs) if request.logprobs else None
    call.server.log.text("answer", found.content)
    assert found.completion is not None
    more = details(request.clarion, found.completion)
    return ChatChoice(index, message, logprobs, found.finish_reason, more)


def _count(call: Call, answers: list[Answer]) -> Usage:
    texts = [found.completion for found in answers if found.completion is not None]
    counted = usage([texts], sum(found.n_reasoning for found in answers))
    counted.dropped_messages = call.dropped
    call.usage = (counted.prompt_tokens, counted.completion_tokens)
    return counted


async def _stream(
    call: Call,
    model: Model,
    request: ChatRequest,
    jobs: list[Job],
    answers: list[Answer],
    reply: Reply,
    count: Count,
) -> None:
    """The answers as they are written."""
    reply.object = "chat.completion.chunk"

    def chunk(
        index: int,
        delta: Delta,
        said: Said | None = None,
        reason: str | None = None,
        more: Found = msgspec.UNSET,
    ) -> bytes:
        logprobs = None
        if said is not None and request.logprobs and said.logprobs:
            logprobs = of_chat(model.tokenizer, said.logprobs)
        reply.choices = [ChunkChoice(index, delta, logprobs, reason, more)]
        return event(reply)

    events = Events.begin(call)
    await events.send(b"".join(chunk(i, Delta("assistant", "")) for i in range(len(jobs))))
    n_open = len(jobs)
    async with aclosing(merge(model, jobs, count, same_prompt=True)) as batches:
        async for batch in batches:
            ready = []
            for index, item in batch:
                found = answers[index]
                is_end = isinstance(item, Completion)
                said = found.end(item) if isinstance(item, Completion) else found.feed(item)
                more = details(request.clarion, item, len(jobs[index].ids))
                of_piece = msgspec.UNSET if is_end else more
                if said or of_piece is not msgspec.UNSET:
                    delta = Delta(None, said.content or None, said.reasoning or None)
                    ready.append(chunk(index, delta, said, None, of_piece))
                if is_end:
                    n_open -= 1
                    ready.append(chunk(index, Delta(), None, found.finish_reason, more))
                    call.server.log.text("answer", found.content)
            if n_open == 0:
                ready.append(final(request.stream_options, reply, _count(call, answers)))
            if ready:
                await events.send(b"".join(ready), last=n_open == 0)
