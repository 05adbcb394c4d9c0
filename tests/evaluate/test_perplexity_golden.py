"""Perplexities are those of llama.cpp's llama-perplexity: its tokens, its chunks, its scores, its error."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from clarion.evaluate.request import Request, run

GOLDEN = json.loads((Path(__file__).parent / "perplexity.json").read_text())
TEXT = (Path(__file__).parents[2] / "benchmarks" / "held_out.txt").read_text(encoding="utf-8")
ROUNDING = 2e-6  # two engines in float32: relative, of a perplexity


@pytest.mark.parametrize("wanted", GOLDEN["perplexities"], ids=lambda wanted: f"context-{wanted['context']}")
def test_running_perplexities(wanted):
    request = Request(
        [],
        TEXT.removesuffix("\n"),
        context=wanted["context"],
        n_chunks=len(wanted["running"]),
        options={"activations": "exact"},
    )
    evaluation = run(request)
    assert len(evaluation.tokens) == GOLDEN["tokens"]
    ends = np.cumsum(evaluation.chunk_sizes)
    surprise = evaluation.models[0].surprise
    found = [math.exp(surprise[:end].mean()) for end in ends]
    np.testing.assert_allclose(found, wanted["running"], rtol=ROUNDING)
    (figures,) = evaluation.report()["models"]
    assert figures["perplexity"] == pytest.approx(wanted["running"][-1], rel=ROUNDING)
    assert figures["perplexity_error"] == pytest.approx(wanted["error"], rel=1e-4)
