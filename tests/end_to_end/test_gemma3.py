"""Gemma 3 270M, as published: windows in most layers, norms on both sides, a large vocabulary."""

from __future__ import annotations

import pytest

import clarion
from tests.real_models import gemma3

# What llama.cpp 0.3.36 (of its Python package) writes greedily, on 2026-12-01.
TEXTS = {
    "The capital of France is": " the capital of the country of France. It is the largest",
    "The sun rises in the": " east, the moon rises in the west, and the stars",
    "Once upon a time": ", there was a little girl named Lily. She was a",
    "In 1969, men first walked on": " the moon.\n\nIn 1976, the",
}


@pytest.fixture(scope="module")
def model():
    with clarion.load(gemma3(), threads=2, context=2048) as loaded:
        yield loaded


@pytest.mark.parametrize("prompt", TEXTS)
def test_greedy_text_is_that_of_llama_cpp(model, prompt):
    assert model.generate(prompt, greedy=True, max_tokens=12).text == TEXTS[prompt]


def test_a_long_prompt_is_the_same_however_it_is_cut():
    """Longer than the window of 512."""
    ids = [2, *(i * 37 % 5000 + 1000 for i in range(1200))]
    found = []
    for batch in (256, 100):
        with clarion.load(gemma3(), threads=2, context=2048, batch=batch) as loaded:
            found.append(loaded.generate(ids, greedy=True, max_tokens=8, ignore_eos=True).tokens)
    assert found[0] == found[1]


def test_windows_bound_the_memory(model):
    """15 of 18 layers keep 512 positions, whatever the context is."""
    program = model.program
    assert sum(group.window == 512 for group in program.state_groups) == 1
    long = program.state_bytes(32768)
    assert long < 0.3 * 32768 * (program.state_bytes(256) / 256)
