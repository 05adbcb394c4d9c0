"""How much memory a model takes, and how long a context fits into how many bytes."""

from __future__ import annotations

from typing import Any

import pytest

import clarion
from clarion import loading
from clarion.errors import DeviceError, ParameterError
from clarion.host.memory import Memory
from clarion.loading import needed_bytes
from clarion.runtime.states.memory import budget
from tests.end_to_end.files import BUILT_IN


def test_the_cache_has_the_bytes_that_are_given() -> None:
    with clarion.load(context=128) as model:
        least = budget(model.program, None)
    with clarion.load(context=128, cache_bytes=least + 1000) as model:
        assert model.context == 128
        assert model.figures.cache_bytes == least + 1000
        assert len(model.generate([5] * 100, ignore_eos=True).tokens) == 28
    with pytest.raises(ParameterError, match=f"cache_bytes: found {least - 1}, expected at least {least}"):
        clarion.load(context=128, cache_bytes=least - 1)


def test_texts_share_the_bytes() -> None:
    with clarion.load(context=128, cache_bytes=4 << 20) as model:
        texts = model.generate([[i] * 60 for i in range(10)], max_tokens=60, ignore_eos=True, greedy=True)
        figures = model.figures
    with clarion.load(context=128) as model:
        alone = [model.generate([i] * 60, max_tokens=60, ignore_eos=True, greedy=True) for i in range(10)]
    assert [text.tokens for text in texts] == [text.tokens for text in alone]
    assert figures.cache_bytes_used <= 4 << 20


def test_the_longest_context_that_fits() -> None:
    with clarion.load(context="most") as model:
        trained = model.context
        assert trained == model.metadata["llama.context_length"]
        whole = budget(model.program, trained)
    with clarion.load(context="most", cache_bytes=whole) as model:
        assert model.context == trained
    with clarion.load(context="most", cache_bytes=whole // 2) as model:
        assert model.figures.cache_bytes == whole // 2
        assert 0 < model.context < trained
        assert budget(model.program, model.context) <= whole // 2
        assert len(model.generate([5] * (model.context - 3), ignore_eos=True).tokens) == 3
    with pytest.raises(ParameterError, match=r"cache_bytes: found 1, expected at least \d+, what one token"):
        clarion.load(context="most", cache_bytes=1)


def test_a_quarter_of_the_available_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    with clarion.load(context="most") as model:
        whole = budget(model.program, model.context)
    monkeypatch.setattr(loading, "memory", lambda: Memory(1 << 34, 2 * whole))
    with clarion.load(context="most") as model:
        assert model.figures.cache_bytes <= whole // 2
        assert model.context < 2048


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"context": 256},
        {"context": "most"},
        {"context": "most", "cache_bytes": 4 << 20},
        {"context": 128, "cache_bytes": 8 << 20},
        {"context": 128, "cache_tokens": 1000, "kv": "q8_0", "batch": 16, "outputs": 4},
    ],
)
def test_what_is_needed_is_known_before(arguments: dict[str, Any]) -> None:
    needed = needed_bytes(**arguments)
    with clarion.load(**arguments) as model:
        assert model.memory_bytes == needed
        assert needed > BUILT_IN.stat().st_size * 0.9 + model.figures.cache_bytes


def test_more_texts_need_more_memory() -> None:
    assert needed_bytes(cache_tokens=50_000) > needed_bytes()
    assert needed_bytes(kv="q8_0") < needed_bytes() < needed_bytes(kv="f32")


def test_bad_sizes() -> None:
    with pytest.raises(ParameterError, match="cache_bytes: found cache_tokens too"):
        clarion.load(cache_bytes=1 << 20, cache_tokens=4096)
    with pytest.raises(ParameterError, match="context: found 'all', expected a number of tokens or \"most\""):
        clarion.load(context="all")  # type: ignore[arg-type]
    for value in (-1, 1.5, "1 GB", True):
        with pytest.raises(ParameterError, match="cache_bytes: found"):
            clarion.load(cache_bytes=value)  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match=r"a KV cache of \d+ bytes takes .* GB"):
        clarion.load(cache_bytes=1 << 50)
