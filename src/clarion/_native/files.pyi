"""Files and the memory that weights lie in: what is the same for every instruction set."""

import os
from collections.abc import Sequence

import numpy as np

_Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]
_Offsets = np.ndarray[tuple[int], np.dtype[np.int64]]

class Mapping:
    """A file mapped read-only; a page that is gone reads as zeros and sets `damaged`."""

    def __init__(self, path: str | bytes | os.PathLike[str]) -> None: ...
    @property
    def size(self) -> int: ...
    @property
    def damaged(self) -> bool: ...
    @property
    def bytes(self) -> _Bytes: ...

def string_offsets(bytes: _Bytes, start: int, count: int) -> tuple[_Offsets, _Offsets, int]: ...
def copy_to_huge_pages(arrays: Sequence[object], threads: int) -> list[_Bytes]: ...
