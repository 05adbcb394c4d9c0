"""What every engine is asked to do: the arguments that the measuring scripts share."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

STEPS = 12  # of several texts at once; the median or the mean of so many is steady
WARM_UP = 64  # tokens at most; they touch the weights' pages, and nearly all experts
_SECONDS = 0.6  # what takes less is repeated


def numbers(text: str) -> list[int]:
    """Read `1,2`; nothing is no number."""
    found = [int(word) for word in text.split(",") if word]
    if any(number < 0 for number in found):
        raise ValueError(f"expected numbers from 0 on, found {text}")
    return found


def texts(text: str) -> list[int]:
    """Numbers of texts, in order. One text is always among them: the others are multiples of it."""
    return sorted({1, *numbers(text)} - {0})


def depths(text: str) -> list[int]:
    """Lengths of a past, in order. None is always among them: the others have a ratio to it."""
    return sorted({0, *numbers(text)})


def repeated(rate: Callable[[], float]) -> float:
    """A rate, measured once, or as the median of as many times as fit into a short while."""
    end, found = time.perf_counter() + _SECONDS, [rate()]
    while time.perf_counter() < end:
        found.append(rate())
    return median(found)


def add_work(parser: argparse.ArgumentParser) -> None:
    """The arguments that `engines.Work.arguments` gives."""
    parser.add_argument("model")
    parser.add_argument("-t", "--threads", type=int, required=True)
    parser.add_argument("-p", "--prompts", type=numbers, required=True, help="lengths, as 256,512")
    parser.add_argument("-n", "--generated", type=int, required=True)
    parser.add_argument("--texts", type=texts, required=True, help="that generate at once, as 1,4,16")
    parser.add_argument("--depth", type=depths, required=True, help="tokens before, as 0,4096")
    parser.add_argument("--cache", required=True, help="format of keys and values, as f16")
