"""Rates, the picture of the loss, and the card: what a run says about itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from clarion.errors import ParameterError
from tests.zoo.files import model
from zoo.card import Facts, File, Measured, card
from zoo.curve import curve
from zoo.schedule import Progress


def rates(progress: Progress, warmup: int) -> list[float]:
    """Those of the steps that are left."""
    found = []
    while progress.step < progress.steps:
        found.append(progress.rate(warmup))
        progress.step += 1
    return found


def test_rates_rise_stay_and_fall():
    found = rates(Progress(0, 20, 10, 0.0), 4)
    assert found[:4] == [0.25, 0.5, 0.75, 1.0]
    assert found[4:11] == [1.0] * 7
    assert found[11:] == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])


def test_rates_without_ramps_are_level():
    assert rates(Progress(0, 5, 0, 0.0), 0) == [1.0] * 5


def test_an_end_can_be_set_at_any_time_and_rates_fall_from_where_they_are():
    progress = Progress(6, 100, 50, 0.0)
    progress.end_at(10, 0)
    assert rates(replace(progress), 0) == [1.0, 0.75, 0.5, 0.25]
    progress.step = 8
    progress.end_at(13, 0)
    assert rates(progress, 0) == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1])
    with pytest.raises(ParameterError, match="end is step 13, but 13 are done already"):
        progress.end_at(13, 0)


def test_the_curve_is_a_picture_that_stands_alone():
    entries = [{"step": s, "tokens": 1e5 * s, "loss": 8 - s / 10, "seconds": s} for s in range(1, 30)]
    entries[9]["held_out"] = 7.5
    picture = ElementTree.fromstring(curve(entries))
    names = [element.tag.removeprefix("{http://www.w3.org/2000/svg}") for element in picture.iter()]
    assert names[0] == "svg"
    assert names.count("polyline") == 1
    assert names.count("circle") == 1


def facts(**more) -> Facts:
    files = [File(Path("runs/small-q8_0.gguf"), 7_000_000, Measured(30.5, 0.25))]
    return Facts(Progress(6, 6, 3, 600.0), "two cores", Measured(30.0, 0.25), files, 1000, **more)


def test_a_card_says_how_far_the_training_went():
    text = card(model("llama"), facts(sample="Once\n\nupon"))
    assert "768 tokens" not in text
    assert "0.00 million tokens, 0.77 passes" in text
    assert "10 minutes, two cores" in text
    assert "| began with | random weights |" in text
    assert "| `small-q8_0.gguf` | 7.0 | 30.50 ± 0.25 | 3.4177 |" in text
    assert "> Once\n>\n> upon" in text
    assert "Balance" not in text
    assert "zero" not in text


def test_a_card_reports_balance_and_zeros():
    text = card(model("qwen3moe"), facts(counts=[[10, 10, 10, 10], [40, 0, 0, 0]], zeros=0.4125))
    assert "| 0 | 1.00 | 1.00 | 4.0 |" in text
    assert "| 1 | 0.00 | 4.00 | 1.0 |" in text
    assert "41.2% of the weights in the layers are zero" in text
    assert "of which a token uses" in text
