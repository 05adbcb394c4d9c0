"""Rates over the steps: up, level, down to zero. When they fall can be decided late (Hägele et al., 2024)."""

from __future__ import annotations

from dataclasses import dataclass

from clarion.errors import ParameterError


@dataclass(slots=True)
class Progress:
    """How far a run is.

    Attributes:
        step: steps done.
        steps: steps after which it ends.
        cooldown: the last steps, in which the rates fall, from their share `level`.
        seconds: wall time spent, over all sessions.
        started_from: the name of the file whose weights it began with, if any.
    """

    step: int
    steps: int
    cooldown: int
    seconds: float
    started_from: str | None = None
    level: float = 1.0

    def end_at(self, step: int, warmup: int) -> None:
        """Lets the rates fall from what they are now to zero at a step.

        Raises:
            ParameterError: that step is done already.
        """
        if step <= self.step:
            raise ParameterError(f"end is step {step}, but {self.step} are done already")
        self.level = self.rate(warmup)
        self.cooldown = step - self.step
        self.steps = step

    def rate(self, warmup: int) -> float:
        """The share of the full rates in the next step: linear in `warmup` and `cooldown`."""
        rising = (self.step + 1) / warmup if warmup else 1.0
        left = self.steps - self.step
        falling = self.level * left / self.cooldown if left < self.cooldown else 1.0
        return min(self.level if left <= self.cooldown else 1.0, rising, falling)
