"""Reasoning and answer: how a chat template marks what the model thinks, and a stream cut at the marks.

The marks are found in the template's text, never in the model's name. There are two kinds of them:

- a pair around the reasoning, as `<think>` ... `</think>`. Many templates only take it out of earlier turns
  (`split('</think>')`); that tells as much.
- the channels of harmony, the format of gpt-oss (https://cookbook.openai.com/articles/openai-harmony): a text
  is several messages, each with a header that names its channel and, where it is a call, its receiver.

Marks are often control tokens. Streams give their texts as they give those of others, so a splitter needs
nothing but the text. It treats every mark as one, wherever it stands: models think between two answers too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["reasoning", "answer", "call"]


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of what a model wrote.

    Attributes:
        kind: "reasoning", "answer", or (only of harmony) "call", the arguments of a call of a tool.
        text: never empty, and without marks.
        to: of a call, its receiver, as "functions.add".
    """

    kind: Kind
    text: str
    to: str | None = None


@dataclass(frozen=True, slots=True)
class Markers:
    """How a template writes reasoning.

    Attributes:
        open, close: what stands before and after it. Of harmony, the channel's name and the message's end.
        harmony: the text is messages with headers.
    """

    open: str
    close: str
    harmony: bool = False


# Pairs that templates use, in the order in which they are looked for.
_PAIRS: Final = tuple(
    Markers(*pair)
    for pair in (
        ("<think>", "</think>"),
        ("[THINK]", "[/THINK]"),
        ("<|channel>thought", "<channel|>"),
        ("<seed:think>", "</seed:think>"),
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
        ("<thinking>", "</thinking>"),
        ("<thought>", "</thought>"),
        ("<reasoning>", "</reasoning>"),
        ("<|inner_prefix|>", "<|inner_suffix|>"),
    )
)
_CHANNEL: Final = "<|channel|>"
_MESSAGE: Final = "<|message|>"
_START: Final = "<|start|>"
_RECEIVER: Final = " to="  # where a header goes on that the prompt began: `<|start|>assistant`
_ENDS: Final = ("<|end|>", "<|return|>", "<|call|>")
_HARMONY: Final = Markers("<|channel|>analysis<|message|>", "<|end|>", harmony=True)


def markers(template: str | None) -> Markers | None:
    """How a chat template writes reasoning; None: it knows of none."""
    if template is None:
        return None
    if _CHANNEL in template and _MESSAGE in template:
        return _HARMONY
    return next((pair for pair in _PAIRS if pair.open in template or pair.close in template), None)


def begins_inside(prompt_text: str) -> bool:
    """Whether the prompt, as the template wrote it, itself opened the reasoning: it ends with the mark.

    Where it opened and closed it, as templates do whose user wants none, the answer begins.
    """
    end = prompt_text.rstrip()
    return any(end.endswith(pair.open) for pair in (*_PAIRS, _HARMONY))


@dataclass(slots=True)
class _State:
    """Where the text goes that comes next.

    Attributes:
        kind: None: nowhere, it is a header.
        fresh: only newlines came since the last mark.
    """

    kind: Kind | None
    to: str | None = None
    fresh: bool = True


