"""What the engine works on: a text to generate, or the logits of given tokens.

A job is made by the caller's thread and handed to the engine. From then on only the engine's thread touches
it; the caller waits for what `put` brings.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import NamedTuple, Protocol

import numpy as np

from clarion.errors import CancelledError, ModelError
from clarion.runtime.completion import Completion, FinishReason, Timings, TokenLogprob
from clarion.runtime.core import Floats, Sampler, SamplerState
from clarion.runtime.sampling import Parameters
from clarion.runtime.sequence import Sequence
from clarion.runtime.stopping import StopStrings


class PromptDone(NamedTuple):
    """How many of a prompt's tokens are in the cache."""

    done: int
    total: int


Result = Completion | int
Take = Callable[[int, Floats], None]
# News of the prompt and pieces of text, then a result or an error; it must not raise.
Put = Callable[[str | PromptDone | Result | Exception], None]


class Decoder(Protocol):
    """Turns tokens into text as they come, never half a character."""

    def feed(self, token: int) -> str: ...
    def finish(self) -> str: ...


class Job(ABC):
    """Tokens to compute, and what to do with the logits that come of them."""

    reuses_prefix = False  # whether the logits of the first tokens may be left out
    sequence: Sequence  # while it runs

    def __init__(self, tokens: list[int], put: Put) -> None:
        self.todo = tokens  # not in the cache yet; never empty
        self.put = put
        self.cancelled = False
        self.submitted = time.perf_counter()

    def start(self, sequence: Sequence) -> None:
        """The engine takes the job up, in a sequence that may hold some of its tokens already."""
        self.sequence = sequence
        del self.todo[: len(sequence.tokens)]

    def restart(self) -> None:
        """The job gives its pages back: everything is to be computed again."""
        self.todo = self.sequence.tokens + self.todo
        self.sequence.truncate(0)

    @abstractmethod
    def share(self, n_tokens: int, n_outputs: int) -> int:
        """How many tokens it can compute in a batch with this much room left."""

    @abstractmethod
    def outputs(self, n: int) -> range:
        """Which of the next n tokens need logits."""

    @abstractmethod
    def advance(self, n: int, logits: Floats, sampler: Sampler) -> Result | None:
        """The next n tokens are computed, `logits` are those of `outputs(n)`. At the end, the result."""

    @abstractmethod
    def cancel(self) -> Result | Exception:
        """What the caller gets when the job ends early."""


class Scoring(Job):
    """The logits after every token from `first` on, handed to `take` as they are computed.

    `take(row, logits)` gets those of rows row, row + 1, ..., a view [n, V] for the time of the call, on the
    engine's thread; it must bear the same rows again, if the job is restarted. The result is the number of
    all rows.
    """

    def __init__(self, tokens: list[int], first: int, take: Take, put: Put) -> None:
        super().__init__(tokens, put)
        self._take = take
        self._first = first
        self._n_done = 0

    def restart(self) -> None:
        super().restart()
        self._n_done = 0

    def share(self, n_tokens: int, n_outputs: int) -> int:
        return min(len(self.todo), n_tokens, self._n_unwanted + n_outputs)

    def outputs(self, n: int) -> range:
        return range(min(n, self._n_unwanted), n)

    def advance(self, n: int, logits: Floats, sampler: Sampler) -> Result | None:
        if len(logits):
            self._take(max(self._n_done - self._first, 0), logits)
        self._n_done += n
        del self.todo[:n]
        return None if self.todo else self._n_done - self._first

    def cancel(self) -> Result | Exception:
        return CancelledError("the computation was cancelled")

    @property
    def _n_unwanted(self) -> int:
        """How many of the next tokens need no logits."""
        return max(self._first - self._n_done, 0)


