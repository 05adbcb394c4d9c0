"""Types of arrays, and the size of a page, for whoever runs programs with arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

PAGE_SIZE = 64  # positions in one page of the KV cache