class Splitter:
    """Cuts a text that arrives in pieces into reasoning and answer.

    However the text is cut into pieces, the parts are the same if neighbours of one kind are joined. No part
    holds a mark or the beginning of one; a mark that never becomes whole is text, given by `finish`. Newlines
    beside the marks belong to the marks.
    """

    def __init__(self, markers: Markers | None, *, begins_inside: bool = False) -> None:
        """
        Args:
            markers: of the template that wrote the prompt; None: everything is answer.
            begins_inside: the prompt opened the reasoning.
        """
        self._markers = markers
        self._held = ""  # what may be the beginning of a mark
        self._newlines = ""  # newlines that a mark may take with it
        self._header = ""
        inside = markers is not None and begins_inside
        self._state = _State("reasoning" if inside else "answer")
        self._begun = inside  # newlines at the very beginning of a text are its own, unless a mark follows
        self._marks: dict[bool, _Marks] = {}
        if markers is not None:
            between = _Marks(_marks_of(markers))
            # A message's text may hold " to="; only what begins a message is a header.
            first = _Marks((*between.texts, _RECEIVER)) if markers.harmony else between
            self._marks = {True: first, False: between}

    @property
    def is_inside(self) -> bool:
        """Whether what comes next is reasoning, unless a mark comes."""
        return self._state.kind == "reasoning"

    def feed(self, piece: str) -> list[Part]:
        """The parts that are certain after this piece."""
        return self._take(piece, last=False)

    def finish(self) -> list[Part]:
        """What was held back: nothing more comes."""
        parts = self._take("", last=True)
        if self._newlines:
            parts, self._newlines = joined([*parts, *self._emitted(self._newlines)]), ""
        return parts

    def _take(self, piece: str, *, last: bool) -> list[Part]:
        if self._markers is None:
            return [Part("answer", piece)] if piece else []
        text, self._held = self._held + piece, ""
        parts: list[Part] = []
        while text:
            start, end = self._marks[self._at_beginning()].find(text, last)
            parts += self._text(text[:start])
            if start > 0 and start < len(text):
                # The text before decides which marks may follow it.
                text = text[start:]
                continue
            if end == start:  # the rest may be the beginning of a mark, or there is none
                self._held = text[start:]
                break
            self._pass(text[start:end])
            text = text[end:]
        return joined(parts)

    def _at_beginning(self) -> bool:
        """Whether a message of harmony may begin here, with its receiver."""
        return self._state.kind == "answer" and self._state.fresh

    def _text(self, text: str) -> list[Part]:
        """Text between marks, without the newlines that may belong to these."""
        state = self._state
        if state.kind is None:
            self._header += text
            return []
        text, self._newlines = self._newlines + text, ""
        if state.fresh and self._begun:
            text = text.lstrip("\n")
        body = text.rstrip("\n")
        self._newlines = text[len(body) :]
        if not body:
            return []
        state.fresh, self._begun = False, True
        return self._emitted(body)

    def _emitted(self, text: str) -> list[Part]:
        assert self._state.kind is not None
        return [Part(self._state.kind, text, self._state.to)]

    def _pass(self, mark: str) -> None:
        """A mark was read."""
        assert self._markers is not None
        self._newlines = ""
        self._begun = True
        if not self._markers.harmony:
            self._state = _State("reasoning" if mark == self._markers.open else "answer")
        elif mark in _ENDS:
            self._state = _State("answer")
        elif mark == _MESSAGE:
            self._state = _addressed(self._header) if self._state.kind is None else _State(self._state.kind)
            self._header = ""
        else:  # a header begins, or goes on
            self._header = (self._header if self._state.kind is None else "") + mark
            self._state = _State(None)


def _marks_of(markers: Markers) -> tuple[str, ...]:
    if not markers.harmony:
        return (markers.open, markers.close)
    return (_CHANNEL, _MESSAGE, _START, *_ENDS, "<|constrain|>")


def _addressed(header: str) -> _State:
    """What a message of harmony is, by its header, as `<|channel|>commentary to=functions.add json`."""
    receiver = re.search(r"(?:^|\s|>)to=([^\s<]+)", header)
    if receiver is not None and receiver[1] not in ("user", "assistant", "all"):
        return _State("call", receiver[1])
    channel = header.partition(_CHANNEL)[2].split(maxsplit=1)
    return _State("reasoning" if channel and channel[0].startswith("analysis") else "answer")


class _Marks:
    """Finds marks in a text that may go on."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = tuple(texts)
        self._pattern = re.compile("|".join(map(re.escape, sorted(self.texts, key=len, reverse=True))))
        self._longest = max(map(len, self.texts))
        self._begins = re.compile("[" + "".join({re.escape(text[0]) for text in self.texts}) + "]")

    def find(self, text: str, last: bool) -> tuple[int, int]:
        """Where the first mark begins and ends. (n, n): from n on it may be one; at the end: there is none.

        `last`: nothing follows, so that only whole marks count.
        """
        if self._begins.search(text) is None:  # as most pieces of a text
            return len(text), len(text)
        found = self._pattern.search(text)
        before = len(text) if found is None else found.start() + 1
        if not last:
            for start in range(max(0, len(text) - self._longest + 1), before):
                rest = text[start:]
                if any(len(rest) < len(mark) and mark.startswith(rest) for mark in self.texts):
                    return start, start
        return (len(text), len(text)) if found is None else found.span()


def joined(parts: list[Part]) -> list[Part]:
    """Neighbours of one kind become one part."""
    result: list[Part] = []
    for part in parts:
        if result and (result[-1].kind, result[-1].to) == (part.kind, part.to):
            part = Part(part.kind, result.pop().text + part.text, part.to)
        result.append(part)
    return result
