"""POST /completion and /infill: texts that go on, in llama-server's own form.

Unlike in OpenAI's form, names of control tokens in a prompt stand for the tokens, as clients that write out
chat templates themselves expect.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from clarion.model import Model
from clarion.runtime.completion import Completion, TokenLogprob
from clarion.runtime.pieces import Piece
from clarion.runtime.sampling import Options
from clarion.server.call import Call
from clarion.server.errors import bad
from clarion.server.events import Events, event
from clarion.server.fields import Off, is_empty, read
from clarion.server.llama.settings import settings_of
from clarion.server.llama.tokens import check_ids, mixed
from clarion.server.openai.infill import Extra, infill
from clarion.server.openai.logprobs import of_chat
from clarion.server.openai.prompts import check_room
from clarion.server.pool import Served
from clarion.server.sampling import HARMLESS, UNSUPPORTED, Sampling, options, slot_of
from clarion.server.writing import Job, merge

MOST_PROBS: Final = 100
_UNSUPPORTED: Final[dict[str, Off]] = {
    **{name: off for name, off in UNSUPPORTED.items() if name != "n_probs"},
    **dict.fromkeys(("image_data", "n_indent", "response_fields"), is_empty),
}
_PROMPT: Final = "expected a text, token ids, or a list of these"

Prompt = list[str | int]


class NativeRequest(Sampling, kw_only=True):
    """The fields of a request.

    Attributes:
        n_probs: so many of the most probable tokens are answered for each one.
        return_tokens: ids are answered, too.
    """

    model: str | None = None
    prompt: Any = None
    stream: bool = False
    n_probs: int = 0
    return_tokens: bool = False


class InfillRequest(NativeRequest, kw_only=True):
    """The fields of a request.

    Attributes:
        input_prefix, input_suffix: what stands before and behind.
        input_extra: further files, which the model is shown first.
        prompt: how what is written begins.
    """

    input_prefix: str = ""
    input_suffix: str = ""
    input_extra: list[Extra] = msgspec.field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Task:
    """What a request asks for."""

    call: Call
    request: NativeRequest
    served: Served
    model: Model
    options: Options
    prompts: list[list[int]]
    slot: int | None
    several: bool  # the answer is a list

    def base(self, index: int) -> dict[str, Any]:
        return {"index": index, "id_slot": -1 if self.slot is None else self.slot, "model": self.served.name}


async def complete(call: Call) -> None:
    """Continues one prompt or several."""
    request, _ = await read(call, NativeRequest, unsupported=_UNSUPPORTED, harmless=HARMLESS)
    prompts, several = _prompts(request.prompt, call.server.settings.max_messages)

    def prepare(model: Model) -> list[list[int]]:
        for i, prompt in enumerate(prompts):
            check_ids(model, f"prompt[{i}]" if several else "prompt", prompt)
        return [mixed(model, prompt) for prompt in prompts]

    await _answer(call, request, len(prompts), several, prepare)


async def fill(call: Call) -> None:
    """Writes what stands between two texts."""
    request, _ = await read(call, InfillRequest, unsupported=_UNSUPPORTED, harmless=HARMLESS)
    begun = request.prompt or ""
    if not isinstance(begun, str):
        raise bad("prompt", f"found {begun!r:.40}, expected a text")

    def prepare(model: Model) -> list[list[int]]:
        ids = infill(model, request.input_prefix, request.input_suffix, request.input_extra)
        return [ids + model.tokenize(begun, add_special=False)]

    await _answer(call, request, 1, False, prepare)


async def _answer(call: Call, request: NativeRequest, n: int, several: bool, prepare: Any) -> None:
    if not 0 <= request.n_probs <= MOST_PROBS:
        raise bad("n_probs", f"found {request.n_probs}, expected 0 to {MOST_PROBS}")
    served = call.server.pool.find(request.model)
    async with call.watch, call.server.pool.use(served, n) as model:
        more: Options = {"logprobs": request.n_probs} if request.n_probs else {}
        wanted = options(request, model, call.server.settings.options, **more)
        prompts = await asyncio.to_thread(prepare, model)
        for ids in prompts:
            check_room(model, ids)
            if call.server.log.texts:
                call.server.log.text("prompt", model.detokenize(ids))
        slot = slot_of(call, request)
        task = _Task(call, request, served, model, wanted, prompts, slot, several)
        await (_stream(task) if request.stream else _whole(task))


async def _whole(task: _Task) -> None:
    count = task.served.tally.request(task.call.arrived, task.slot)
    found: list[Any] = [None] * len(task.prompts)
    jobs = [Job(ids, task.options, whole=True) for ids in task.prompts]
    async with aclosing(merge(task.model, jobs, count)) as batches:
        async for batch in batches:
            for index, item in batch:
                if isinstance(item, Completion):
                    found[index] = _end(task, index, item)
    _note(task, [each["completion"] for each in found])
    answers = []
    for each in found:
        completion = each.pop("completion")
        more = _probabilities(task, completion.logprobs)
        tokens = list(completion.tokens) if task.request.return_tokens else []
        answers.append({**each, "content": completion.text, "tokens": tokens, **more})
    await task.call.answer(answers if task.several else answers[0])


async def _stream(task: _Task) -> None:
    """The texts as they are written; the last event of each says how it ended."""
    count = task.served.tally.request(task.call.arrived, task.slot)
    events = Events.begin(task.call)
    jobs = [Job(ids, task.options) for ids in task.prompts]
    written = [0] * len(jobs)
    ended: list[Completion] = []
    async with aclosing(merge(task.model, jobs, count)) as batches:
        async for batch in batches:
            ready = []
            for index, item in batch:
                if isinstance(item, Piece):
                    written[index] += len(item.tokens)
                    ready.append(event(_chunk(task, index, item, written[index])))
                    continue
                ended.append(item)
                end = _end(task, index, item)
                del end["completion"]
                ready.append(event({**end, "content": "", "tokens": []}))
            _note(task, ended)
            await events.send(b"".join(ready), last=len(ended) == len(jobs))


def _chunk(task: _Task, index: int, piece: Piece, n_written: int) -> dict[str, Any]:
    return {
        **task.base(index),
        "content": str(piece),
        "tokens": list(piece.tokens),
        "stop": False,
        "tokens_predicted": n_written,
        "tokens_evaluated": len(task.prompts[index]),
        **_probabilities(task, piece.logprobs),
    }


def _end(task: _Task, index: int, completion: Completion) -> dict[str, Any]:
    timings = completion.timings
    task.call.server.log.text("answer", completion.text)
    stopped = completion.stopped_by
    kind = "limit" if completion.finish_reason == "length" else "word" if isinstance(stopped, str) else "eos"
    return {
        **task.base(index),
        "completion": completion,
        "stop": True,
        "stop_type": kind,
        "stopping_word": stopped if isinstance(stopped, str) else "",
        "truncated": False,
        "has_new_line": "\n" in completion.text,
        "tokens_predicted": timings.generated_tokens,
        "tokens_evaluated": timings.prompt_tokens,
        "tokens_cached": timings.reused_tokens,
        "generation_settings": settings_of(task.options, completion.seed),
        "timings": _timings(completion),
    }


def _timings(completion: Completion) -> dict[str, float]:
    timings = completion.timings
    n_prompt, n_text = timings.prompt_tokens - timings.reused_tokens, timings.generated_tokens
    prompt, generation = timings.prompt * 1e3, timings.generation * 1e3
    return {
        "cache_n": timings.reused_tokens,
        "prompt_n": n_prompt,
        "prompt_ms": prompt,
        "prompt_per_token_ms": prompt / n_prompt if n_prompt else 0.0,
        "prompt_per_second": timings.prompt_rate,
        "predicted_n": n_text,
        "predicted_ms": generation,
        # From the first token on: its own time is the prompt's.
        "predicted_per_token_ms": generation / (n_text - 1) if n_text > 1 else 0.0,
        "predicted_per_second": timings.generation_rate,
    }


def _probabilities(task: _Task, found: tuple[TokenLogprob, ...] | None) -> dict[str, Any]:
    if not task.request.n_probs or found is None:
        return {}
    tokens = of_chat(task.model.tokenizer, found).content
    return {
        "completion_probabilities": [
            {
                "id": each.token,
                **msgspec.to_builtins(token),
                "top_logprobs": [
                    {"id": other, **msgspec.to_builtins(top)}
                    for (other, _), top in zip(each.top, token.top_logprobs, strict=True)
                ],
            }
            for each, token in zip(found, tokens, strict=True)
        ]
    }


def _note(task: _Task, ended: list[Completion]) -> None:
    n_prompt = sum(completion.timings.prompt_tokens for completion in ended)
    task.call.usage = (n_prompt, sum(completion.timings.generated_tokens for completion in ended))


def _prompts(given: Any, most: int) -> tuple[list[Prompt], bool]:
    """The prompts of a request, and whether they came as a list of several."""
    if isinstance(given, str):
        return [[given]], False
    if not isinstance(given, list) or not given:
        raise bad("prompt", f"found {'none' if given is None else repr(given)[:40]}, {_PROMPT}")
    if any(type(part) is int for part in given):  # texts and ids that are one prompt
        return [one_prompt("prompt", given)], False
    if len(given) > most:
        raise bad("prompt", f"found {len(given)} prompts, expected {most} at most (--max-messages)")
    return [one_prompt(f"prompt[{i}]", each) for i, each in enumerate(given)], True


def one_prompt(where: str, given: Any) -> Prompt:
    """A prompt: a text, or a list of texts and ids. Raises RefusedError."""
    parts = [given] if isinstance(given, str) else given
    if not isinstance(parts, list) or not parts:
        raise bad(where, f"found {given!r:.40}, {_PROMPT}")
    for i, part in enumerate(parts):
        if not isinstance(part, str) and type(part) is not int:
            raise bad(f"{where}[{i}]", f"found {part!r:.40}, expected a text or a token id")
    return parts
