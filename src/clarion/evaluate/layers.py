"""How far what leaves each layer is from a reference: where on its way a model goes astray."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from clarion.errors import ModelError
from clarion.evaluate.exact import Exact
from clarion.gguf import File
from clarion.plan.observe import Layers
from clarion.plan.sources import Sources
from clarion.programs import make_program
from clarion.residency import Mapped, Store
from clarion.runtime.executor import Executor

Values = npt.NDArray[np.floating[Any]]

MOST_TOKENS = 256  # of which all layers are in memory at once


def exact_layers(file: File, tokens: Sequence[int]) -> list[Values]:
    """What leaves each layer in float64 arithmetic: [T, n_embd] of the first tokens, MOST_TOKENS at most."""
    tokens, layers = tokens[:MOST_TOKENS], Layers()
    found = Exact(file, observe=layers, context=len(tokens)).run(tokens)
    return [found[name] for name in layers.found]


def engine_layers(
    file: File, tokens: Sequence[int], *, threads: int | None, isa: str | None, **options: Any
) -> list[Values]:
    """The same as the engine computes it; `options` are those of `make_program`."""
    tokens, layers = tokens[:MOST_TOKENS], Layers()
    batch = min(options.pop("batch", MOST_TOKENS), len(tokens))
    options |= {"context": len(tokens), "isa": isa, "batch": batch, "outputs": batch, "observe": layers}
    program = make_program(file, **options)
    store = Store(program.weights, Mapped(Sources(program.weights, file.tensors)))
    executor = Executor(program, store, threads=threads, isa=isa)
    pieces: list[list[Values]] = [[] for _ in layers.found]
    for rows in executor.each_batch(tokens):
        for piece, name in zip(pieces, layers.found, strict=True):
            piece.append(executor.array(name)[: rows.stop - rows.start].copy())
    file.check()
    return [np.concatenate(piece) for piece in pieces]


def layer_errors(found: Sequence[Values], wanted: Sequence[Values]) -> list[float]:
    """For each layer the root mean square of the difference over that of what is wanted.

    Raises:
        ModelError: other layers, or layers of another width.
    """
    if [x.shape for x in found] != [x.shape for x in wanted]:
        shapes = (
            f"{len(found)} layers {_width(found)} wide, the reference has {len(wanted)} of {_width(wanted)}"
        )
        raise ModelError(f"layers cannot be compared: found {shapes}")
    return [
        float(np.sqrt(np.square(x - y, dtype=np.float64).sum() / np.square(y, dtype=np.float64).sum()))
        for x, y in zip(found, wanted, strict=True)
    ]


def _width(layers: Sequence[Values]) -> int:
    return layers[0].shape[1] if layers else 0
