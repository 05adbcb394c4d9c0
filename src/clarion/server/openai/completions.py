"""POST /v1/completions: texts that go on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

import msgspec

from clarion.model import Model
from clarion.runtime.completion import Completion, TokenLogprob
from clarion.runtime.prompts import is_short
from clarion.runtime.sampling import Options
from clarion.server.call import Call
from clarion.server.details import Wanted, details
from clarion.server.errors import bad
from clarion.server.events import DONE, Events, event
from clarion.server.fields import read
from clarion.server.openai.infill import infill
from clarion.server.openai.logprobs import TextTokens
from clarion.server.openai.prompts import check_room
from clarion.server.openai.types import Reply, TextChoice, TextLogprobs, Usage, new_id, now
from clarion.server.openai.usage import usage
from clarion.server.sampling import HARMLESS, UNSUPPORTED, Sampling, options, slot_of
from clarion.server.tally import Count
from clarion.server.writing import Job, merge

MOST_CHOICES: Final = 128
MOST_LOGPROBS: Final = 100


class StreamOptions(msgspec.Struct):
    include_usage: bool = False


class CompletionRequest(Sampling, kw_only=True):
    """The fields of a request."""

    model: str | None = None
    prompt: Any = None
    suffix: str | None = None
    echo: bool = False
    n: int = 1
    best_of: int | None = None
    logprobs: int | bool | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    clarion: Wanted = False


@dataclass
class _Prompt:
    """One of the prompts: its ids, what is echoed of it, and the texts that go on with it."""

    ids: list[int]
    echo: str
    tokens: list[TokenLogprob | int] = field(default_factory=list)  # of the echo, where they are wanted
    texts: list[Completion] = field(default_factory=list)


async def complete(call: Call) -> None:
    """Continues one prompt or several."""
    request, _ = await read(call, CompletionRequest, unsupported=UNSUPPORTED, harmless=HARMLESS)
    given = _prompts(request.prompt, call.server.settings.max_messages)
    best_of = _check(request)
    served = call.server.pool.find(request.model)
    async with call.watch, call.server.pool.use(served, len(given) * best_of) as model:
        wanted = options(request, model, call.server.settings.options, **_logprobs(request))
        if len(given) == 1 and is_short(given[0]) and not request.suffix:
            prompts = _prepare(call, model, request, given)  # done before a thread would begin
        else:
            prompts = await asyncio.to_thread(_prepare, call, model, request, given)
        if request.echo and request.logprobs is not None and request.logprobs is not False:
            for prompt in prompts:
                prompt.tokens = await _scored(model, prompt.ids, int(request.logprobs))
        count = served.tally.request(call.arrived, slot_of(call, request))
        reply = Reply(new_id("cmpl"), "text_completion", now(), served.name, [])
        if request.stream:
            await _stream(call, model, request, prompts, wanted, reply, count)
            return
        same = [Job(prompt.ids, wanted, whole=True) for prompt in prompts for _ in range(best_of)]
        jobs = seeded(same, best_of)
        texts: list[Completion | None] = [None] * len(jobs)
        async with aclosing(merge(model, jobs, count, same_prompt=len(prompts) == 1)) as batches:
            async for batch in batches:
                for number, item in batch:
                    if isinstance(item, Completion):
                        texts[number] = item
        for number, prompt in enumerate(prompts):
            written = cast(list[Completion], texts[number * best_of : (number + 1) * best_of])
            prompt.texts = written
            for text in _best(written, request.n):
                index = len(reply.choices)
                reply.choices.append(_choice(model, request, prompt, text, index))
                call.server.log.text("answer", text.text)
        reply.usage = _count(call, prompts)
        await call.answer(reply)


def _check(request: CompletionRequest) -> int:
    """Texts for each prompt, of which the best ones are answered."""
    if not 1 <= request.n <= MOST_CHOICES:
        raise bad("n", f"found {request.n}, expected 1 to {MOST_CHOICES}")
    best_of = request.n if request.best_of is None else request.best_of
    if not request.n <= best_of <= MOST_CHOICES:
        raise bad("best_of", f"found {best_of}, expected n ({request.n}) to {MOST_CHOICES}")
    if request.stream and best_of > request.n:
        raise bad(
            "best_of", f"found {best_of} with stream, expected n ({request.n}): the best is known at the end"
        )
    if request.logprobs is not None and not 0 <= request.logprobs <= MOST_LOGPROBS:
        raise bad("logprobs", f"found {request.logprobs}, expected 0 to {MOST_LOGPROBS}")
    if request.suffix and request.echo:
        raise bad("echo", "found true with a suffix, expected one of them")
    return best_of


def _logprobs(request: CompletionRequest) -> Options:
    if request.best_of is not None and request.best_of > request.n and not request.logprobs:
        return {"logprobs": 0}  # by which the best are chosen
    if request.logprobs is None or request.logprobs is False:
        return {}
    return {"logprobs": int(request.logprobs)}


def _prompts(given: Any, most: int) -> list[str | list[int]]:
    """The prompts of a request: a text, ids, or a list of either."""
    if isinstance(given, str):
        return [given]
    expected = "expected a text, token ids, or a list of these"
    if not isinstance(given, list) or not given:
        raise bad("prompt", f"found {'none' if given is None else repr(given)[:40]}, {expected}")
    if all(isinstance(item, int) and not isinstance(item, bool) for item in given):
        return [given]
    if len(given) > most:
        raise bad("prompt", f"found {len(given)} prompts, expected {most} at most (--max-messages)")
    for i, item in enumerate(given):
        is_ids = isinstance(item, list) and all(type(token) is int for token in item)
        if not isinstance(item, str) and not is_ids:
            raise bad(f"prompt[{i}]", f"found {item!r:.40}, expected a text or token ids")
    return given


def _prepare(
    call: Call, model: Model, request: CompletionRequest, given: list[str | list[int]]
) -> list[_Prompt]:
    """The prompts' ids. Names of control tokens in them are ordinary characters."""
    prompts = []
    for i, prompt in enumerate(given):
        if request.suffix:
            if not isinstance(prompt, str):
                raise bad("prompt", "found token ids with a suffix, expected a text")
            ids = infill(model, prompt, request.suffix)
        elif isinstance(prompt, str):
            ids = model.tokenize(prompt)
        else:
            wrong = next((token for token in prompt if not 0 <= token < model.n_vocab), None)
            if wrong is not None:
                raise bad("prompt", f"found token {wrong}, expected 0 to {model.n_vocab - 1}")
            ids = prompt
        check_room(model, ids)
        echo = ""
        if request.echo:
            echo = prompt if isinstance(prompt, str) else model.detokenize(ids)
        prompts.append(_Prompt(ids, echo))
        call.server.log.text(f"prompt {i}", prompt if isinstance(prompt, str) else repr(prompt))
    return prompts


