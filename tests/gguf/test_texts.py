"""Sizes as people read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import clarion
from clarion.errors import ParameterError
from clarion.gguf import File
from clarion.gguf.texts import part_text, size_text
from clarion.tokenizer import Tokenizer


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (98_400_000, "98.4 MB"),
        (4_920_000_000, "4.9 GB"),
        (10**18, "1.0 EB"),
        (2**64, "18.4 EB"),
        (10**22, "10000.0 EB"),
    ],
)
def test_sizes(n_bytes: int, text: str) -> None:
    assert size_text(n_bytes) == text


@pytest.mark.parametrize(
    ("n_bytes", "of", "text"),
    [
        (2_100_000_000, 4_900_000_000, "2.1 of 4.9 GB"),
        (0, 98_400_000, "0.0 of 98.4 MB"),
        (4_899_999_999, 4_900_000_000, "4,899,999,999 of 4,900,000,000 bytes"),
        (3, 12, "3 of 12 bytes"),
    ],
)
def test_a_part_of_a_whole(n_bytes: int, of: int, text: str) -> None:
    assert part_text(n_bytes, of) == text


@pytest.mark.parametrize("path", [5, 1.5, ["model.gguf"], object(), "", b"", "a\0b"])
@pytest.mark.parametrize("opens", [clarion.load, File.open, Tokenizer.from_gguf])
def test_what_is_no_name_of_a_file_is_refused(opens: Callable[[Any], object], path: object) -> None:
    with pytest.raises(ParameterError, match=r"^path: found .*, expected the name of a file$"):
        opens(path)
