"""A run's folder: its state, from which training goes on as if it had never stopped, and its log."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from clarion.errors import FileError
from zoo.config import Model, from_dict
from zoo.schedule import Progress


@dataclass(frozen=True, slots=True)
class State:
    """What a run's folder holds: enough to go on as if it had never stopped.

    Attributes:
        network: parameters by name.
        optimizers: the state of each.
        random: of torch's generator. The order of the text needs none, it follows from the seed and the step.
    """

    model: Model
    progress: Progress
    network: dict[str, Tensor]
    optimizers: list[dict[str, Any]]
    random: Tensor


class Run:
    """The folder of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._state = folder / "state.pt"
        self._log = folder / "log.jsonl"

    @classmethod
    def of(cls, model: Model, runs: Path) -> Run:
        """Where a model is trained, below `runs`."""
        return cls(runs / f"{model.name}-{model.size}")

    @property
    def exists(self) -> bool:
        return self._state.exists()

    def save(self, state: State) -> None:
        """Replaces the state; a run that is cut off here keeps the one before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self._state.with_suffix(".partial")
        torch.save(
            {
                "model": asdict(state.model),
                "progress": asdict(state.progress),
                "network": state.network,
                "optimizers": state.optimizers,
                "random": state.random,
            },
            temporary,
        )
        os.replace(temporary, self._state)

    def load(self) -> State:
        """The state.

        Raises:
            FileError: there is none, or it cannot be read.
        """
        try:
            values = torch.load(self._state, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, UnpicklingError) as error:
            raise FileError(f"{self._state}: cannot be read: {error}") from error
        return State(
            from_dict(values["model"]),
            Progress(**values["progress"]),
            values["network"],
            values["optimizers"],
            values["random"],
        )

    def log(self, entry: dict[str, float]) -> None:
        """Appends a line to the log."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self._log, "a") as file:
            file.write(json.dumps(entry) + "\n")

    def entries(self) -> list[dict[str, float]]:
        """The log, oldest first."""
        if not self._log.exists():
            return []
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def forget_after(self, step: int) -> None:
        """Drops what was logged after the state was saved: those steps are done again."""
        kept = [entry for entry in self.entries() if entry["step"] <= step]
        if self._log.exists():
            self._log.write_text("".join(json.dumps(entry) + "\n" for entry in kept))
