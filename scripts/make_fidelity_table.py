#!/usr/bin/env python3
"""Measures how far products are from float64, for every format and kind of activations, and writes
docs/fidelity-kernels.md.

    python scripts/make_fidelity_table.py

An error is |y - w.x| / (|w| |x|), lengths in the Euclidean sense: how far an angle is off. Weights are
random blocks of the format, activations normal with the outliers of real hidden states.
`tests/kernels/test_fidelity.py` measures a part of it again and compares.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "kernels"))
from blocks import FORMATS, random_matrix  # noqa: E402

KINDS = ("fast", "high", "f32")
ROWS, COLS, N_TOKENS, SEED = 64, 4096, 16, 5
PAGE = ROOT / "docs" / "fidelity-kernels.md"


def errors(native: Any, name: str, kind: str) -> tuple[float, float]:
    """The mean and the worst error of the products of one matrix."""
    raw, w = random_matrix(name, ROWS, COLS, SEED)  # [R, K]
    rng = np.random.default_rng(SEED)
    x = rng.standard_normal((N_TOKENS, COLS))
    x[rng.random(x.shape) < 0.002] *= 50
    x = x.astype(np.float32).astype(np.float64)  # [T, K]
    y = native.linear(FORMATS[name][0], raw, ROWS, COLS, x.astype(np.float32), kind)  # [T, R]
    lengths = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(w, axis=1)
    error = np.abs(y - x @ w.T) / lengths
    return float(error.mean()), float(error.max())


def main() -> None:
    from clarion.host import native

    lines = []
    for name, (_, block, _) in FORMATS.items():
        cells = []
        for kind in KINDS:
            cells += (
                [f"{e:.1e}" for e in errors(native(), name, kind)] if block > 1 or kind == "f32" else ["", ""]
            )
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    text = PAGE.read_text() if PAGE.exists() else ""
    head = text[: text.index("| F32 |")] if "| F32 |" in text else text
    PAGE.write_text(head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
