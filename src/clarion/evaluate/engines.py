"""What gives logits: Clarion, Clarion's weights in float64, or llama.cpp."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import numpy as np

from clarion.errors import ClarionError, FileError, UnsupportedError
from clarion.evaluate.exact import Exact
from clarion.evaluate.figures import Rows
from clarion.model import load, open_file
from clarion.plan.cache import CacheFormats

Path = str | os.PathLike[str]


class Engine(Protocol):
    """A model that computes one text at a time."""

    name: str

    def logits(self, tokens: Sequence[int], first: int) -> Rows:
        """The logits after every token from `first` on: [T - first, V], until the next call."""
        ...

    def close(self) -> None: ...


class ClarionEngine:
    """This engine. `options` are those of `clarion.load`."""

    def __init__(self, path: Path | None, context: int, **options: Any) -> None:
        batch = options.get("batch", 256)
        self._model = load(path, context=context, outputs=batch, **options)
        self._rows = np.empty((0, self._model.n_vocab), np.float32)
        self.name = f"clarion {self._model.plan.activations}, cache {self._model.plan.kv}"

    def logits(self, tokens: Sequence[int], first: int) -> Rows:
        if len(self._rows) < len(tokens) - first:
            self._rows = np.empty((len(tokens) - first, self._model.n_vocab), np.float32)
        return self._model.logits(tokens, first=first, out=self._rows)

    def close(self) -> None:
        self._model.close()


class ExactEngine:
    """The file's weights in float64 arithmetic."""

    name = "float64"

    def __init__(self, path: Path | None, context: int) -> None:
        with ExitStack() as stack:
            self._exact = Exact(stack.enter_context(open_file(path)), context)
            self._stack = stack.pop_all()

    def logits(self, tokens: Sequence[int], first: int) -> Rows:
        return self._exact.logits(tokens, first)

    def close(self) -> None:
        self._stack.close()


class LlamaCppEngine:
    """llama.cpp, through llama-cpp-python.

    Raises:
        UnsupportedError: llama-cpp-python is not installed.
        FileError: llama.cpp does not load the file.
    """

    def __init__(
        self, path: Path, context: int, *, threads: int | None = None, kv: str | None = None
    ) -> None:
        try:
            llama_cpp: Any = importlib.import_module("llama_cpp")
        except ImportError as error:
            raise UnsupportedError(
                "llama-cpp-python is not installed; pip install llama-cpp-python"
            ) from error
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

    def logits(self, tokens: Sequence[int], first: int) -> Rows:
        self._model.reset()
        try:
            self._model.eval(list(tokens))
        except RuntimeError as error:
            raise ClarionError(f"llama.cpp: {error}") from error
        return np.array(self._model.scores[first : len(tokens)], np.float32)

    def close(self) -> None:
        self._model.close()
