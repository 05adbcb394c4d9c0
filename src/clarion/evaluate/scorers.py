"""What gives logits: Clarion, Clarion's weights in float64, or llama.cpp."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import numpy as np

from clarion.errors import ClarionError, FileError, UnsupportedError
from clarion.evaluate.chunks import Chunk
from clarion.evaluate.exact import Exact
from clarion.evaluate.figures import LogitRows
from clarion.loading import load
from clarion.plan.cache import CacheFormats
from clarion.programs import open_file

Path = str | os.PathLike[str]

# Tokens in a step, and logits of a step at most (256 MiB). In steps of 256, the layers of a model of 1B
# took 3% longer and the one of 6.6 M parameters 3 to 5%: weights are decoded, operations begun more often.
BATCH = 1024
LOGITS = 1 << 26


Take = Callable[[int, int, LogitRows], None]


class Scorer(Protocol):
    """A model that computes texts."""

    name: str

    def logits(self, chunks: Sequence[Chunk], take: Take) -> None:
        """Calls `take(i, row, logits)` with the logits of chunk i from a row on [n, V], until it has had all
        that are wanted of every chunk, in the order of rows but of any chunks."""
        ...

    def close(self) -> None: ...


class ClarionScorer:
    """This engine. `options` are those of `clarion.load`.

    A step takes as many chunks as make `batch` tokens, and their logits are read where they were computed.
    """

    def __init__(self, path: Path | None, context: int, *, batch: int = BATCH, **options: Any) -> None:
        with open_file(path) as file:
            table = file.tensors.get("token_embd.weight")
        n_vocab = 1 if table is None else table.shape[0]
        self._model = load(
            path,
            context=context,
            batch=batch,
            outputs=min(batch, max(LOGITS // n_vocab, 1)),
            # So many chunks are in a step, and one more that fills what they leave of it.
            cache_tokens=(-(-batch // context) + 1) * context,
            **options,
        )
        # Nobody waits for a first token, and what moves would take time from scoring.
        self._model.settle()
        self.name = f"clarion {self._model.program.activations}, cache {self._model.program.kv}"

    def logits(self, chunks: Sequence[Chunk], take: Take) -> None:
        self._model.each_logits(((chunk.tokens, chunk.first) for chunk in chunks), take)

    def close(self) -> None:
        self._model.close()


class ExactScorer:
    """The file's weights in float64 arithmetic."""

    name = "float64"

    def __init__(self, path: Path | None, context: int) -> None:
        with ExitStack() as stack:
            self._exact = Exact(stack.enter_context(open_file(path)), context=context)
            self._stack = stack.pop_all()

    def logits(self, chunks: Sequence[Chunk], take: Take) -> None:
        for i, chunk in enumerate(chunks):
            take(i, 0, self._exact.logits(chunk.tokens, chunk.first))

    def close(self) -> None:
        self._stack.close()


def require_llama_cpp() -> Any:
    """The module llama_cpp.

    Raises:
        UnsupportedError: llama-cpp-python is not installed.
    """
    try:
        return importlib.import_module("llama_cpp")
    except ImportError as error:
        raise UnsupportedError("llama-cpp-python is not installed; pip install llama-cpp-python") from error


class LlamaCppScorer:
    """llama.cpp, through llama-cpp-python.

    Raises:
        UnsupportedError: llama-cpp-python is not installed.
        FileError: llama.cpp does not load the file.
    """

    def __init__(
        self, path: Path, context: int, *, threads: int | None = None, kv: str | None = None
    ) -> None:
        llama_cpp = require_llama_cpp()
        formats = CacheFormats.parse(kv or "f16")
        keys, values = (
            getattr(llama_cpp, f"GGML_TYPE_{name.upper()}") for name in (formats.keys, formats.values)
        )
        try:
            self._model: Any = llama_cpp.Llama(
                os.fspath(path),
                n_ctx=context,
                n_batch=context,
                n_ubatch=context,
                n_threads=threads,
                n_threads_batch=threads,
                n_gpu_layers=0,
                type_k=keys,
                type_v=values,
                flash_attn=formats.values in ("q8_0", "q4_0"),  # without, it refuses them
                logits_all=True,
                verbose=False,
            )
        except ValueError as error:
            raise FileError(f"{os.fspath(path)}: llama.cpp does not load it: {error}") from error
        self.name = f"llama-cpp-python {llama_cpp.__version__}"

    def logits(self, chunks: Sequence[Chunk], take: Take) -> None:
        for i, chunk in enumerate(chunks):
            self._model.reset()
            try:
                self._model.eval(chunk.tokens)
            except RuntimeError as error:
                raise ClarionError(f"llama.cpp: {error}") from error
            take(i, 0, np.array(self._model.scores[chunk.first : len(chunk.tokens)], np.float32))

    def tokenize(self, text: str) -> list[int]:
        """Its own ids of a text, without any that stand around it."""
        found: list[int] = self._model.tokenize(text.encode(), add_bos=False, special=False)
        return found

    def close(self) -> None:
        self._model.close()
