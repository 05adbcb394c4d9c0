"""POST /v1/chat/completions: answers to conversations."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from clarion.conversation.reasoning import Markers, begins_inside, markers
from clarion.model import Model
from clarion.runtime.completion import Completion
from clarion.runtime.sampling import Options
from clarion.server.call import Call
from clarion.server.errors import RefusedError, bad
from clarion.server.events import Events, event
from clarion.server.fields import Off, is_empty, read
from clarion.server.messages import for_template, uses
from clarion.server.openai.answers import Answer, Said
from clarion.server.openai.completions import MOST_CHOICES, StreamOptions, final, seeded
from clarion.server.openai.logprobs import of_chat
from clarion.server.openai.prompts import check_room
from clarion.server.openai.thinking import thinking
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
from clarion.server.sampling import HARMLESS, UNSUPPORTED, Sampling, options
from clarion.server.writing import Budget, Job, merge
from clarion.tokenizer import chat as templates

MOST_TOP: Final = 100


class ChatRequest(Sampling, kw_only=True):
    """The fields of a request. What it says of reasoning is read by `thinking`."""

    model: str | None = None
    messages: list[Any] = msgspec.field(default_factory=list)
    n: int = 1
    logprobs: bool = False
    top_logprobs: int = 0
    stream: bool = False
    stream_options: StreamOptions | None = None
    tools: list[Any] = msgspec.field(default_factory=list)
    tool_choice: Any = None


def _is_text_alone(value: Any) -> bool:
    return value in (["text"], [])


_UNSUPPORTED: Final[dict[str, Off]] = {
    **UNSUPPORTED,
    **dict.fromkeys(
        ("functions", "function_call", "audio", "web_search_options", "suffix", "echo"), is_empty
    ),
    "modalities": _is_text_alone,
}
_THINKING: Final = frozenset(
    {
        *("chat_template_kwargs", "enable_thinking", "reasoning_effort", "reasoning", "thinking"),
        *("thinking_budget", "thinking_budget_tokens"),
    }
)
_HARMLESS: Final = HARMLESS | _THINKING | {"verbosity", "reasoning_format"}


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
    request, given = await read(call, ChatRequest, unsupported=_UNSUPPORTED, harmless=_HARMLESS)
    _check(request, call.server.settings.max_messages)
    served = call.server.pool.find(request.model)
    async with call.watch, call.server.pool.use(served, request.n) as model:
        more: Options = {"logprobs": request.top_logprobs} if request.logprobs else {}
        wanted = options(request, model, call.server.settings.options, **more)
        prompt = await asyncio.to_thread(_prepare, call, model, request, given)
        jobs = seeded([prompt.job(wanted, whole=not request.stream)] * request.n, request.n)
        reply = Reply(new_id("chatcmpl"), "chat.completion", now(), served.name, [])
        answers = [Answer(prompt.markers, prompt.begins_inside) for _ in jobs]
        if request.stream:
            await _stream(call, model, request, jobs, answers, reply)
            return
        async with aclosing(merge(model, jobs, same_prompt=True)) as batches:
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
    if len(request.messages) > most:
        raise bad(
            "messages", f"found {len(request.messages)} messages, expected {most} at most (--max-messages)"
        )
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


def _prepare(call: Call, model: Model, request: ChatRequest, given: dict[str, Any]) -> _Prompt:
    """The conversation as the model's template writes it."""
    tools = [] if request.tool_choice == "none" else _functions(call, request.tools)
    chosen = call.server.settings.chat_template
    template = templates.choose(model.tokenizer.chat_templates, chosen, bool(tools))
    if tools and not uses(template, "tools"):
        call.ignored.append("tools")  # the template does not tell the model of any
        tools = []
    found = markers(template)
    wanted = thinking(given, template, found)
    known = {**call.server.settings.variables, **wanted.variables}
    reserved = {"messages", "tools", "add_generation_prompt", "template"} & set(known)
    if reserved:
        raise bad(f"chat_template_kwargs.{min(reserved)}", "it cannot be set")
    messages = for_template(request.messages, template)
    begun = _begun(messages)
    text = model.apply_chat_template(
        messages[:-1] if begun else messages, tools=tools or None, template=chosen, **known
    )
    text += begun
    ids = model.tokenize(text, add_special=False, parse_special=True)
    check_room(model, ids)
    call.server.log.text("prompt", text)
    return _Prompt(ids, found, begins_inside(text), wanted.budget)


def _functions(call: Call, tools: list[Any]) -> list[dict[str, Any]]:
    """The tools that are functions. Others, of which some clients tell besides, are left out."""
    functions = []
    for i, tool in enumerate(tools):
        if not isinstance(tool, dict) or not isinstance(tool.get("type"), str):
            raise bad(f"tools[{i}]", f'found {tool!r:.40}, expected {{"type": "function", "function": ...}}')
        if tool["type"] != "function":
            call.ignored.append(f"tools[{i}]")
        elif not isinstance(tool.get("function"), dict):
            raise bad(f"tools[{i}].function", f"found {tool.get('function')!r:.40}, expected an object")
        else:
            functions.append(tool)
    return functions


def _begun(messages: list[dict[str, Any]]) -> str:
    """The answer that the client has begun, where the last message is one: the model goes on with it."""
    last = messages[-1]
    if last["role"] != "assistant" or last.get("tool_calls") or len(messages) < 2:
        return ""
    return last["content"] or ""


def _choice(call: Call, model: Model, request: ChatRequest, found: Answer, index: int) -> ChatChoice:
    message = Message("assistant", found.content)
    if found.reasoning:
        message.reasoning_content = found.reasoning
    logprobs = of_chat(model.tokenizer, found.logprobs) if request.logprobs else None
    call.server.log.text("answer", found.content)
    return ChatChoice(index, message, logprobs, found.finish_reason)


def _count(call: Call, answers: list[Answer]) -> Usage:
    texts = [found.completion for found in answers if found.completion is not None]
    counted = usage([texts], sum(found.n_reasoning for found in answers))
    call.usage = (counted.prompt_tokens, counted.completion_tokens)
    return counted


async def _stream(
    call: Call, model: Model, request: ChatRequest, jobs: list[Job], answers: list[Answer], reply: Reply
) -> None:
    """The answers as they are written."""
    reply.object = "chat.completion.chunk"

    def chunk(index: int, delta: Delta, said: Said | None = None, reason: str | None = None) -> bytes:
        logprobs = None
        if said is not None and request.logprobs and said.logprobs:
            logprobs = of_chat(model.tokenizer, said.logprobs)
        reply.choices = [ChunkChoice(index, delta, logprobs, reason)]
        return event(reply)

    events = await Events.begin(call)
    await events.send(b"".join(chunk(i, Delta("assistant", "")) for i in range(len(jobs))))
    n_open = len(jobs)
    async with aclosing(merge(model, jobs, same_prompt=True)) as batches:
        async for batch in batches:
            ready = []
            for index, item in batch:
                found = answers[index]
                is_end = isinstance(item, Completion)
                said = found.end(item) if isinstance(item, Completion) else found.feed(item)
                if said:
                    delta = Delta(None, said.content or None, said.reasoning or None)
                    ready.append(chunk(index, delta, said))
                if is_end:
                    n_open -= 1
                    ready.append(chunk(index, Delta(), None, found.finish_reason))
                    call.server.log.text("answer", found.content)
            if n_open == 0:
                ready.append(final(request.stream_options, reply, _count(call, answers)))
            if ready:
                await events.send(b"".join(ready), last=n_open == 0)
