"""The conversation with the model: what is said, prompts made of it, answers as they come."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from clarion.cli.chatting.settings import Settings
from clarion.cli.progress import counter
from clarion.conversation.calls import Call, Format, call_format, call_marks, find_calls
from clarion.conversation.fitting import room_for_answer
from clarion.conversation.history import History
from clarion.conversation.reasoning import Part, Splitter, begins_inside, joined, markers
from clarion.errors import ContextError, TemplateError
from clarion.tokenizer import chat

if TYPE_CHECKING:
    from clarion import Completion, Model


class Shows(Protocol):
    """What hears of an answer as it comes."""

    def part(self, part: Part) -> None:
        """The next part of it."""

    def thought(self, n_tokens: int, seconds: float) -> None:
        """The reasoning that was heard last has ended."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a prompt.

    Attributes:
        completion: with the text as the model wrote it.
        content, reasoning: its parts.
        calls: pieces of it that are calls of tools, each with its receiver.
        interrupted: Ctrl-C ended it.
    """

    completion: Completion
    content: str
    reasoning: str
    calls: tuple[Part, ...]
    interrupted: bool


class Talk:
    """A conversation and the model that answers in it.

    Attributes:
        history: what was said.
        settings: the options of the next answer.
        markers: how the template writes reasoning.
        last: the last answer.
        n_generated: tokens of all answers.
    """

    def __init__(
        self,
        model: Model,
        history: History,
        settings: Settings,
        *,
        template: str | None = None,
        variables: Mapping[str, Any] | None = None,
        drop_oldest: bool = False,
    ) -> None:
        """
        Args:
            template: another chat template than the model's.
            variables: what the template knows besides.
            drop_oldest: where the context is full, the oldest exchanges are forgotten.

        Raises:
            TemplateError: there is no such template, or the model has none.
        """
        self.model = model
        self.history = history
        self.settings = settings
        self.template = chat.choose(model.tokenizer.chat_templates, template, has_tools=False)
        self.markers = markers(self.template)
        self.tools: list[dict[str, Any]] = []
        self.last: Answer | None = None
        self.n_generated = 0
        self._variables = dict(variables or {})
        self._drop_oldest = drop_oldest
        self._named = template
        self._format: Format | None = None

    def use_tools(self, tools: Sequence[Mapping[str, Any]]) -> None:
        """Tells the model of tools; the file may have a template of its own for that.

        Raises:
            TemplateError: the template does not say how the model calls tools. Nothing changes.
        """
        template = chat.choose(self.model.tokenizer.chat_templates, self._named, bool(tools))
        format = call_format(template)
        if format is None:
            raise TemplateError(
                f"{self.model.path}: its chat template teaches no calls of tools, or not in a known way"
            )
        self.tools = [dict(tool) for tool in tools]
        self.template, self.markers, self._format = template, markers(template), format

    def calls(self, answer: Answer) -> tuple[str, list[Call]]:
        """What an answer says beside calls of tools, and the calls."""
        if self._format is None:
            return answer.content, []
        return find_calls(answer.content, answer.calls, self._format, self.tools)

    def text(self, *, add_generation_prompt: bool = True) -> str:
        """The conversation, as the template writes it."""
        return self.model.apply_chat_template(
            self.history.messages(self.template),
            template=self.template,
            tools=self.tools or None,
            add_generation_prompt=add_generation_prompt,
            **self._variables,
        )

    def tokens(self, text: str) -> list[int]:
        """The tokens of a conversation that the template wrote."""
        return self.model.tokenize(text, add_special=False, parse_special=True)

    def answer(self, shows: Shows, dropped: Callable[[list[dict[str, Any]]], None]) -> Answer:
        """Lets the model answer what was said last; Ctrl-C ends the answer, which counts as far as it came.

        Args:
            shows: hears of each part.
            dropped: is called with each exchange that is forgotten because the context is full.

        Raises:
            ContextError: the conversation does not fit. The history is as it was.
            TemplateError: the template refuses the messages.
        """
        text, ids = self._fitting(dropped)
        inside = begins_inside(text)
        calls = Splitter(None if self._format is None else call_marks(self._format))
        heard = _Heard(shows, Splitter(self.markers, begins_inside=inside), calls)
        interrupted = False
        with ExitStack() as shown:
            long = len(ids) > self.model.program.max_tokens
            progress = shown.enter_context(counter("prompt")) if long else None
            with self.model.stream(ids, progress=progress, **self.settings.options) as stream:
                try:
                    for piece in stream:
                        shown.close()
                        heard.piece(piece, len(piece.tokens))
                except KeyboardInterrupt:
                    interrupted = True
                completion = _ended(stream.cancel)
        try:
            heard.end(completion.text, len(completion.tokens))
        except KeyboardInterrupt:  # pressed again: what is not shown counts all the same
            interrupted = True
        # Anew, from the whole text: Ctrl-C may have come between a piece and its parts.
        whole = Splitter(self.markers, begins_inside=inside)
        parts = joined([*whole.feed(completion.text), *whole.finish()])
        self.n_generated += completion.timings.generated_tokens
        self.last = _answer(completion, parts, interrupted)
        return self.last

    def _fitting(self, dropped: Callable[[list[dict[str, Any]]], None]) -> tuple[str, list[int]]:
        """The prompt and its tokens, which leave room in the context for an answer."""
        wanted = self.settings.options.get("max_tokens") or None
        room = room_for_answer(self.model.context, wanted) if self._drop_oldest else 1
        while True:
            text = self.text()
            ids = self.tokens(text)
            if len(ids) + room <= self.model.context:
                return text, ids
            oldest = self.history.drop_oldest() if self._drop_oldest else None
            if oldest is None:
                if len(ids) < self.model.context:
                    return text, ids
                raise ContextError(self._too_long(len(ids)))
            dropped(oldest)

    def _too_long(self, n: int) -> str:
        made_for = self.model.program.hyperparameters.context_length
        if len(self.history) > 1:
            what = f"the conversation has {n} tokens with this message"
            do = "/undo takes back the last exchange, /clear all of them, --drop-oldest the oldest ones; "
        else:
            what, do = f"the message takes {n} tokens", ""
        return (
            f"{what}, which leaves no room in the context of {self.model.context}: {do}"
            f"clarion chat -c N starts with a longer one (the model was made for {made_for})"
        )


class _Heard:
    """Tells the screen of an answer as it comes, without calls of tools, and how long the model thought."""

    def __init__(self, shows: Shows, splitter: Splitter, calls: Splitter) -> None:
        """`calls` takes what is no reasoning apart into calls, which are to it what reasoning is to others,
        and what stands beside them."""
        self._shows = shows
        self._splitter = splitter
        self._calls = calls
        self._n_characters = self._n_heard = 0
        self._thinks = False
        # Tokens since the last answer, and those of them until the last reasoning.
        self._n_tokens = self._n_reasoned = 0
        self._began = time.perf_counter()

    def piece(self, text: str, n_tokens: int) -> None:
        self._n_characters += len(text)
        self._n_heard += n_tokens
        self._hear(self._splitter.feed(text), n_tokens)

    def end(self, text: str, n_tokens: int) -> None:
        """The whole text, of which pieces may not have been heard."""
        rest = text[self._n_characters :]
        self._hear(self._splitter.feed(rest) + self._splitter.finish(), n_tokens - self._n_heard)
        self._stop_thinking()
        self._show(self._calls.finish())

    def _hear(self, parts: Sequence[Part], n_tokens: int) -> None:
        self._n_tokens += n_tokens
        for part in parts:
            if part.kind == "reasoning":
                if not self._thinks:
                    self._thinks, self._began = True, time.perf_counter()
                self._n_reasoned = self._n_tokens
                self._shows.part(part)
                continue
            self._stop_thinking()
            self._n_tokens = 0
            if part.kind == "answer":
                self._show(self._calls.feed(part.text))

    def _show(self, parts: Sequence[Part]) -> None:
        for part in parts:
            if part.kind == "answer":
                self._shows.part(part)

    def _stop_thinking(self) -> None:
        if self._thinks:
            self._shows.thought(self._n_reasoned, time.perf_counter() - self._began)
            self._thinks = False


def _answer(completion: Completion, parts: Sequence[Part], interrupted: bool) -> Answer:
    """The answer of parts, of which neighbours are of different kinds or receivers."""

    def joined(kind: str) -> str:
        return "".join(part.text for part in parts if part.kind == kind)

    calls = tuple(part for part in parts if part.kind == "call")
    return Answer(completion, joined("answer"), joined("reasoning"), calls, interrupted)


def _ended(cancel: Callable[[], Completion]) -> Completion:
    """What there is of a stream. It ends within a step, so further presses of Ctrl-C only repeat the wish."""
    while True:
        try:
            return cancel()
        except KeyboardInterrupt:
            continue
