"""The rooms of the code stand in an order, and a file includes nothing of a later room."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# A file may include headers of its own room and of those before it.
NATIVE_ROOMS = (
    "portability",
    "simd",
    "formats",
    "residency",
    "tokenizer",
    "machine",
    "sampling",
    "quantize",
    "kernels",
    "bind",
    "tests",
)
# Headers that CMake writes, and the room whose file says what stands in them.
WRITTEN = {"codebooks_data.h": "formats", "operations.h": "machine"}


def native_includes(sources: Path) -> Iterator[tuple[Path, str, str]]:
    """(file, its room, room of the header) of each include of another file of the native code."""
    for file in sorted([*sources.rglob("*.h"), *sources.rglob("*.cpp")]):
        for header in re.findall(r'^\s*#\s*include\s+"([^"]+)"', file.read_text(), re.MULTILINE):
            room, _, name = header.partition("/")
            yield file, file.relative_to(sources).parts[0], room if name else WRITTEN[header]


def native_upward(sources: Path) -> list[str]:
    """The includes of a later room."""
    order = NATIVE_ROOMS.index
    return [
        f"{file.relative_to(sources)} includes {room}/"
        for file, own, room in native_includes(sources)
        if order(room) > order(own)
    ]


def test_native_code_includes_no_later_room() -> None:
    assert native_upward(ROOT / "native") == []


def test_every_native_room_has_a_place_in_the_order() -> None:
    rooms = {folder.name for folder in (ROOT / "native").iterdir() if folder.is_dir()}
    assert rooms == set(NATIVE_ROOMS)
    assert {room for _, _, room in native_includes(ROOT / "native")} <= set(NATIVE_ROOMS)


@pytest.mark.parametrize(
    ("file", "text", "upward"),
    [
        ("machine/program.cpp", '#include "kernels/product.h"', ["machine/program.cpp includes kernels/"]),
        ("formats/q4_0.h", '#  include "operations.h"', ["formats/q4_0.h includes machine/"]),
        ("kernels/linear.cpp", '#include "formats/entry.h"\n#include <vector>', []),
        ("kernels/linear.cpp", '#include "kernels/rows.h"', []),
    ],
)
def test_an_upward_include_is_found(tmp_path: Path, file: str, text: str, upward: list[str]) -> None:
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).write_text(text)
    assert native_upward(tmp_path) == upward
