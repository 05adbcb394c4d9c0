"""docs/fidelity-kernels.md says what products lose; no instruction set may lose more."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from blocks import FORMATS

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from make_fidelity_table import KINDS, PAGE, errors  # noqa: E402

LISTED = {
    name: [float(cell) if cell.strip() else None for cell in cells.split("|")]
    for name, cells in re.findall(r"^\| ([A-Z]\w+) \|(.*)\|$", PAGE.read_text(), re.MULTILINE)
}


def test_every_format_is_listed() -> None:
    assert list(LISTED) == list(FORMATS)


@pytest.mark.sample
@pytest.mark.parametrize("name", ["F16", "Q8_0", "Q4_K", "Q2_K", "IQ2_XS", "IQ3_S", "IQ1_M", "TQ2_0"])
@pytest.mark.parametrize("kind", KINDS)
def test_errors_are_those_of_the_table(native: ModuleType, name: str, kind: str) -> None:
    mean, worst = LISTED[name][2 * KINDS.index(kind) : 2 * KINDS.index(kind) + 2]
    if mean is None or worst is None:
        pytest.skip("floats are multiplied as they are")
    found_mean, found_worst = errors(native, name, kind)
    # Rounding of sums differs between instruction sets: with fused multiply-add it happens half as often.
    assert found_mean <= 2 * mean
    assert found_worst <= 3 * worst
    assert found_mean >= mean / 4, "much better than the table: write it anew"


@pytest.mark.parametrize("name", [name for name, cells in LISTED.items() if cells[0] is not None])
def test_high_is_indistinguishable_from_exact(name: str) -> None:
    fast, _, high, *_ = LISTED[name]
    assert isinstance(fast, float)
    assert isinstance(high, float)
    assert high < 2e-6
    assert high < fast / 100