class Generation(Job):
    """A prompt to be continued."""

    reuses_prefix = True

    def __init__(
        self,
        prompt: list[int],
        parameters: Parameters,
        *,
        room: int,
        state: SamplerState,
        decoder: Decoder | None,
        end_tokens: Collection[int],
        streams: bool,
        put: Put,
        reports: bool = False,
        name: str = "",
    ) -> None:
        """`room`: the most tokens to generate. `streams`: whether pieces of text are put, or only the end;
        `reports`: whether PromptDone is, after each step. `name`: how errors call the prompt."""
        super().__init__(prompt, put)
        self._name = name
        self._reports = reports
        self._n_prompt = len(prompt)
        self._parameters = parameters
        self._room = room
        self._state = state
        self._decoder = decoder
        self._stop_strings = StopStrings([stop for stop in parameters.stop if isinstance(stop, str)])
        self._stop_tokens = {stop for stop in parameters.stop if isinstance(stop, int)} | set(end_tokens)
        self._streams = streams
        self._reused = 0
        self._n_done = 0  # of the prompt
        self._n_drawn = 0
        self._tokens: list[int] = []
        self._text: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._started = self._first = self._last = 0.0
        state.extend(np.asarray(prompt, np.int32))

    def start(self, sequence: Sequence) -> None:
        super().start(sequence)
        if self._started == 0.0:  # else it was restarted
            self._started = self._last = time.perf_counter()
            self._reused = self._n_done = len(sequence.tokens)

    def share(self, n_tokens: int, n_outputs: int) -> int:
        return min(len(self.todo) - (n_outputs == 0), n_tokens)

    def outputs(self, n: int) -> range:
        return range(n - 1, n) if n == len(self.todo) else range(0)

    def advance(self, n: int, logits: Floats, sampler: Sampler) -> Result | None:
        del self.todo[:n]
        if self._n_done < self._n_prompt:
            self._compute_prompt()
        if self.todo:
            return None
        row = logits[0]  # [V]
        try:
            token = sampler.sample(self._state, row)
        except ValueError as error:
            position = self._n_prompt + len(self._tokens)
            raise ModelError(
                f"{self._name}no token can be chosen for position {position}: {error}"
            ) from error
        self._n_drawn += 1
        self._last = time.perf_counter()
        self._first = self._first or self._last
        if token in self._stop_tokens:
            return self._finish("stop", token)
        self._tokens.append(token)
        if self._parameters.logprobs is not None:
            chosen, *top = sampler.log_probabilities(row, token, self._parameters.logprobs)
            self._logprobs.append(TokenLogprob(*chosen, tuple(top)))
        if self._decoder is not None:
            piece, stop = self._stop_strings.feed(self._decoder.feed(token))
            self._emit(piece)
            if stop is not None:
                return self._completion("stop", stop)
        if len(self._tokens) == self._room:
            return self._finish("length", None)
        self.todo.append(token)
        return None

    def cancel(self) -> Result | Exception:
        return self._finish("cancelled", None)

    def _compute_prompt(self) -> None:
        """One more step of the prompt is done."""
        self._last = time.perf_counter()
        # After a restart, tokens that were computed before are computed again.
        self._n_done = max(self._n_done, self._n_prompt - len(self.todo))
        if self._reports:
            self.put(PromptDone(self._n_done, self._n_prompt))

    def _emit(self, piece: str) -> None:
        if piece:
            self._text.append(piece)
            if self._streams:
                self.put(piece)

    def _finish(self, reason: FinishReason, stopped_by: int | None) -> Completion:
        """The end, with the text that decoder and stop strings held back."""
        if self._decoder is not None:
            piece, stop = self._stop_strings.feed(self._decoder.finish())
            self._emit(piece)
            if stop is not None:
                return self._completion("stop", stop)
            self._emit(self._stop_strings.finish())
        return self._completion(reason, stopped_by)

    def _completion(self, reason: FinishReason, stopped_by: str | int | None) -> Completion:
        started = self._started or time.perf_counter()
        first = self._first or self._last or started
        return Completion(
            text="".join(self._text),
            tokens=tuple(self._tokens),
            finish_reason=reason,
            stopped_by=stopped_by,
            logprobs=tuple(self._logprobs) if self._parameters.logprobs is not None else None,
            seed=self._parameters.seed,
            timings=Timings(
                prompt_tokens=self._n_done,
                reused_tokens=self._reused,
                generated_tokens=self._n_drawn,
                waiting=started - self.submitted,
                prompt=first - started,
                generation=self._last - first if self._n_drawn else 0.0,
            ),
        )
