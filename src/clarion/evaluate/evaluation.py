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
from clarion.evaluate.figures import Divergence, Doubles, Indices, LogitRows, Perplexity, Scores, score
from clarion.evaluate.scorers import Scorer
from clarion.evaluate.weights import TensorError
from clarion.tokenizer import Tokenizer

WORST = 10  # passages
_BEFORE, _AFTER = 24, 8  # tokens shown of a passage


@dataclass(frozen=True, slots=True)
class Passage:
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
    scores: Scores = field(default_factory=lambda: Scores.empty(0))

    @property
    def surprise(self) -> Doubles:
        return self.scores.surprise

    @property
    def divergence(self) -> Doubles:
        return self.scores.divergence

    @property
    def choice(self) -> Indices:
        return self.scores.choice

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

    def places(self, track: Track) -> list[Passage]:
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

    def _place(self, track: Track, reference: Track, i: int) -> Passage:
        position = int(self.positions[i])

        def text(tokens: Sequence[int]) -> str:
            return self.tokenizer.decode(tokens)

        return Passage(
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
    models: Sequence[tuple[Track, Scorer]],
    reference: tuple[Track, Scorer] | None,
    tokenizer: Tokenizer,
    threads: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Computes all chunks with every model; `threads` score what is computed.

    With a reference chunk by chunk, whose logits by the reference are kept; else all chunks of one model
    after those of another, and no logits are kept. `progress` hears of chunks done and chunks in all, of all
    models.

    Raises:
        ParameterError: no chunks.
        ModelError: a model's logits are not finite, or vocabularies differ in size.
    """
    if not chunks:
        raise ParameterError("no chunks of text to evaluate")
    sizes = [len(chunk.targets) for chunk in chunks]
    begins = np.cumsum([0, *sizes]).tolist()
    for track, _ in (*models, *([reference] if reference else [])):
        track.scores = Scores.empty(begins[-1])
    n_done = 0

    def done() -> None:
        nonlocal n_done
        n_done += 1
        progress(n_done, len(chunks) * len(models))

    if reference is None:
        for track, engine in models:
            _score(track, engine, chunks, begins, threads, done=done)
    else:
        kept = _Kept(max(sizes))
        for i in range(len(chunks)):
            one, begin = chunks[i : i + 1], begins[i : i + 1]
            _score(*reference, one, begin, threads, kept=kept)
            for track, engine in models:
                _score(track, engine, one, begin, threads, reference=kept.rows, done=done)
    return Evaluation(
        tokens,
        np.concatenate([chunk.position + np.arange(len(chunk.targets)) for chunk in chunks]),
        sizes,
        [track for track, _ in models],
        None if reference is None else reference[0],
        tokenizer,
    )


class _Kept:
    """A reference's logits of one chunk, in memory that is used again for the next one."""

    rows: LogitRows | None = None  # [n, V]

    def __init__(self, n: int) -> None:
        self._n = n

    def keep(self, row: int, logits: LogitRows) -> None:
        if self.rows is None:
            self.rows = np.empty((self._n, logits.shape[1]), logits.dtype)
        self.rows[row : row + len(logits)] = logits


def _score(
    track: Track,
    engine: Scorer,
    chunks: Sequence[Chunk],
    begins: Sequence[int],
    threads: int,
    *,
    reference: LogitRows | None = None,
    kept: _Kept | None = None,
    done: Callable[[], None] = lambda: None,
) -> None:
    """Scores chunks into the track, from `begins` on; `done` hears of each."""
    targets = [np.asarray(chunk.targets, np.int64) for chunk in chunks]
    scoring = 0.0

    def take(i: int, row: int, logits: LogitRows) -> None:
        nonlocal scoring
        began = time.perf_counter()
        rows = slice(row, row + len(logits))
        wanted = None if reference is None else reference[rows]
        if wanted is not None and wanted.shape != logits.shape:
            raise ModelError(
                f"{track.path}: the vocabulary has {logits.shape[1]} tokens, "
                f"the reference's {wanted.shape[1]}"
            )
        if kept is not None:
            kept.keep(row, logits)
        place = track.scores.part(slice(begins[i] + rows.start, begins[i] + rows.stop))
        score(logits, targets[i][rows], wanted, threads, place)
        if not np.isfinite(place.surprise).all():
            raise ModelError(f"{track.path}: logits of {track.engine} are not numbers")
        if rows.stop == len(targets[i]):
            done()
        scoring += time.perf_counter() - began

    started = time.perf_counter()
    engine.logits(chunks, take)
    track.seconds += time.perf_counter() - started - scoring
    track.n_computed += sum(len(chunk.tokens) for chunk in chunks)
