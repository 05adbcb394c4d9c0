"""Tokens become text, pieces and completions: many of them on a thread of its own, while the engine computes.

Who owns what. A `Speech`, one for each text, is made by the caller's thread and handed over with the request.
From then on only the thread that speaks touches it: the speaker's, as long as it has anything to speak, else
the engine's, which may speak a few tokens itself. The engine alone tells what happened, in events, in their
order; a text's `put` is called here and nowhere else. So a caller hears of a text in the order in which
things happened.

The speaker alone sees stop strings, and so it has the last word on where a text ends: `ended` is called
before the caller hears of the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import assert_never

from clarion.exiting import Background
from clarion.runtime.completion import Completion, FinishReason, Timings, TokenLogprob
from clarion.runtime.pieces import Piece, TokenEnds
from clarion.runtime.request import Generate, PromptDone, Put
from clarion.runtime.stopping import StopStrings


class Speech:
    """One text as it is spoken: its decoder, what is held back, and the figures of its completion.

    Times are those of time.perf_counter.
    """

    def __init__(self, id: int, wanted: Generate, n_prompt: int, put: Put, submitted: float) -> None:
        self.id = id
        self.put = put
        self.n_spoken = 0  # tokens that the decoder has seen
        self.stopped_after: int | None = None  # so many tokens; the last of them completed a stop string
        self.end: Completion | Exception | None = None
        self._wanted = wanted
        self._n_prompt = n_prompt
        self._decoder = wanted.detokenizer.stream() if wanted.detokenizer is not None else None
        self._stop_strings = StopStrings(wanted.stop_strings) if wanted.stop_strings else None
        self._ends = TokenEnds()  # where stop strings hold text back
        self._tokens: list[int] = []
        self._text: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._has_logprobs = wanted.parameters.logprobs is not None
        self._n_given = 0  # tokens that pieces have
        self._reused = self._n_done = 0  # of the prompt
        self._n_drawn = 0
        self._submitted = submitted
        self._started = self._first = self._last = 0.0

    def start(self, at: float, n_reused: int) -> None:
        """The engine takes the text up; so many tokens of the prompt are computed already."""
        self._started = self._last = at
        self._reused = self._n_done = n_reused

    def prompt(self, at: float, n_done: int) -> None:
        """So many tokens of the prompt are computed."""
        self._last = at
        self._n_done = n_done
        if self._wanted.reports:
            self.put(PromptDone(n_done, self._n_prompt))

    def speak(self, at: float, token: int, logprob: TokenLogprob | None) -> None:
        """The next token of the text."""
        self._draw(at)
        self._tokens.append(token)
        if logprob is not None:
            self._logprobs.append(logprob)
        if self._decoder is not None:
            text = self._decoder.feed(token)
            if text:
                self._say(text)
                if self.end is not None:
                    self.stopped_after = len(self._tokens)
        self.n_spoken += 1

    def finish(self, at: float, reason: FinishReason, stopped_by: int | None) -> None:
        """The end; first what decoder and stop strings hold back. `stopped_by`: a token, drawn at last."""
        if stopped_by is not None:
            self._draw(at)
        if self._decoder is not None:
            text = self._decoder.finish()
            if text:
                self._say(text)
            if self.end is not None:
                return
            if self._stop_strings is not None:
                self._emit_certain(self._stop_strings.finish())
        self._started = self._started or at
        self._complete(reason, stopped_by)

    def fail(self, error: Exception) -> None:
        """The end, by an error."""
        self.end = error

    def _draw(self, at: float) -> None:
        self._n_drawn += 1
        self._last = at
        self._first = self._first or at

    def _say(self, text: str) -> None:
        """More text, up to the last token, which a stop string may end."""
        if self._stop_strings is None:
            self._emit(text, len(self._tokens))
            return
        certain, stop = self._stop_strings.feed(text)
        if certain == text and not self._ends.waiting:  # nothing was held back, and nothing is
            self._emit(text, len(self._tokens))
        else:
            self._ends.feed(len(text), len(self._tokens))
            self._emit_certain(certain)
        if stop is not None:
            self._complete("stop", stop)

    def _emit_certain(self, text: str) -> None:
        """Text that belongs to no stop string, which may end within a token's."""
        if text:
            self._emit(text, max(self._n_given, self._ends.give(len(text))))

    def _emit(self, text: str, n_tokens: int) -> None:
        """The caller gets more text, which completes that of the first `n_tokens` tokens."""
        self._text.append(text)
        if self._wanted.streams:
            given = slice(self._n_given, n_tokens)
            self._n_given = n_tokens
            logprobs = tuple(self._logprobs[given]) if self._has_logprobs else None
            self.put(Piece(text, tuple(self._tokens[given]), logprobs))

    def _complete(self, reason: FinishReason, stopped_by: str | int | None) -> None:
        first = self._first or self._last or self._started
        self.end = Completion(
            text="".join(self._text),
            tokens=tuple(self._tokens),
            finish_reason=reason,
            stopped_by=stopped_by,
            logprobs=tuple(self._logprobs) if self._has_logprobs else None,
            seed=self._wanted.parameters.seed,
            timings=Timings(
                prompt_tokens=self._n_done,
                reused_tokens=self._reused,
                generated_tokens=self._n_drawn,
                waiting=self._started - self._submitted,
                prompt=first - self._started,
                generation=self._last - first if self._n_drawn else 0.0,
            ),
        )


