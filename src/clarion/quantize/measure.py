"""What each matrix costs in each format: measured errors, and what they do to the output.

The error of a format is the squared error of the weights, weighted by the importance of their columns: the
expected squared error of the products, summed over them. How much that matters is another figure for each
matrix, its influence: one matrix at a time is replaced by a coarse copy of itself, and the mean
Kullback-Leibler divergence of the model's output from the undisturbed one, over that error, is what a unit of
error costs. For small errors both grow together, and the costs of different matrices add up; so the cost of a
mixture is an estimate, in nats, of its divergence from the model that it was made of (docs/budget.md has how
near it comes).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clarion.errors import ModelError, ParameterError
from clarion.evaluate.figures import score
from clarion.evaluate.imatrix import Imatrix
from clarion.gguf import File, Tensor, format_named
from clarion.gguf.part import padded
from clarion.host.threads import default_threads
from clarion.loading import load
from clarion.plan.sources import Sources
from clarion.programs import make_program
from clarion.quantize.frontier import Offer
from clarion.quantize.recipes import fitting
from clarion.quantize.tensor import dequantize_tensor, quantize_tensor, tensor_error
from clarion.residency import Replaced, Store
from clarion.runtime.executor import Executor
from clarion.runtime.sampling import Options

CANDIDATES = ("Q2_K", "IQ3_XXS", "IQ3_S", "IQ4_XS", "Q4_K", "Q5_K", "Q6_K", "Q8_0")
# Coarse enough that one matrix alone is seen in the output, fine enough that its effect is in proportion.
PROBE = "Q3_K"
PROBE_TOKENS = 512
PROBE_CONTEXT = 256
# Of a matrix, spread over it: an error over 1024 rows is known to about a percent.
MOST_ROWS = 1024

Floats = npt.NDArray[np.float32]
Importance = Sequence[Floats | None]  # for each expert, of each column [K]; None: all alike
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Measured:
    """A matrix, and what it costs in each format.

    Attributes:
        influence: cost of a unit of squared error.
        offers: one for each format that fits its rows, and its own, which costs nothing. Bytes are those in a
            file, with what aligns the next tensor.
    """

    tensor: Tensor
    influence: float
    offers: list[Offer]


def measure(
    file: File,
    tensors: Sequence[Tensor],
    *,
    tokens: Sequence[int],
    imatrix: Imatrix | None = None,
    candidates: Sequence[str] = CANDIDATES,
    threads: int | None = None,
    progress: Progress = lambda done, total: None,
) -> list[Measured]:
    """Measures matrices of a model.

    Args:
        tokens: a text, of which the first PROBE_TOKENS measure the influence.
        imatrix: weights the columns; None: all alike.
        candidates: the formats; where rows are no whole blocks, what stands in for them.
        progress: hears of matrices done and matrices in all.

    Raises:
        ParameterError: the text is shorter than two tokens.
        UnsupportedError: a candidate is a format that cannot be written.
        ModelError: a weight is not finite, or the importance matrix is of another model.
        FileError: the file changed meanwhile.
    """
    if len(tokens) < 2:
        raise ParameterError(f"the text to measure with has {len(tokens)} tokens, expected at least 2")
    probe = _Probe(file, tokens[:PROBE_TOKENS], threads)
    measured = []
    for done, tensor in enumerate(tensors):
        measured.append(_measure(tensor, file.alignment, imatrix, candidates, probe, threads))
        file.check()
        progress(done + 1, len(tensors))
    return measured


def own_text(path: Path, n_tokens: int, threads: int | None = None) -> list[int]:
    """What the model writes when nothing is asked, at temperature 1: a text that it was made for.

    Raises:
        FileError, UnsupportedError, ModelError: as `clarion.load`.
    """
    with load(path, threads=threads, context=n_tokens + 1) as model:
        start = [model.tokenizer.bos or 0]
        free: Options = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 0}
        options: Options = {**free, "max_tokens": n_tokens, "ignore_eos": True, "detokenize": False}
        return [*start, *model.generate(start, **options).tokens]


def _measure(
    tensor: Tensor,
    alignment: int,
    imatrix: Imatrix | None,
    candidates: Sequence[str],
    probe: _Probe,
    threads: int | None,
) -> Measured:
    cols, experts = tensor.shape[-1], math.prod(tensor.shape[:-2])
    found = imatrix.importance(tensor.name, experts, cols) if imatrix is not None else None
    importance = [None] * experts if found is None else list(found.astype(np.float32))
    rows = dequantize_tensor(np.asarray(tensor.data), tensor.format.name, cols).reshape(experts, -1, cols)
    influence = probe.influence(tensor, rows, importance)
    step = -(-rows.shape[0] * rows.shape[1] // MOST_ROWS)
    sample = rows[:, ::step]
    scale = rows.shape[1] / sample.shape[1]
    names = dict.fromkeys(fitting(format_named(name), cols).name for name in candidates)
    offers = [Offer(tensor.format.name, padded(tensor.n_bytes, alignment), 0.0)]
    for name in names:
        if name != tensor.format.name:
            error = scale * _squared_error(sample, name, importance, threads)
            n_bytes = padded(format_named(name).n_bytes(tensor.shape), alignment)
            offers.append(Offer(name, n_bytes, influence * error))
    return Measured(tensor, influence, offers)


def _squared_error(rows: Floats, name: str, importance: Importance, threads: int | None) -> float:
    """Of all experts' rows [E, R, K]."""
    total = 0.0
    for x, weights in zip(rows, importance, strict=True):
        total += tensor_error(x, quantize_tensor(x, name, weights, threads), name, weights).squared
    return total


class _Probe:
    """The undisturbed model's output on a text, and how far it moves when a matrix is coarser."""

    def __init__(self, file: File, tokens: Sequence[int], threads: int | None) -> None:
        context = min(PROBE_CONTEXT, len(tokens))
        self._chunks = [tokens[i : i + context] for i in range(0, len(tokens) - context + 1, context)]
        program = make_program(file, context=context, batch=context, outputs=context)
        self._weights = Replaced(Sources(program.weights, file.tensors))
        self._threads = threads
        self._used = {weight.name for weight in program.weights}
        self._executor = Executor(program, Store(program.weights, self._weights), threads=threads)
        self._wanted = [self._executor.logits(chunk) for chunk in self._chunks]

    def influence(self, tensor: Tensor, rows: Floats, importance: Importance) -> float:
        """Mean divergence for each unit of the probe's squared error; 0 for what the model does not read."""
        if tensor.name not in self._used:
            return 0.0
        name = fitting(format_named(PROBE), tensor.shape[-1]).name
        pieces, error = [], 0.0
        for x, weights in zip(rows, importance, strict=True):
            coarse = quantize_tensor(x, name, weights, self._threads)
            values = dequantize_tensor(coarse, name, x.shape[1])
            pieces.append(quantize_tensor(values, tensor.format.name, None, self._threads).reshape(-1))
            error += tensor_error(x, pieces[-1].reshape(len(x), -1), tensor.format.name, weights).squared
        if error == 0:
            return 0.0
        self._weights.use({tensor.name: np.concatenate(pieces)})
        divergences = []
        for chunk, wanted in zip(self._chunks, self._wanted, strict=True):
            logits = self._executor.logits(chunk)
            targets = np.zeros(len(chunk), np.int64)  # of no interest here
            divergences.append(score(logits, targets, wanted, self._threads or default_threads()).divergence)
        mean = float(np.concatenate(divergences).mean())
        if not math.isfinite(mean):
            raise ModelError(f"the output is not finite when {tensor.name!r} is disturbed")
        return mean / error
