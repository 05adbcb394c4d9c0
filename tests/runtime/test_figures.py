"""What a model tells of itself: figures of its engine, and the options that its file recommends."""

from __future__ import annotations

import threading
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

import clarion
from clarion.errors import ModelError
from clarion.runtime.figures import Figures
from clarion.runtime.recommended import recommended
from clarion.runtime.streams import TextStream, wait_all
from tests.runtime.fakes import FakeMachine
from tests.runtime.test_engine import generate, generation


def test_figures_count_what_was_done() -> None:
    machine = FakeMachine()
    page = machine.executor.page_bytes
    assert machine.engine.figures(100) == Figures(cache_bytes=4 * page)
    generate(machine, [1] * 70, 10)
    machine.engine.close()
    figures = machine.engine.figures(100)
    assert figures == Figures(
        cache_bytes=4 * page,
        cache_bytes_used=2 * page,
        cache_bytes_retained=2 * page,
        prompt_tokens=70,
        generated_tokens=10,
        steps=5 + 9,
        weight_bytes_read=1400,
    )


def test_figures_of_what_runs_and_waits() -> None:
    machine = FakeMachine(max_outputs=2)
    machine.executor.gate = threading.Semaphore(0)
    streams = [TextStream(machine.engine, generation([i] * 20, 5, streams=True)) for i in range(4)]
    machine.executor.started.acquire()
    machine.executor.gate.release()
    machine.executor.started.acquire()  # the others have come meanwhile
    figures = machine.engine.figures(1)
    assert (figures.texts_running, figures.texts_waiting) == (2, 2)
    assert figures.cache_bytes_retained < figures.cache_bytes_used
    machine.executor.gate.release(1000)
    for stream in streams:
        assert len(list(stream)) == 5
    again = generate(machine, [3] * 20, 1)
    assert again.timings.reused_tokens == 19
    machine.engine.close()
    figures = machine.engine.figures(1)
    assert (figures.texts_running, figures.texts_waiting) == (0, 0)
    assert (figures.reused_tokens, figures.prompt_tokens, figures.generated_tokens) == (19, 81, 21)
    assert figures.cache_bytes_retained == figures.cache_bytes_used > 0


def test_preemptions_are_counted_and_what_is_computed_again() -> None:
    machine = FakeMachine(context=256, n_pages=4)
    wait_all(machine.engine, [generation([i] * 40, 120) for i in range(6)], 6)
    machine.engine.close()
    figures = machine.engine.figures(1)
    assert figures.preemptions > 0
    assert figures.prompt_tokens + figures.reused_tokens >= 240
    assert figures.generated_tokens == 720


def test_the_model_has_figures() -> None:
    with clarion.load(context=128) as model:
        before = model.figures
        model.generate("Once upon a time", max_tokens=8, ignore_eos=True)
        after = model.figures
    assert before.steps == 0
    assert after.generated_tokens == 8
    assert after.steps == 8
    assert after.weight_bytes_read == 8 * model.bytes_per_token
    assert all(getattr(after, f.name) >= getattr(before, f.name) for f in fields(Figures))
    assert isinstance(after, clarion.Figures)


# ---- recommended options -----------------------------------------------------------------------------------


def test_a_file_recommends_options_by_our_names() -> None:
    assert recommended({}) == {}
    assert recommended({"general.name": "x", "general.sampling.mirostat": 1}) == {}
    stored = {
        "general.sampling.temp": float(np.float32(0.6)),
        "general.sampling.top_k": 20,
        "general.sampling.top_p": float(np.float32(0.95)),
        "general.sampling.min_p": float(np.float32(0.01)),
        "general.sampling.penalty_last_n": 64,
        "general.sampling.penalty_repeat": float(np.float32(1.05)),
        "general.sampling.sequence": "k;p",
    }
    assert recommended(stored) == {
        "temperature": 0.6,
        "top_k": 20,
        "top_p": 0.95,
        "min_p": 0.01,
        "penalty_window": 64,
        "repeat_penalty": 1.05,
    }
    # What stands below the least value means that.
    below = {"temp": -1.0, "top_k": -1, "penalty_last_n": -5}
    assert recommended({f"general.sampling.{key}": value for key, value in below.items()}) == {
        "temperature": 0,
        "top_k": 0,
        "penalty_window": -1,
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [("temp", "hot"), ("temp", True), ("temp", float("nan")), ("top_k", 2.5), ("top_p", 2.0), ("min_p", [1])],
)
def test_a_recommendation_that_is_none_names_its_key(key: str, value: Any) -> None:
    with pytest.raises(ModelError, match=rf"^general\.sampling\.{key}: found "):
        recommended({f"general.sampling.{key}": value})


def test_the_model_has_defaults() -> None:
    with clarion.load(context=64) as model:
        assert model.defaults == {}
        model.metadata = {**model.metadata, "general.sampling.temp": 0.0}  # type: ignore[assignment]
        assert model.defaults == {"temperature": 0.0}
        chosen = model.generate("Once", max_tokens=5, seed=1, **model.defaults)
        assert chosen.tokens == model.generate("Once", max_tokens=5, greedy=True).tokens
        model.metadata = {"general.sampling.temp": "hot"}  # type: ignore[assignment]
        with pytest.raises(ModelError, match=r"tale.*general\.sampling\.temp: found 'hot'"):
            _ = model.defaults
