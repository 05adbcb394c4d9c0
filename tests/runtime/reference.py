"""Sampling in numpy and float64, written from docs/sampling.md alone: sort everything, then cut."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

DEFAULTS: dict[str, Any] = {
    "logit_bias": {},
    "repeat_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "penalty_window": 64,
    "dry_multiplier": 0.0,
    "dry_base": 1.75,
    "dry_allowed_length": 2,
    "dry_window": -1,
    "dry_breakers": [],
    "top_k": 0,
    "typical_p": 1.0,
    "top_p": 1.0,
    "min_p": 0.0,
    "temperature": 1.0,
    "seed": 0,
}


EDGE = 1e-9


class AmbiguousError(Exception):
    """Two numbers are so near that rounding decides between them: nothing to compare."""


def philox(seed: int, index: int) -> list[int]:
    """Philox4x32-10, the four output words."""
    key = [seed & 0xFFFFFFFF, seed >> 32]
    counter = [index & 0xFFFFFFFF, index >> 32, 0, 0]
    for _ in range(10):
        a, b = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [
            (b >> 32) ^ counter[1] ^ key[0],
            b & 0xFFFFFFFF,
            (a >> 32) ^ counter[3] ^ key[1],
            a & 0xFFFFFFFF,
        ]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return counter


def uniform(seed: int, index: int) -> float:
    words = philox(seed, index)
    return ((words[0] << 32 | words[1]) >> 11) * 2.0**-53


def window(history: list[int], n: int) -> list[int]:
    return history if n < 0 else history[len(history) - min(n, len(history)) :]


def dry_lengths(history: list[int], breakers: list[int]) -> dict[int, int]:
    """For each token: the length of the longest repetition that it would continue."""
    lengths: dict[int, int] = {}
    for place in range(1, len(history)):
        length = 0
        while (
            length < place
            and history[place - 1 - length] == history[len(history) - 1 - length]
            and history[place - 1 - length] not in breakers
        ):
            length += 1
        if length and history[place] not in breakers:
            lengths[history[place]] = max(lengths.get(history[place], 0), length)
    return lengths


def adjusted(logits: np.ndarray, history: list[int], p: dict[str, Any]) -> np.ndarray:
    x = logits.astype(np.float64)
    for token, value in p["logit_bias"].items():
        x[token] += value
    recent = window(history, p["penalty_window"])
    for token in set(recent):
        x[token] = x[token] / p["repeat_penalty"] if x[token] > 0 else x[token] * p["repeat_penalty"]
        x[token] -= p["presence_penalty"] + recent.count(token) * p["frequency_penalty"]
    if p["dry_multiplier"]:
        for token, length in dry_lengths(window(history, p["dry_window"]), p["dry_breakers"]).items():
            if length >= p["dry_allowed_length"]:
                penalty = p["dry_multiplier"] * p["dry_base"] ** (length - p["dry_allowed_length"])
                x[token] -= min(penalty, 1e30)
    return x.astype(np.float32).astype(np.float64)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def reaching(order: list[int], probability: np.ndarray, share: float) -> list[int]:
    """The smallest prefix of `order`, at least one, whose probabilities reach `share`."""
    sums = list(itertools.accumulate(probability[i] for i in order))
    if any(abs(s - share) < EDGE for s in sums[:-1]):
        raise AmbiguousError
    n = next((i + 1 for i, s in enumerate(sums) if s >= share), len(order))
    return order[:n]


def distribution(logits: np.ndarray, history: list[int], p: dict[str, Any]) -> dict[int, float]:
    """Token -> probability, of the tokens that survive."""
    x = adjusted(logits, history, p)
    ranked = sorted((i for i in range(len(x)) if x[i] > -np.inf), key=lambda i: (-x[i], i))
    if p["temperature"] == 0.0:
        return {ranked[0]: 1.0}
    if p["top_k"]:
        ranked = ranked[: p["top_k"]]

    def probabilities() -> np.ndarray:
        full = np.zeros(len(x))
        full[ranked] = softmax(x[ranked])
        return full

    if p["typical_p"] < 1.0:
        q = probabilities()
        top = x[ranked].max()
        log_total = np.log(np.exp(x[ranked] - top).sum())
        information = {i: float(log_total - (x[i] - top)) for i in ranked}
        entropy = sum(q[i] * information[i] for i in ranked)
        score = {i: abs(information[i] - entropy) for i in ranked}
        order = sorted(ranked, key=lambda i: (score[i], -x[i], i))
        if any(score[b] - score[a] < EDGE and x[a] != x[b] for a, b in itertools.pairwise(order)):
            raise AmbiguousError
        kept = set(reaching(order, q, p["typical_p"]))
        ranked = [i for i in ranked if i in kept]
    if p["top_p"] < 1.0:
        ranked = reaching(ranked, probabilities(), p["top_p"])
    if p["min_p"] > 0.0:
        q = probabilities()
        q /= q.max()  # and not the least one times the greatest: that may be less than any number
        if any(0.0 < abs(q[i] - p["min_p"]) < EDGE * p["min_p"] for i in ranked):
            raise AmbiguousError
        ranked = [i for i in ranked if q[i] >= p["min_p"]]
    ids = sorted(ranked)
    return dict(zip(ids, softmax(x[ids] / p["temperature"]).tolist(), strict=True))


def draw(kept: dict[int, float], u: float) -> int:
    total = 0.0
    for token, probability in kept.items():
        total += probability
        if abs(total - u) < EDGE:
            raise AmbiguousError
        if total > u:
            return token
    return max(kept)
