"""What is asked of the engine: tokens, and what is wanted of them.

A request is a value: nothing in it changes, and any thread may read it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from clarion.runtime.completion import Completion
from clarion.runtime.pieces import Piece
from clarion.runtime.sampling import Parameters


class PromptDone(NamedTuple):
    """How many of a prompt's tokens are computed."""

    done: int
    total: int


Result = Completion | int
# News of the prompt and pieces of text, then a result or an error; it must not raise.
Put = Callable[[Piece | PromptDone | Result | BaseException], None]
# Takes the rows row, row + 1, ... of a text: float32 [n, V], a view that lasts as long as the call.
Take = Callable[[int, memoryview], None]


class Decoder(Protocol):
    """Turns tokens into text as they come, never half a character."""

    def feed(self, token: int) -> str: ...
    def finish(self) -> str: ...


class Detokenizer(Protocol):
    """Has a decoder for each text."""

    def stream(self) -> Decoder: ...


@dataclass(frozen=True, slots=True)
class Generate:
    """The tokens are a prompt to be continued. The result is a Completion.

    Attributes:
        parameters: how tokens are chosen, and where the text stops.
        room: the most tokens to generate.
        end_tokens: tokens with which the model ends the text.
        breakers: tokens across which the sampler finds no repetition.
        detokenizer: None: the text stays empty.
        streams: whether pieces of text are put as they come, or only the end.
        reports: whether PromptDone is put, after each step that computes some of the prompt.
        name: how errors call the prompt.
    """

    parameters: Parameters
    room: int
    end_tokens: frozenset[int] = frozenset()
    breakers: tuple[int, ...] = ()
    detokenizer: Detokenizer | None = None
    streams: bool = False
    reports: bool = False
    name: str = ""

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The strings that end the text, where there is a text."""
        if self.detokenizer is None:
            return ()
        return tuple(stop for stop in self.parameters.stop if isinstance(stop, str))

    @property
    def stop_tokens(self) -> frozenset[int]:
        """The tokens that end the text."""
        return self.end_tokens.union(stop for stop in self.parameters.stop if isinstance(stop, int))


@dataclass(frozen=True, slots=True)
class Score:
    """The logits after every token from `first` on. The result is the number of their rows.

    `take` gets them as they are computed, in order, on the engine's thread: while it works, nothing is
    computed. Where the request was preempted, it gets the same rows again.
    """

    first: int
    take: Take


@dataclass(frozen=True, slots=True)
class Save:
    """The state of the tokens is wanted in a file. The result is how many bytes it has."""

    path: Path


@dataclass(frozen=True, slots=True)
class Load:
    """The tokens are those of a saved state, which is to be retained. The result is how many they are."""

    path: Path


@dataclass(frozen=True, slots=True)
class Keep:
    """What is retained of the tokens is to be kept in the folder of prefixes. The engine's own."""


@dataclass(frozen=True, slots=True)
class Request:
    """At least one token, and what is wanted of them."""

    tokens: tuple[int, ...]
    wanted: Generate | Score | Save | Load | Keep
