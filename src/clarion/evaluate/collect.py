"""Collecting an importance matrix: a text goes through the model, which sums what enters each matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from clarion.errors import ModelError, ParameterError, UnsupportedError
from clarion.evaluate.imatrix import Imatrix, Statistics
from clarion.gguf import File
from clarion.plan.observe import SquareSums
from clarion.plan.sources import Sources
from clarion.programs import make_plan, make_program, writes
from clarion.residency import Mapped, Store
from clarion.runtime.executor import Executor

CHUNK = 512  # tokens, as llama.cpp's tool has it


def collect(
    file: File,
    tokens: Sequence[int],
    *,
    dataset: str,
    bos: int | None = None,
    chunk: int = CHUNK,
    n_chunks: int | None = None,
    output: bool = False,
    activations: str = "high",
    threads: int | None = None,
    isa: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Imatrix:
    """Runs the text through the model in chunks side by side; what does not fill one is left out.

    Sums within a batch are float32, over batches float64; they do not depend on `threads`.

    Args:
        dataset: the text's name, for the file.
        bos: takes the place of each chunk's first token, where there is one.
        n_chunks: the first so many only; None: all.
        output: also for the matrix that makes the logits, which then are computed.
        progress: hears of chunks done and chunks in all.

    Raises:
        ParameterError: the text does not fill a chunk, or a number is out of range.
        ModelError: what enters a matrix is not finite.
        FileError: the file changed meanwhile.
        UnsupportedError: as `clarion.load`.
    """
    plan = make_plan(file)
    if not writes(plan):
        raise UnsupportedError(
            f"{file.path}: {plan.hyperparameters.architecture} is no model that writes text; importance is "
            f"measured with one that does"
        )
    if chunk < 1 or (n_chunks is not None and n_chunks < 1):
        raise ParameterError(f"found chunks of {chunk} tokens and {n_chunks} of them, expected at least 1")
    if len(tokens) < chunk:
        raise ParameterError(f"the text has {len(tokens)} tokens, expected at least a chunk of {chunk}")
    starts = range(0, len(tokens) - chunk + 1, chunk)[:n_chunks]
    squares = SquareSums(lambda name: output or name.startswith("blk."))
    batch = min(chunk, 512)
    program = make_program(
        file,
        context=chunk,
        activations=activations,
        isa=isa,
        batch=batch,
        outputs=batch,
        observe=squares,
    )
    store = Store(program.weights, Mapped(Sources(program.weights, file.tensors)))
    executor = Executor(program, store, threads=threads, isa=isa)
    widths = {weight.name: (weight.experts, weight.cols) for weight in program.weights}
    # Matrices of one input share its statistics.
    shared = {
        found: Statistics(np.zeros(widths[name]), np.zeros(widths[name][0]))
        for name, found in reversed(squares.found.items())
    }
    for done, start in enumerate(starts):
        ids = np.array(tokens[start : start + chunk], np.int32)
        if bos is not None:
            ids[0] = bos
        for _ in executor.each_batch(ids.tolist(), first=0 if output else chunk):
            for found, statistics in shared.items():
                statistics.sums.ravel()[:] += executor.array(found.sums)[0]
                statistics.counts[:] += executor.array(found.counts)[0]
        file.check()
        progress(done + 1, len(starts))
    for name, found in squares.found.items():
        if not np.isfinite(shared[found].sums).all():
            raise ModelError(f"{file.path}: what enters {name!r} is not finite")
    statistics_of = {name: shared[found] for name, found in squares.found.items()}
    return Imatrix(statistics_of, (dataset,), len(starts), chunk)
