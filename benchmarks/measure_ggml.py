"""llama.cpp's matrix product alone, through its C library: for benchmarks/kernels.py."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np

GGML_TYPE_F32 = 0
# Formats without a product there.
UNKNOWN = {9, 15, 28}  # Q8_1, Q8_K, F64


class _Params(ctypes.Structure):
    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


class Ggml:
    """The libraries of one folder."""

    def __init__(self, folder: Path) -> None:
        self._base = ctypes.CDLL(str(folder / "libggml-base.so"), ctypes.RTLD_GLOBAL)
        self._cpu = ctypes.CDLL(str(folder / "libggml-cpu.so"), ctypes.RTLD_GLOBAL)
        pointer, integer = ctypes.c_void_p, ctypes.c_int64
        for name, arguments in {
            "ggml_init": [_Params],
            "ggml_new_tensor_2d": [pointer, ctypes.c_int, integer, integer],
            "ggml_mul_mat": [pointer, pointer, pointer],
            "ggml_new_graph": [pointer],
            "ggml_get_data": [pointer],
        }.items():
            function = getattr(self._base, name)
            function.restype, function.argtypes = pointer, arguments
        self._base.ggml_nbytes.restype = ctypes.c_size_t
        self._base.ggml_nbytes.argtypes = [pointer]
        self._base.ggml_build_forward_expand.argtypes = [pointer, pointer]
        self._base.ggml_free.argtypes = [pointer]
        self._cpu.ggml_graph_compute_with_ctx.argtypes = [pointer, pointer, ctypes.c_int]
        self._cpu.ggml_cpu_init()

    def knows(self, type_id: int) -> bool:
        return type_id not in UNKNOWN

    def product(
        self, type_id: int, rows: int, cols: int, matrices: int, n: int, threads: int
    ) -> Callable[[], object]:
        """A function that multiplies n tokens with some matrices [rows, cols] of random bytes."""
        return _Product(self._base, self._cpu, type_id, rows, cols, matrices, n, threads)


class _Product:
    def __init__(
        self,
        base: ctypes.CDLL,
        cpu: ctypes.CDLL,
        type_id: int,
        rows: int,
        cols: int,
        matrices: int,
        n: int,
        threads: int,
    ) -> None:
        self._base, self._cpu, self._threads = base, cpu, threads
        room = matrices * (rows * (8 * cols + 4 * n) + (1 << 20)) + (64 << 20) + 16 * n * cols
        self._context = base.ggml_init(_Params(room, None, False))
        x = base.ggml_new_tensor_2d(self._context, GGML_TYPE_F32, cols, n)
        self._fill(x, np.random.default_rng(n).standard_normal((n, cols)).astype(np.float32).view(np.uint8))
        self._graph = base.ggml_new_graph(self._context)
        for i in range(matrices):
            w = base.ggml_new_tensor_2d(self._context, type_id, cols, rows)
            self._fill(w, np.random.default_rng(i).integers(0, 64, base.ggml_nbytes(w), dtype=np.uint8))
            base.ggml_build_forward_expand(self._graph, base.ggml_mul_mat(self._context, w, x))

    def _fill(self, tensor: int, data: np.ndarray) -> None:
        ctypes.memmove(self._base.ggml_get_data(tensor), data.ctypes.data, data.nbytes)

    def __call__(self) -> None:
        self._cpu.ggml_graph_compute_with_ctx(self._context, self._graph, self._threads)

    def __del__(self) -> None:
        self._base.ggml_free(self._context)
