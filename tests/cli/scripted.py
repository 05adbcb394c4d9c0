"""A model that writes what a test wants it to, over the real tokenizer and templates of the built-in one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import clarion
from clarion.runtime.completion import Completion, Timings
from clarion.runtime.pieces import Piece


class Scripted:
    """Stands in for a model: everything but what it writes is the real one's.

    Attributes:
        prompts: the texts that were to be continued.
    """

    def __init__(self, model: clarion.Model, *texts: str | BaseException) -> None:
        self._model = model
        self._texts = list(texts)
        self.prompts: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def stream(self, ids: Sequence[int], **_: object) -> ScriptedStream:
        self.prompts.append(self._model.detokenize(ids))
        return ScriptedStream(self._texts.pop(0), len(ids))


class ScriptedStream:
    """Three characters at a time; at U+0003, somebody presses Ctrl-C."""

    def __init__(self, text: str | BaseException, n_prompt: int) -> None:
        self._text, self._n_prompt, self._said = text, n_prompt, ""

    def __iter__(self) -> Iterator[Piece]:
        if isinstance(self._text, BaseException):
            raise self._text
        for i in range(0, len(self._text), 3):
            text = self._text[i : i + 3]
            self._said += text.partition("\x03")[0]
            if "\x03" in text:
                raise KeyboardInterrupt
            yield Piece(text, (1,))

    def cancel(self) -> Completion:
        n = len(self._said)
        whole = self._said == self._text
        timings = Timings(self._n_prompt, 0, n, 0.0, 0.1, 0.1)
        return Completion(self._said, (1,) * n, "stop" if whole else "cancelled", None, None, 1, timings)

    def __enter__(self) -> ScriptedStream:
        return self

    def __exit__(self, *_: object) -> None:
        pass