# ---- what the engine tells ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    speech: Speech
    at: float
    n_reused: int


@dataclass(frozen=True, slots=True)
class Prompted:
    speech: Speech
    at: float
    n_done: int


@dataclass(frozen=True, slots=True)
class Drawn:
    """A step's tokens: speeches[i] goes on with tokens[i]."""

    at: float
    speeches: Sequence[Speech]
    tokens: Sequence[int]
    logprobs: Sequence[TokenLogprob | None]


@dataclass(frozen=True, slots=True)
class Ended:
    speech: Speech
    at: float
    reason: FinishReason
    stopped_by: int | None


@dataclass(frozen=True, slots=True)
class Failed:
    speech: Speech
    error: Exception


Event = Started | Prompted | Drawn | Ended | Failed


# ---- the thread --------------------------------------------------------------------------------------------


# So many tokens are spoken at once by the thread that tells them. To speak one takes 5 to 10 us; to wake the
# speaker takes a core from the machine for about 70 us, where all cores compute.
FEW = 4


class Speaker:
    """Speaks all texts of an engine, on a thread of its own where that pays."""

    def __init__(self, ended: Callable[[Speech], None], went_on: Callable[[], None]) -> None:
        """Both are called by the thread that speaks. `ended`: of each text, before its caller hears of the
        end; `went_on`: after each list of events that the speaker's thread has spoken."""
        self._ended = ended
        self._went_on = went_on
        self._told: SimpleQueue[list[Event] | None] = SimpleQueue()
        self._n_told = 0  # lists; written by the engine's thread alone
        self._n_heard = 0  # of these; written by the speaker's thread alone
        self.thread = Background(self._loop, name="clarion-speaker")
        try:
            self.thread.start()
        except BaseException:  # nobody else knows of the thread
            self.close()
            raise

    def tell(self, events: list[Event], n_tokens: int) -> None:
        """What happened next, with so many tokens. A few are spoken at once, unless others come before
        them."""
        if n_tokens <= FEW and self._n_heard == self._n_told:
            self._hear_all(events)
        else:
            self._n_told += 1
            self._told.put(events)

    def close(self) -> None:
        """The thread ends when it has spoken everything that it was told."""
        self._told.put(None)

    def _loop(self) -> None:
        while self._hear_next():
            self._n_heard += 1
            self._went_on()

    def _hear_next(self) -> bool:
        """The next events; False at the end. Afterwards this thread holds nothing that they mention."""
        events = self._told.get()
        self._hear_all(events or [])
        return events is not None

    def _hear_all(self, events: list[Event]) -> None:
        for event in events:
            self._hear(event)

    def _hear(self, event: Event) -> None:
        match event:
            case Drawn(at, speeches, tokens, logprobs):
                for speech, token, logprob in zip(speeches, tokens, logprobs, strict=True):
                    self._speak(speech, speech.speak, at, token, logprob)
            case Started(speech, at, n_reused):
                self._speak(speech, speech.start, at, n_reused)
            case Prompted(speech, at, n_done):
                self._speak(speech, speech.prompt, at, n_done)
            case Ended(speech, at, reason, stopped_by):
                self._speak(speech, speech.finish, at, reason, stopped_by)
            case Failed(speech, error):
                self._speak(speech, speech.fail, error)
            case _:
                assert_never(event)

    def _speak(self, speech: Speech, step: Callable[..., None], *arguments: object) -> None:
        """Lets one event happen to a text, and delivers the end where that was it. After the end nothing
        happens."""
        if speech.end is not None:
            return
        try:
            step(*arguments)
        except Exception as error:  # this text's own: the others go on
            speech.end = error
        if speech.end is not None:
            self._ended(speech)
            speech.put(speech.end)
