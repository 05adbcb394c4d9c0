"""The study of docs/fidelity.md: its page shows what was measured; a small part is measured again."""

import json
from pathlib import Path

import pytest

from benchmarks import fidelity
from clarion.evaluate.request import EXACT, Request, run
from clarion.quantize import quantize
from tests.end_to_end.files import BUILT_IN
from tests.evaluate.test_perplexity_golden import TEXT

DOCS = Path(__file__).parents[2] / "docs"
ROWS = json.loads((DOCS / "fidelity.json").read_text())["rows"]


def test_the_page_shows_what_was_measured():
    page = (DOCS / "fidelity.md").read_text()
    assert fidelity.table(ROWS) in page
    assert {row["format"] for row in ROWS} == set(fidelity.FORMATS)
    assert (DOCS / "fidelity.svg").read_text() == fidelity.plot(ROWS)


@pytest.mark.sample(1)
@pytest.mark.parametrize("recipe", ["Q8_0", "Q4_K_M", "IQ4_XS", "Q2_K"])
def test_the_default_is_near_exact_arithmetic(tmp_path, recipe):
    path = tmp_path / "m.gguf"
    quantize(BUILT_IN, path, recipe, allow_requantize=True, threads=1)
    means = {}
    for activations in ("high", "fast"):
        options = {"activations": activations}
        request = Request([path], TEXT, EXACT, 128, n_chunks=2, threads=1, options=options)
        (figures,) = run(request).report()["models"]
        means[activations] = figures["divergence"]["mean"]
    assert means["high"] <= 2e-6
    assert means["fast"] > 50 * means["high"]
