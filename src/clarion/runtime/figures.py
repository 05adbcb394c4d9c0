"""What an engine is doing and has done, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figures:
    """A snapshot. Totals count from loading on and never fall.

    Attributes:
        texts_running: texts, scores, rows of logits that are being computed, and states that are written to
            files and read from them.
        texts_waiting: those in line.
        cache_bytes: the budget of the states of all texts.
        cache_bytes_used: of these in use, by what runs and by what is retained of texts that ended.
        cache_bytes_retained: of these in use by nothing that runs: they are given up for who needs them.
        prompt_tokens: tokens of prompts and of scored texts that were computed; once more where that was for
            a text that had given up its place.
        reused_tokens: those that were in the cache instead.
        generated_tokens: drawn, those that ended texts included.
        steps: batches that were computed.
        preemptions: how often a text gave up its place, to be computed again later.
        weight_bytes_read: that the steps read, by the count of `Model.bytes_per_token`: a step with many
            tokens reads more of a model of experts.
    """

    texts_running: int = 0
    texts_waiting: int = 0
    cache_bytes: int = 0
    cache_bytes_used: int = 0
    cache_bytes_retained: int = 0
    prompt_tokens: int = 0
    reused_tokens: int = 0
    generated_tokens: int = 0
    steps: int = 0
    preemptions: int = 0
    weight_bytes_read: int = 0


class Counts:
    """What an engine counts. Its thread writes; any thread reads, each number for itself."""

    __slots__ = (
        "bytes_retained",
        "bytes_used",
        "generated_tokens",
        "preemptions",
        "prompt_tokens",
        "reused_tokens",
        "steps",
    )

    def __init__(self) -> None:
        self.bytes_used = self.bytes_retained = 0
        self.prompt_tokens = self.reused_tokens = self.generated_tokens = 0
        self.steps = self.preemptions = 0
