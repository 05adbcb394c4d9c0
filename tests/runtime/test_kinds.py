"""Texts of models with states of every kind: turn by turn, side by side, cancelled and preempted, they are
those of a model that begins each anew."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import clarion
from tests.models.files import unpack

CONTEXT, BATCH = 320, 24
NAMES = ["mistral-window", "gemma3", "qwen3next", "deepseek2", "mamba", "mamba2"]
OPTIONS: dict[str, Any] = {"greedy": True, "ignore_eos": True, "detokenize": False}


def load(name: str, folder: Path, **options: Any) -> clarion.Model:
    path = folder / f"{name}.gguf"
    if not path.exists():
        unpack(name, folder)
    return clarion.load(path, context=CONTEXT, batch=BATCH, outputs=4, threads=2, **options)


def prompt(model: clarion.Model, n: int, seed: int) -> list[int]:
    draw = random.Random(seed)
    return [draw.randrange(model.n_vocab) for _ in range(n)]


def alone(name: str, folder: Path, tokens: list[int], n: int) -> list[int]:
    """What a model writes that has nothing else to do, and has seen nothing before."""
    with load(name, folder) as model:
        return list(model.generate(tokens, max_tokens=n, **OPTIONS).tokens)


@pytest.mark.parametrize("name", NAMES)
def test_each_turn_continues_where_the_last_one_ended(name: str, tmp_path: Path) -> None:
    with load(name, tmp_path) as model:
        tokens = prompt(model, 100, 1)
        for turn in range(3):
            done = model.generate(tokens, max_tokens=30, **OPTIONS)
            if turn:
                # All but the last token of the answer before, which was drawn and not computed.
                assert done.timings.reused_tokens == len(tokens) - 21
            assert list(done.tokens) == alone(name, tmp_path, tokens, 30)
            # Another answer begins at the end of the prompt.
            other = model.generate([*tokens, 5], max_tokens=1, **OPTIONS)
            assert other.timings.reused_tokens == len(tokens)
            tokens = [*tokens, *done.tokens, *prompt(model, 20, 2 + turn)]


@pytest.mark.parametrize("name", NAMES)
def test_texts_side_by_side_are_those_of_each_alone(name: str, tmp_path: Path) -> None:
    """More texts than are computed at once, some beginning alike, with memory for one that is as long as the
    context: those that find no room wait, or are preempted."""
    with load(name, tmp_path, cache_tokens=CONTEXT) as model:
        start = prompt(model, 70, 1)
        texts = [[*start[: 10 * i], *prompt(model, 60, 10 + i)] for i in range(7)]
        done = model.generate(texts, max_tokens=40, **OPTIONS)
        found = [list(completion.tokens) for completion in done]
    assert found == [alone(name, tmp_path, text, 40) for text in texts]


@pytest.mark.parametrize("name", NAMES)
def test_a_text_that_was_cancelled_can_be_begun_again(name: str, tmp_path: Path) -> None:
    with load(name, tmp_path) as model:
        tokens = prompt(model, 150, 1)
        wanted = alone(name, tmp_path, tokens, 20)
        for n in range(0, 12, 3):
            stream = model.stream(tokens, max_tokens=20, **OPTIONS)
            for _, _ in zip(range(n), stream, strict=False):
                pass
            stream.cancel()
            assert list(model.generate(tokens, max_tokens=20, **OPTIONS).tokens) == wanted
