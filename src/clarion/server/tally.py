"""What is known of the texts of a model: those that are written now, and sums of those that ended.

    merge ──▶ Count.begin ──▶ Text (written now) ──▶ end(completion) ──▶ histograms, reasons
                                               └──▶ leave(error)    ──▶ reasons

The event loop owns it. A text costs a few additions here; whoever asks (`metrics`, `slots`) adds the rest.
Of no text it keeps more than numbers, but for the ids of conversations to which clients gave a number
(`id_slot`): these can be saved.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Final

from clarion.runtime.completion import Completion
from clarion.runtime.figures import Figures

# Upper bounds of buckets: 1, 2 and 5 of each power of ten.
SECONDS: Final = tuple(n * 10.0**e for e in range(-4, 4) for n in (1, 2, 5))
TOKENS: Final = tuple(float(n * 10**e) for e in range(6) for n in (1, 2, 5))

_LEAST_SECONDS: Final = 1.0  # between two looks at what is read
REASONS: Final = ("stop", "length", "abort", "error")


class Histogram:
    """How often a value was at most so large.

    Attributes:
        bounds: of the buckets, from below; what is larger than the last one counts in a further bucket.
        counts: of values in each bucket alone.
        sum: of all values.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, n: int = 1) -> None:
        """A value that came n times."""
        self.counts[bisect_left(self.bounds, value)] += n
        self.sum += value * n

    def copied(self) -> Histogram:
        copy = Histogram(self.bounds)
        copy.counts, copy.sum = list(self.counts), self.sum
        return copy


class Reads:
    """Bytes of weights read in a second, between two looks."""

    def __init__(self) -> None:
        self._bytes: int | None = None
        self._time = 0.0
        self._rate: float | None = None

    def rate(self, n_bytes: int, now: float) -> float | None:
        """The rate since the look before; None for the first one. `n_bytes`: read since the beginning."""
        elapsed = now - self._time
        if self._bytes is None or elapsed >= _LEAST_SECONDS:
            self._rate = None if self._bytes is None else (n_bytes - self._bytes) / elapsed
            self._bytes, self._time = n_bytes, now
        return self._rate


@dataclass(eq=False, slots=True)
class Text:
    """A text that is written.

    Attributes:
        n_prompt: tokens of its prompt.
        n_written: tokens of its answer so far; None: they are not counted before its end.
        slot: the number that its client gave the conversation.
        started: when the model was asked for it, by time.monotonic.
    """

    n_prompt: int
    n_written: int | None
    slot: int | None
    started: float


@dataclass(eq=False)
class Tally:
    """Of one model, as long as the server runs.

    Attributes:
        texts: that are written now.
        slots: the ids of the last conversation of each number that clients gave, prompt and answer.
        ended: texts by the reason of their end: stop, length, abort (the client left), error.
        past: what was counted of the model before it was unloaded, all times together.
        reads: how fast weights are read.
    """

    texts: set[Text] = field(default_factory=set)
    slots: dict[int, array[int]] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    past: Figures = field(default_factory=Figures)
    reads: Reads = field(default_factory=Reads)
    first_token: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    between_tokens: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    whole: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    queue: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    prompt: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    generation: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    prompt_tokens: Histogram = field(default_factory=lambda: Histogram(TOKENS))
    generated_tokens: Histogram = field(default_factory=lambda: Histogram(TOKENS))

    def request(self, arrived: float, slot: int | None) -> Count:
        """Counts the texts of a request that came then, by time.monotonic; `slot`: the number that it gives
        its conversation."""
        return Count(self, arrived, slot)

    def remember(self, slot: int, ids: Sequence[int]) -> None:
        """These are the tokens of the last conversation of that number."""
        self.slots[slot] = array("i", ids)

    def unloaded(self, figures: Figures) -> None:
        """The model is unloaded; this is what it did."""
        self.past = total(self.past, figures)


class Count:
    """Counts the texts of one request."""

    def __init__(self, tally: Tally, arrived: float, slot: int | None) -> None:
        self._tally = tally
        self._arrived = arrived
        self._slot = slot

    def begin(self, n_prompt: int, *, whole: bool) -> Text:
        """A text is asked for. `whole`: it comes as one piece, at its end."""
        text = Text(n_prompt, None if whole else 0, self._slot, time.monotonic())
        self._tally.texts.add(text)
        return text

    def end(self, text: Text, ids: Sequence[int], completion: Completion) -> None:
        """A text has ended; `ids` are those of its prompt."""
        tally, timings = self._tally, completion.timings
        self._leave(text, "abort" if completion.finish_reason == "cancelled" else completion.finish_reason)
        before = text.started - self._arrived  # in the line, while the model was loaded, and the prompt made
        queue = before + timings.waiting
        n = timings.generated_tokens
        if n:
            tally.first_token.observe(queue + timings.prompt)
        if n > 1:
            tally.between_tokens.observe(timings.generation / (n - 1), n - 1)
        tally.whole.observe(queue + timings.prompt + timings.generation)
        tally.queue.observe(queue)
        tally.prompt.observe(timings.prompt)
        tally.generation.observe(timings.generation)
        tally.prompt_tokens.observe(timings.prompt_tokens)
        tally.generated_tokens.observe(n)
        if text.slot is not None:
            tally.remember(text.slot, (*ids, *completion.tokens))

    def leave(self, text: Text, error: BaseException) -> None:
        """A text is given up."""
        self._leave(text, "abort" if isinstance(error, asyncio.CancelledError | GeneratorExit) else "error")

    def _leave(self, text: Text, reason: str) -> None:
        if text in self._tally.texts:
            self._tally.texts.discard(text)
            self._tally.ended[reason] += 1


# Of an engine's figures, those that are sums.
_TOTALS: Final = (
    *("prompt_tokens", "reused_tokens", "generated_tokens", "steps", "preemptions"),
    "weight_bytes_read",
)
assert set(_TOTALS) <= {each.name for each in fields(Figures)}


def total(before: Figures, now: Figures) -> Figures:
    """The sums of both, and nothing of what is in use."""
    return Figures(**{name: getattr(before, name) + getattr(now, name) for name in _TOTALS})
