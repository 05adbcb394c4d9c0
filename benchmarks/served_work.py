"""What users ask a server for, and what can be said of how it went.

Requests are a seeded mix: lengths of prompts and answers are spread evenly over their logarithms, so short
ones are as frequent as long ones, and each prompt is a passage of real text of its own. Users take the next
request when their last one has ended, as long as there are any.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any

from clarion.tokenizer import Tokenizer

TEXT = Path(__file__).parent / "held_out.txt"
PROMPT_TOKENS = (20, 1500)
ANSWER_TOKENS = (16, 200)
CONTEXT = 1792  # tokens that the longest prompt, as any tokenizer may see it, and its answer take
# Fields of every request: the most probable token, and an end only after so many.
FIXED: dict[str, Any] = {"temperature": 0, "ignore_eos": True}


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: a prompt, and how many tokens shall go on with it."""

    prompt: str
    answer_tokens: int


def mix(tokenizer: Tokenizer, n: int, seed: int, prompts: tuple[int, int] = PROMPT_TOKENS) -> list[Ask]:
    """So many requests. `prompts`: tokens of a prompt, at least and at most."""
    draw = random.Random(seed)
    ids = tokenizer.encode(TEXT.read_text(encoding="utf-8"))
    found = []
    for _ in range(n):
        length, answer = _spread(draw, *prompts), _spread(draw, *ANSWER_TOKENS)
        start = draw.randrange(len(ids) - length)
        found.append(Ask(tokenizer.decode(ids[start : start + length]), answer))
    return found


def _spread(draw: random.Random, least: int, most: int) -> int:
    return round(math.exp(draw.uniform(math.log(least), math.log(most))))


def write(path: Path, asks: list[Ask]) -> None:
    path.write_text(json.dumps([asdict(ask) for ask in asks]), encoding="utf-8")


def read(path: Path) -> list[Ask]:
    return [Ask(**ask) for ask in json.loads(path.read_text(encoding="utf-8"))]


@dataclass(slots=True)
class Answer:
    """One request as its user saw it. Times are those of one clock, in seconds.

    Attributes:
        sent: when the request was.
        heard: when each piece of text came.
        prompt_tokens, tokens: as the engine counts them.
    """

    sent: float
    heard: list[float]
    prompt_tokens: int
    tokens: int


def summary(answers: list[Answer], began: float, ended: float) -> dict[str, float]:
    """The figures of a run: tokens/s of all users together, and times in seconds, median and 99 of 100.

    Raises:
        SystemExit: an answer has no text.
    """
    if silent := sum(not answer.heard for answer in answers):
        raise SystemExit(f"{silent} of {len(answers)} answers have no text")
    seconds = ended - began
    first = [answer.heard[0] - answer.sent for answer in answers]
    between = [b - a for answer in answers for a, b in zip(answer.heard, answer.heard[1:], strict=False)]
    n_prompt, n_answer = (
        sum(answer.prompt_tokens for answer in answers),
        sum(answer.tokens for answer in answers),
    )
    return {
        "requests": len(answers),
        "seconds": seconds,
        "prompt_tokens": n_prompt,
        "tokens": n_answer,
        "pieces": sum(len(answer.heard) for answer in answers),
        "prompt_rate": n_prompt / seconds,
        "rate": n_answer / seconds,
        "first_p50": percentile(first, 50),
        "first_p99": percentile(first, 99),
        "between_p50": percentile(between, 50),
        "between_p99": percentile(between, 99),
    }


def percentile(values: list[float], part: int) -> float:
    """Of one value or more, between the two nearest ones; nan of none."""
    if len(values) < 2:
        return values[0] if values else math.nan
    return quantiles(values, n=100, method="inclusive")[part - 1]
