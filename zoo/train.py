"""Training: one loop for all models."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from clarion.errors import ParameterError
from zoo.checkpoint import Run, State
from zoo.config import Model, Recipe
from zoo.corpus import Tokens
from zoo.muon import Muon
from zoo.network import Network
from zoo.order import Order
from zoo.schedule import Progress
from zoo.start import copy_weights

LOG_EVERY = 10  # steps
CHECK_EVERY = 100  # steps between looks at the held-out text
SAVE_EVERY = 120.0  # seconds
N_CHECKED = 64  # windows of the held-out text in a look

Report = Callable[[str], None]


class Training:
    """A run in memory: network, optimizers, and how far it is.

    Args:
        run: its folder; what is in there is continued.
        model: what to train, where the folder holds nothing yet.
        start: a GGUF file to begin with instead of random weights; nothing to a run that has begun.

    Raises:
        FileError, ParameterError: the folder or the file to start from does not fit, or there is no such
            device.
    """

    def __init__(
        self, run: Run, model: Model, tokens: dict[str, Tokens], device: str, start: Path | None = None
    ) -> None:
        self.run = run
        self.device = _device(device)
        saved = run.load() if run.exists else None
        self.model = saved.model if saved else model
        recipe = self.model.recipe
        torch.manual_seed(recipe.seed)
        self.network = Network(self.model.shape, recipe.context)
        if saved:
            self.progress = saved.progress
            self.network.load_state_dict(saved.network)
            run.forget_after(saved.progress.step)
        else:
            self.progress = Progress(0, recipe.steps, round(recipe.cooldown * recipe.steps), 0.0)
            if start is not None:
                copy_weights(self.network, start)
                self.progress.started_from = start.name
        self.network.to(self.device)
        self.optimizers = optimizers(self.network, recipe)
        if saved:
            for optimizer, state in zip(self.optimizers, saved.optimizers, strict=True):
                optimizer.load_state_dict(state)
            torch.set_rng_state(saved.random)
        self.order = Order(tokens["train"], recipe.context, recipe.seed)
        self.held_out = held_out_windows(tokens["valid"], recipe.context)

    def train(self, report: Report) -> bool:
        """Trains to the end, or until SIGINT or SIGTERM. The state is saved in both cases.

        Returns:
            Whether the end is reached.
        """
        progress, recipe = self.progress, self.model.recipe
        saved = clock = time.monotonic()
        logged: list[float] = []
        with _interruptible() as stopped:
            while progress.step < progress.steps and not stopped():
                logged.append(self._step())
                progress.step += 1
                now = time.monotonic()
                progress.seconds += now - clock
                clock = now
                last = progress.step == progress.steps
                if progress.step % LOG_EVERY == 0 or last:
                    entry = {
                        "step": progress.step,
                        "tokens": progress.step * recipe.batch,
                        "seconds": round(progress.seconds, 1),
                        "loss": round(sum(logged) / len(logged), 4),
                    }
                    logged = []
                    if progress.step % CHECK_EVERY == 0 or last:
                        windows = self.held_out if last else self.held_out[:N_CHECKED]
                        entry["held_out"] = round(self.loss_on(windows), 4)
                    self.run.log(entry)
                    report("  ".join(f"{key} {value}" for key, value in entry.items()))
                if time.monotonic() - saved > SAVE_EVERY:
                    self.save()
                    saved = time.monotonic()
        self.save()
        return progress.step == progress.steps

    def save(self) -> None:
        """Writes the state into the run's folder."""
        states = [optimizer.state_dict() for optimizer in self.optimizers]
        self.run.save(
            State(self.model, self.progress, self.network.state_dict(), states, torch.get_rng_state())
        )

    @torch.no_grad()
    def loss_on(self, windows: NDArray[np.int64]) -> float:
        """Nats a token on windows [N, context + 1]."""
        n = max(1, self.model.recipe.micro_batch // self.model.recipe.context)
        losses = [
            self._loss(windows[i : i + n]).item() * len(windows[i : i + n]) for i in range(0, len(windows), n)
        ]
        return sum(losses) / len(windows)

    def _step(self) -> float:
        recipe, progress = self.model.recipe, self.progress
        windows = self.order.batch(progress.step, recipe.batch // recipe.context)
        n_parts = recipe.batch // recipe.micro_batch
        total = 0.0
        for part in np.split(windows, n_parts):
            loss = self._loss(part)
            balance = sum((e.balance for e in self.network.experts()), torch.zeros((), device=self.device))
            ((loss + recipe.balance * balance) / n_parts).backward()
            total += loss.item() / n_parts
        share = progress.rate(recipe.warmup)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["full_rate"] * share
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return total

    def _loss(self, windows: NDArray[np.int64]) -> Tensor:
        ids = torch.from_numpy(windows).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = self.network(ids[:, :-1])  # [B, T, V]
        return functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())


def _device(name: str) -> torch.device:
    """The device, so set up that it gives the same bits each time, as far as PyTorch knows how."""
    device = torch.device(name)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ParameterError("PyTorch finds no CUDA device here; train with --device cpu")
        # Read when the first product is asked for.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    return device


def optimizers(network: Network, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the rest; each group keeps its `full_rate`."""
    parameters = dict(network.named_parameters())
    matrices = [p for name, p in parameters.items() if _by_muon(name, p)]
    vectors = [p for name, p in parameters.items() if p.ndim == 1 or name.endswith("ffn_gate_inp")]
    groups = [
        {"params": [network.token_embd.weight], "lr": recipe.table_rate},
        {"params": vectors, "lr": recipe.vector_rate},
    ]
    made: list[torch.optim.Optimizer] = [
        Muon(matrices, recipe.matrix_rate, weight_decay=recipe.weight_decay),
        torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    for optimizer in made:
        for group in optimizer.param_groups:
            group["full_rate"] = group["lr"]
    return made


def held_out_windows(tokens: Tokens, context: int) -> NDArray[np.int64]:
    """The held-out text in windows side by side, each with one token more, [N, context + 1]."""
    n = (len(tokens.ids) - 1) // context
    ids = tokens.ids[: n * context + 1].astype(np.int64)
    return np.lib.stride_tricks.sliding_window_view(ids, context + 1)[::context].copy()


def _by_muon(name: str, parameter: Tensor) -> bool:
    return name.startswith("blk.") and parameter.ndim >= 2 and not name.endswith("ffn_gate_inp")


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Within it, SIGINT and SIGTERM only make a function say yes."""
    stop = False

    def note(*_: object) -> None:
        nonlocal stop
        stop = True

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
