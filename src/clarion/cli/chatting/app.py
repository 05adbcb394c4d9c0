"""One chat: messages and commands in, answers out, until nobody has more to say."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from clarion.cli import statistics
from clarion.cli.chatting import commands, files
from clarion.cli.chatting.commands import brief
from clarion.cli.chatting.reading import Reader
from clarion.cli.chatting.screen import Screen
from clarion.cli.chatting.talk import Answer, Talk
from clarion.cli.exit_codes import INTERRUPTED
from clarion.cli.prompt import check_utf8
from clarion.conversation.history import History
from clarion.errors import ClarionError
from clarion.gguf.texts import size_text

if TYPE_CHECKING:
    from clarion.cli.chatting.calling import Calling

LEAVE = "Ctrl-D or /quit leaves"


class Chat:
    """What commands work on.

    Attributes:
        over: a command has ended it.
    """

    def __init__(
        self,
        talk: Talk,
        reader: Reader,
        screen: Screen,
        *,
        watched: bool,
        show_statistics: bool = False,
        calling: Calling | None = None,
    ) -> None:
        """
        Args:
            watched: somebody sits there, who hears of an error and goes on.
            show_statistics: after each answer.
            calling: the tools that the model may call.
        """
        self.talk = talk
        self.reader = reader
        self.screen = screen
        self.over = False
        self._watched = watched
        self._interrupted = False  # the last answer
        self._show_statistics = show_statistics
        self.calling = calling
        if calling is not None:
            talk.use_tools(calling.tools.descriptions)

    def run(self) -> int:
        """Serves messages and commands to their end. Returns the exit code.

        Raises:
            ClarionError: one failed, where nobody watches.
        """
        while not self.over:
            try:
                text = self.reader.read()
                if text is None:
                    break
                self._take(text)
            except KeyboardInterrupt:
                if not self._watched:
                    return INTERRUPTED
                self.screen.note(LEAVE)
            except (ClarionError, click.ClickException) as error:
                if not self._watched:
                    raise
                message = error.format_message() if isinstance(error, click.ClickException) else str(error)
                self.screen.error(message)
        return 0

    def say(self, text: str) -> None:
        """Says something to the model, and lets it answer."""
        check_utf8("the message", text)
        if names := self.talk.model.tokenizer.control_tokens(text):
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            self.screen.note(f"the message holds {shown}, read as control tokens")
        self._answer(lambda: self.talk.history.ask(text))

    def say_again(self, text: str) -> None:
        """Says something in the place of what was said last."""

        def change() -> None:
            self.talk.history.exchanges.pop()
            self.talk.history.ask(text)

        self._answer(change)

    def save(self, path: str, *, states: bool = False) -> None:
        """Saves the conversation; with `states`, also what the model computed of it."""
        files.save(path, self.talk)
        self.screen.note(f"saved {_exchanges(len(self.talk.history))}: {path}")
        if states and len(self.talk.history):
            n_bytes = files.save_states(path, self.talk)
            self.screen.note(f"saved what was computed, {size_text(n_bytes)}: {files.states_path(path)}")

    def load(self, path: str, over: Mapping[str, Any] | None = None) -> None:
        """Goes on with a conversation that was saved; of its options, `over` replaces some."""
        saved = files.load(path, self.talk, over)
        self.screen.note(f"loaded {_exchanges(len(self.talk.history))}: {path}")
        if saved.model != self.talk.model.path.name:
            self.screen.note(f"another model answered there: {saved.model}")
        last = self.talk.history.last_text
        if last is not None:
            self.screen.note(f"you said last: {brief(last)}")
        unused = files.load_states(path, self.talk)
        if unused is not None:
            self.screen.note(f"what was computed is not used: {unused}")

    def statistics(self) -> str:
        """What was measured of the last answer, and how full the context is."""
        talk = self.talk
        used = len(talk.tokens(talk.text(add_generation_prompt=False))) if len(talk.history) else 0
        lines = [f"context {used} of {talk.model.context} tokens, {_exchanges(len(talk.history))}"]
        if talk.last is not None:
            timings = talk.last.completion.timings
            lines.insert(0, statistics.line(talk.model, talk.last.completion))
            lines.append(f"of the last prompt, {timings.reused_tokens} of {timings.prompt_tokens} reused")
            lines.append(f"generated in this chat: {talk.n_generated} tokens")
        return "\n".join(lines)

    def about(self) -> str:
        """Which model it is."""
        model = self.talk.model
        h = model.program.hyperparameters
        name = model.metadata.get("general.name")
        marks = self.talk.markers
        rows = [
            ("file", os.fspath(model.path)),
            ("model", f"{name + ', ' if isinstance(name, str) else ''}{h.architecture}, {size(model)}"),
            ("context", f"{model.context} tokens; made for {h.context_length}"),
            ("computes", f"{model.isa}, {model.threads} thread{'' if model.threads == 1 else 's'}"),
            (
                "reasoning",
                "none in its chat template" if marks is None else f"{marks.open} ... {marks.close}",
            ),
        ]
        return "\n".join(f"{left:10} {right}" for left, right in rows)

    # ---- one line -----------------------------------------------------------------------------------------

    def _take(self, text: str) -> None:
        if not text.strip():
            return
        if text.startswith("/"):
            commands.run(self, text)
        else:
            self.say(text[1:] if text.startswith(" /") else text)

    def _answer(self, change: Callable[[], None]) -> None:
        """Answers after a change of the history, which is undone where nothing comes of it."""
        before = self.talk.history.copied()
        try:
            change()
            while self._answer_once(before):
                pass
        except BaseException:
            self.talk.history = before
            raise
        self.screen.gap()
        if self._interrupted and not self._watched:
            raise KeyboardInterrupt

    def _answer_once(self, before: History) -> bool:
        """Lets the model write, and calls the tools that it asks for. Whether it is to go on after these.

        Where Ctrl-C comes before anything is written, the history is as it was before.
        """
        self._interrupted = True
        with self.screen.answering():
            answer = self.talk.answer(self.screen, self._dropped)
        content, calls = self.talk.calls(answer)
        self._interrupted = answer.interrupted
        written = bool(content or answer.reasoning or calls)
        going_on = len(self.talk.history.exchanges[-1]) > 1
        if self._interrupted:
            calls = []
        if written or going_on or not self._interrupted:
            messages = [call.as_message() for call in calls]
            self.talk.history.answer(content, answer.reasoning, messages)
        else:
            self.talk.history = before
        self._note(answer, written)
        if not calls or self.calling is None:
            return False
        for call, message in zip(calls, messages, strict=True):
            if self._interrupted:
                said = "error: the user interrupted the calls"
            else:
                said, self._interrupted = self.calling.result(call, self.reader, self.screen)
            self.talk.history.result(message, said)
        return not self._interrupted

    def _note(self, answer: Answer, written: bool) -> None:
        completion = answer.completion
        used = completion.timings.prompt_tokens + len(completion.tokens)
        if answer.interrupted:
            what = "what was written stays" if written else "nothing was written; your message is taken back"
            self.screen.note(f"interrupted: {what}")
        elif not written:
            self.screen.note("the model wrote nothing")
        elif completion.finish_reason == "length" and used >= self.talk.model.context:
            self.screen.note(
                f"the context is full, {used} of {self.talk.model.context} tokens: the answer ends here; "
                "/undo, /clear, or clarion chat with a longer -c"
            )
        elif completion.finish_reason == "length":
            self.screen.note(f"the answer ends after {len(completion.tokens)} tokens, as max-tokens says")
        if self._show_statistics:
            self.screen.note(statistics.line(self.talk.model, completion))

    def _dropped(self, exchange: list[dict[str, Any]]) -> None:
        self.screen.note(f"the context is full: forgot the oldest exchange ({brief(exchange[0]['content'])})")


def _exchanges(n: int) -> str:
    return f"{n} exchange{'' if n == 1 else 's'}"


def size(model: Any) -> str:
    """How many parameters a model has."""
    n = model.program.hyperparameters.n_parameters
    return f"{n / 1e9:.1f}B parameters" if n >= 1e9 else f"{n / 1e6:.0f}M parameters"