async def _scored(model: Model, ids: list[int], top: int) -> list[TokenLogprob | int]:
    """The tokens of an echoed prompt, with their log-probabilities."""
    found: Sequence[TokenLogprob] = await model.ascore(ids, first=1, top=top)
    return [ids[0], *found]


def seeded(jobs: list[Job], n: int) -> list[Job]:
    """Texts of one prompt draw differently: each has a seed of its own, made of the request's."""
    made = []
    for number, job in enumerate(jobs):
        seed = job.options.get("seed")
        if seed is not None and number % n:
            seed = (seed + number % n) & (2**64 - 1)
            job = replace(job, options=cast(Options, {**job.options, "seed": seed}))
        made.append(job)
    return made


def _best(texts: list[Completion], n: int) -> list[Completion]:
    """The n most probable texts, by the mean of their tokens; all, in their order, where there are n."""
    if len(texts) == n:
        return texts

    def mean(text: Completion) -> float:
        found = [each.logprob for each in text.logprobs or ()]
        return sum(found) / len(found) if found else float("-inf")

    return sorted(texts, key=mean, reverse=True)[:n]


def _choice(
    model: Model, request: CompletionRequest, prompt: _Prompt, text: Completion, index: int
) -> TextChoice:
    logprobs: TextLogprobs | None = None
    if request.logprobs is not None and request.logprobs is not False:
        logprobs = TextTokens(model.tokenizer).of([*prompt.tokens, *(text.logprobs or ())])
    more = details(request.clarion, text)
    return TextChoice(prompt.echo + text.text, index, logprobs, _reason(text), more)


def _reason(text: Completion) -> str:
    return "length" if text.finish_reason == "length" else "stop"


def _count(call: Call, prompts: list[_Prompt]) -> Usage:
    found = usage([prompt.texts for prompt in prompts])
    call.usage = (found.prompt_tokens, found.completion_tokens)
    return found


async def _stream(
    call: Call,
    model: Model,
    request: CompletionRequest,
    prompts: list[_Prompt],
    wanted: Options,
    reply: Reply,
    count: Count,
) -> None:
    """The texts as they are written."""
    events = Events.begin(call)
    whole = request.clarion == "whole"
    jobs = seeded([Job(prompt.ids, wanted, whole) for prompt in prompts for _ in range(request.n)], request.n)
    with_logprobs = request.logprobs is not None and request.logprobs is not False
    tokens = [TextTokens(model.tokenizer) for _ in jobs]
    for number, prompt in enumerate(prompts):
        if prompt.echo:
            for index in range(number * request.n, (number + 1) * request.n):
                logprobs = tokens[index].of(prompt.tokens) if with_logprobs else None
                reply.choices = [TextChoice(prompt.echo, index, logprobs, None)]
                await events.send(event(reply))
    n_open = len(jobs)
    async with aclosing(merge(model, jobs, count, same_prompt=len(prompts) == 1)) as batches:
        async for batch in batches:
            ready = []
            for index, item in batch:
                more = details(request.clarion, item, len(jobs[index].ids))
                if isinstance(item, Completion):
                    n_open -= 1
                    prompts[index // request.n].texts.append(item)
                    choice = TextChoice("", index, None, _reason(item), more)
                else:
                    logprobs = tokens[index].of(item.logprobs or ()) if with_logprobs else None
                    choice = TextChoice(str(item), index, logprobs, None, more)
                reply.choices = [choice]
                ready.append(event(reply))
            if n_open == 0:
                ready.append(final(request.stream_options, reply, _count(call, prompts)))
            await events.send(b"".join(ready), last=n_open == 0)


def final(options: StreamOptions | None, reply: Reply, count: Usage) -> bytes:
    """The events at the end of a stream."""
    if options is None or not options.include_usage:
        return DONE
    reply.choices, reply.usage = [], count
    return event(reply) + DONE
