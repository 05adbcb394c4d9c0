"""docs/formats.md lists what there is."""

from __future__ import annotations

import re
from pathlib import Path

from blocks import FORMATS

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"


def test_the_table_of_formats() -> None:
    rows = re.findall(r"^\| (\w+) \| ([\d.]+) \| (\d+) \| (\d+) \|", PAGE.read_text(), re.MULTILINE)
    listed = {name: (float(bits), int(block), int(size)) for name, bits, block, size in rows}
    assert listed == {name: (8 * size / block, block, size) for name, (_, block, size) in FORMATS.items()}
    bits = [bits for bits, _, _ in listed.values()]
    assert bits == sorted(bits, reverse=True)
