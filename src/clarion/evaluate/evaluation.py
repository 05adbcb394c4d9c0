"""Models on a text: perplexity, and the distance to a reference, token by token."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from clarion.errors import ModelError, ParameterError
from clarion.evaluate.chunks import Chunk
from clarion.evaluate.engines import Engine
from clarion.evaluate.figures import Divergence, Doubles, Perplexity, Rows, score
from clarion.evaluate.weights import TensorError
from clarion.tokenizer import Tokenizer

WORST = 10  # passages
_BEFORE, _AFTER = 24, 8  # tokens shown of a passage


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the text a model was farthest from the reference."""

    position: int  # of the token that was to be predicted
    divergence: float
    before: str
    token: str
    after: str
    choice: str
    reference_choice: str


@dataclass(slots=True)
class Track:
    """One model's scores along the text, one number for each scored token [n]."""

    path: Path
    engine: str
    n_bytes: int
    seconds: float = 0.0
    n_computed: int = 0
    surprises: list[Doubles] = field(default_factory=list)
    divergences: list[Doubles] = field(default_factory=list)
    choices: list[Any] = field(default_factory=list)

    @property
    def surprise(self) -> Doubles:
        return np.concatenate(self.surprises)

    @property
    def divergence(self) -> Doubles:
        return np.concatenate(self.divergences)

    @property
    def choice(self) -> Any:
        return np.concatenate(self.choices)

    @property
    def tokens_per_second(self) -> float:
        return self.n_computed / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Details:
    """Where a model's error comes from.

    Attributes:
        layers: relative error of what leaves each layer; empty where the engine does not show it.
        tensors: of each matrix; empty where the reference is the same file.
    """

    layers: list[float]
    tensors: list[TensorError]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured.

    Attributes:
        positions: of the scored tokens in the text [n].
        chunk_sizes: how many of them each chunk has.
        reference: its track, or None; its divergences are zero.
        details: one for each model, or none if nobody asked.
    """

    tokens: list[int]
    positions: Any
    chunk_sizes: list[int]
    models: list[Track]
    reference: Track | None
    tokenizer: Tokenizer
    details: list[Details] = field(default_factory=list)

    def places(self, track: Track) -> list[Place]:
        """The worst of them first; none without a reference."""
        if self.reference is None:
            return []
        worst = np.argsort(-track.divergence, kind="stable")[:WORST]
        return [self._place(track, self.reference, int(i)) for i in worst]

    def report(self) -> dict[str, Any]:
        """All figures as plain values."""
        return {
            "text_tokens": len(self.tokens),
            "chunks": len(self.chunk_sizes),
            "scored_tokens": len(self.positions),
            "reference": None if self.reference is None else self._figures(self.reference),
            "models": [
                self._figures(track) | ({"details": asdict(self.details[i])} if self.details else {})
                for i, track in enumerate(self.models)
            ],
        }

    def _figures(self, track: Track) -> dict[str, Any]:
        perplexity = Perplexity.of(track.surprise)
        figures: dict[str, Any] = {
            "model": str(track.path),
            "engine": track.engine,
            "bytes": track.n_bytes,
            "perplexity": perplexity.value,
            "perplexity_error": perplexity.error,
            "tokens_per_second": track.tokens_per_second,
        }
        if self.reference is not None and track is not self.reference:
            same = track.choice == self.reference.choice
            figures["divergence"] = asdict(Divergence.of(track.divergence))
            figures["same_choice"] = float(same.mean())
            figures["worst"] = [asdict(place) for place in self.places(track)]
        return figures

    def _place(self, track: Track, reference: Track, i: int) -> Place:
        position = int(self.positions[i])

        def text(tokens: Sequence[int]) -> str:
            return self.tokenizer.decode(tokens)

        return Place(
            position=position,
            divergence=float(track.divergence[i]),
            before=text(self.tokens[max(position - _BEFORE, 0) : position]),
            token=text([self.tokens[position]]),
            after=text(self.tokens[position + 1 : position + 1 + _AFTER]),
            choice=text([int(track.choice[i])]),
            reference_choice=text([int(reference.choice[i])]),
        )


def evaluate(
    tokens: list[int],
    chunks: Sequence[Chunk],
    models: Sequence[tuple[Track, Engine]],
    reference: tuple[Track, Engine] | None,
    tokenizer: Tokenizer,
    threads: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Computes all chunks with every model, one chunk's logits at a time, which `threads` score.

    Raises:
        ParameterError: no chunks.
        ModelError: a model's logits are not finite, or vocabularies differ in size.
    """
    if not chunks:
        raise ParameterError("no chunks of text to evaluate")
    for done, chunk in enumerate(chunks):
        targets = np.asarray(chunk.targets, np.int64)
        wanted = None
        if reference is not None:
            wanted = _logits(*reference, chunk)
            _add(reference[0], wanted, targets, None, threads)
        for track, engine in models:
            _add(track, _logits(track, engine, chunk), targets, wanted, threads)
        progress(done + 1, len(chunks))
    return Evaluation(
        tokens,
        np.concatenate([chunk.position + np.arange(len(chunk.targets)) for chunk in chunks]),
        [len(chunk.targets) for chunk in chunks],
        [track for track, _ in models],
        None if reference is None else reference[0],
        tokenizer,
    )


def _logits(track: Track, engine: Engine, chunk: Chunk) -> Rows:
    started = time.perf_counter()
    logits = engine.logits(chunk.tokens, chunk.first)
    track.seconds += time.perf_counter() - started
    track.n_computed += len(chunk.tokens)
    return logits


def _add(track: Track, logits: Rows, targets: Any, reference: Rows | None, threads: int) -> None:
    if reference is not None and logits.shape != reference.shape:
        raise ModelError(
            f"{track.path}: the vocabulary has {logits.shape[1]} tokens, the reference's {reference.shape[1]}"
        )
    scores = score(logits, targets, reference, threads)
    if not np.isfinite(scores.surprise).all():
        raise ModelError(f"{track.path}: logits of {track.engine} are not numbers")
    track.surprises.append(scores.surprise)
    track.divergences.append(scores.divergence)
    track.choices.append(scores.choice)
