"""llama.cpp's operations with a recurrent state alone, through its C library: for benchmarks/recurrent.py."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measure_ggml import Ggml, _Params

F32, I32 = 0, 26


class GgmlRecurrent:
    """The libraries of one folder."""

    def __init__(self, folder: Path) -> None:
        ggml = Ggml(folder)
        self.base, self.cpu = ggml._base, ggml._cpu
        pointer, integer = ctypes.c_void_p, ctypes.c_int64
        for name, arguments in {
            "ggml_new_tensor_4d": [pointer, ctypes.c_int, *[integer] * 4],
            "ggml_gated_delta_net": [pointer] * 7 + [integer],
            "ggml_ssm_scan": [pointer] * 8 + [integer],
            "ggml_ssm_conv": [pointer] * 3,
        }.items():
            function = getattr(self.base, name)
            function.restype, function.argtypes = pointer, arguments

    def runs(self, shape: Any, threads: int, layers: int, texts: int, n: int) -> Callable[[], object]:
        """A function that runs n tokens of some texts through as many layers of an operation.

        Its results are its output and the new state, which llama.cpp copies to its cache afterwards; the copy
        is not measured. Its convolution does not activate, so ours does more.
        """
        return _Layers(self.base, self.cpu, shape, threads, layers, texts, n)


class _Layers:
    def __init__(
        self,
        base: ctypes.CDLL,
        cpu: ctypes.CDLL,
        shape: Any,
        threads: int,
        layers: int,
        texts: int,
        n: int,
    ) -> None:
        self._base, self._cpu, self._threads = base, cpu, threads
        rows = texts * n * (sum(shape.widths) + max(shape.widths))
        room = 4 * (layers * (2 * texts * shape.state + 2 * rows) + 2 * rows) + (64 << 20)
        self._context = base.ggml_init(_Params(room, None, False))
        self._graph = base.ggml_new_graph(self._context)
        make = getattr(self, shape.op)
        for node in make(shape, layers, texts, n):
            base.ggml_build_forward_expand(self._graph, node)

    def delta_rule(self, shape: Any, layers: int, texts: int, n: int) -> list[int]:
        sizes = shape.parameters
        dim, heads, heads_k = sizes["dim_k"], sizes["n_head"], sizes["n_head_k"]
        q, k = (self._tensor(dim, heads_k, n, texts) for _ in "qk")
        v, decay, beta = self._tensor(dim, heads, n, texts), *(self._tensor(1, heads, n, texts) for _ in "gb")
        return [
            self._base.ggml_gated_delta_net(
                self._context, q, k, v, decay, beta, self._tensor(dim, dim, heads, texts), 1
            )
            for _ in range(layers)
        ]

    def state_space_scan(self, shape: Any, layers: int, texts: int, n: int) -> list[int]:
        sizes = shape.parameters
        return self._scan(sizes["d_state"], sizes["head_dim"], sizes["n_head"], 1, layers, texts, n)

    def selective_scan(self, shape: Any, layers: int, texts: int, n: int) -> list[int]:
        columns, d_state = shape.weights[0]
        return self._scan(d_state, 1, columns, d_state, layers, texts, n)

    def _scan(
        self, d_state: int, dim: int, heads: int, decays: int, layers: int, texts: int, n: int
    ) -> list[int]:
        x, dt = self._tensor(dim, heads, n, texts), self._tensor(heads, n, texts, 1)
        a = self._tensor(decays, heads, 1, 1)
        b, c = (self._tensor(d_state, 1, n, texts) for _ in "bc")
        ids = self._base.ggml_new_tensor_4d(self._context, I32, texts, 1, 1, 1)
        self._fill(ids, np.arange(texts, dtype=np.int32))
        return [
            self._base.ggml_ssm_scan(
                self._context, self._tensor(d_state, dim, heads, texts), x, dt, a, b, c, ids, 1
            )
            for _ in range(layers)
        ]

    def causal_conv(self, shape: Any, layers: int, texts: int, n: int) -> list[int]:
        columns, taps = shape.weights[0]
        w = self._tensor(taps, columns, 1, 1)
        return [
            self._base.ggml_ssm_conv(self._context, self._tensor(taps - 1 + n, columns, texts, 1), w)
            for _ in range(layers)
        ]

    def _tensor(self, *shape: int) -> int:
        """Numbers from -0.1 to 0."""
        tensor: int = self._base.ggml_new_tensor_4d(self._context, F32, *shape)
        self._fill(tensor, -0.1 * np.random.default_rng(0).random(np.prod(shape), np.float32))
        return tensor

    def _fill(self, tensor: int, data: np.ndarray) -> None:
        ctypes.memmove(self._base.ggml_get_data(tensor), data.ctypes.data, data.nbytes)

    def __call__(self) -> None:
        self._cpu.ggml_graph_compute_with_ctx(self._context, self._graph, self._threads)

    def __del__(self) -> None:
        self._base.ggml_free(self._context)
