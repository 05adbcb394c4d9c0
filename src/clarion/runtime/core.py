"""What sequences and programs of their own need of a native module."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

PAGE_SIZE = 64  # positions in one page of the KV cache


class KvCache(Protocol):
    """Keys and values of all layers, in pages."""

    def copy_page(self, source: int, destination: int) -> None: ...
