"""What every engine is asked to do: the arguments that the measuring scripts share."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

STEPS = 12  # of several texts at once; the median or the mean of so many is steady
WARM_UP = 64  # tokens at most; they touch the weights' pages, and nearly all experts
_SECONDS = 0.6  # a prompt that takes less is repeated


def numbers(text: str) -> list[int]:
    """Read `1,2`; nothing is no number."""
    return [int(word) for word in text.split(",") if word]


def repeated(rate: Callable[[], float]) -> float:
    """A rate, measured once, or as the median of as many times as fit into a short while."""
    end, found = time.perf_counter() + _SECONDS, [rate()]
    while time.perf_counter() < end:
        found.append(rate())
    return median(found)


def add_work(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model")
    parser.add_argument("-t", "--threads", type=int, required=True)
    parser.add_argument("-p", "--prompts", type=numbers, required=True, help="lengths, as 256,512")
    parser.add_argument("-n", "--generated", type=int, required=True)
    parser.add_argument("-b", "--batches", type=numbers, required=True, help="numbers of texts, as 2,4,8")
