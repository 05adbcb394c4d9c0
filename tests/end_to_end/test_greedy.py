"""The built-in model chooses the tokens that llama.cpp chooses, on the same file.

Greedy choice compares two logits, so an error only shows where it exceeds the margin between the best two.
The margins of llama.cpp are in the golden; what lies below the bound is a tie that rounding decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import clarion
from tests.end_to_end.files import BUILT_IN, Text, digest, read_golden, write_f16

# The least margin that both must decide alike. On Q8_0 weights llama.cpp rounds activations to 8 bits, which
# moves its margins by up to 0.07 here; on F16 weights to F16, by up to 0.0024, but no choice of these texts.
BOUNDS = {"f16": 1e-3, "q8_0": 0.1}


@pytest.fixture(scope="module", params=["f16", "q8_0"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def path(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if name == "q8_0":
        return BUILT_IN
    path = tmp_path_factory.mktemp("f16") / "tale-f16.gguf"
    write_f16(path)
    return path


@pytest.fixture(scope="module")
def texts(name: str, path: Path) -> list[Text]:
    sha256, texts = read_golden(name)
    assert digest(path) == sha256, "the golden is of another file: make it again"
    return texts


@pytest.fixture(scope="module", params=["high", "exact"])
def model(request: pytest.FixtureRequest, path: Path) -> Iterator[clarion.Model]:
    with clarion.load(path, activations=request.param, threads=1) as model:
        yield model


def test_the_prompts_have_the_same_tokens(model: clarion.Model, texts: list[Text]) -> None:
    for text in texts:
        assert model.tokenize(text.prompt) == text.prompt_tokens


def test_every_choice_along_the_golden_text_is_the_same(
    name: str, model: clarion.Model, texts: list[Text]
) -> None:
    n_decided = 0
    for text in texts:
        logits = model.logits(text.prompt_tokens + text.tokens[:-1])  # [T, V]
        chosen = logits[len(text.prompt_tokens) - 1 :].argmax(axis=1)
        decided = np.array(text.margins) > BOUNDS[name]
        different = decided & (chosen != text.tokens)
        assert not different.any(), (
            f"{text.prompt!r}: token {different.argmax()} is {chosen[different.argmax()]}, "
            f"llama.cpp chose {text.tokens[different.argmax()]} by {text.margins[different.argmax()]}"
        )
        n_decided += decided.sum()
    assert n_decided > 0.8 * sum(len(text.tokens) for text in texts)


def test_generated_text_is_the_same_up_to_the_first_tie(
    name: str, model: clarion.Model, texts: list[Text]
) -> None:
    for text in texts:
        generated = model.generate(text.prompt, max_tokens=len(text.tokens), greedy=True)
        ended = (text.tokens[-1],) if len(generated.tokens) < len(text.tokens) else ()
        n = next((i for i, margin in enumerate(text.margins) if margin <= BOUNDS[name]), len(text.tokens))
        assert [*generated.tokens, *ended][:n] == text.tokens[:n]
