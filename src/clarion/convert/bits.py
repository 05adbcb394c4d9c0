"""Codes of a few bits each, packed one after the other into 32-bit words, the lowest bits first."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from clarion.convert.matrix import Bytes, raw


def n_words(n_codes: int, bits: int) -> int:
    """The words that so many codes take."""
    return -(-n_codes * bits // 32)


def unpack(words: npt.NDArray[Any], bits: int, n_codes: int) -> Bytes:
    """The codes [..., n_codes] of words [..., n_words]; a code may begin in one word and end in the next.

    Args:
        bits: 1 to 8.
    """
    stream = raw(words.astype("<u4", copy=False))  # [..., bytes]
    if bits == 8:
        return stream[..., :n_codes]
    if bits == 4:
        pairs = np.stack([stream & 15, stream >> 4], axis=-1)  # [..., bytes, 2]
        return pairs.reshape(*stream.shape[:-1], 2 * stream.shape[-1])[..., :n_codes]
    each = np.unpackbits(stream, axis=-1, count=n_codes * bits, bitorder="little")
    each = each.reshape(*stream.shape[:-1], n_codes, bits)
    found = each[..., 0].copy()
    for bit in range(1, bits):
        found |= each[..., bit] << bit
    return found
