"""Measure how well vectors find the mail that a subject belongs to, beside a bag of words.

    python benchmarks/retrieval.py --mails FILE --gguf NAME=FILE[:ACTIVATIONS] ... [--n 1000] [--json FILE]

FILE is a JSON list of pairs, a group and a whole mail with its headers; tests/real_models.py fetches one
(6,046 mails that people and advertisers sent in 2002). Of n mails with a subject of at least three words and
a text of at least 200 characters, the subject is a query and the text without it a document. The baseline is
BM25 (Robertson & Zaragoza 2009, k1 = 1.2, b = 0.75) over lower-case words.

Prints how often the mail is the first and among the first ten, and the mean of 1 / its rank.
"""

from __future__ import annotations

import argparse
import email
import email.policy
import json
import random
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import clarion


def mails(path: Path, n: int) -> list[tuple[str, str]]:
    """Subjects and texts of n mails, always the same ones; no subject occurs twice."""
    found: dict[str, str] = {}
    for _, raw in json.loads(path.read_text(encoding="utf-8")):
        message = email.message_from_string(raw, policy=email.policy.compat32)
        subject = re.sub(r"(?i)^\s*((re|fwd?|aw)\s*:|\[[^\]]*\])\s*", "", str(message.get("Subject", "")))
        part = next((p for p in message.walk() if p.get_content_type() == "text/plain"), None)
        body = str(part.get_payload()) if part is not None else ""
        body = "\n".join(line for line in body.splitlines() if not line.startswith(">"))
        if len(subject.split()) >= 3 and len(body) >= 200 and "=?" not in subject:
            found.setdefault(" ".join(subject.split()), body[:2000])
    chosen = sorted(found.items())
    random.Random(1).shuffle(chosen)
    return chosen[:n]


def bag_of_words(queries: list[str], documents: list[str]) -> np.ndarray[Any, Any]:
    """BM25 of each query and document: [n, n]."""
    bags = [Counter(re.findall(r"\w+", document.lower())) for document in documents]
    lengths = np.array([sum(bag.values()) for bag in bags])
    share = 1.2 * (0.25 + 0.75 * lengths / lengths.mean())
    holders: dict[str, list[int]] = {}
    for i, bag in enumerate(bags):
        for word in bag:
            holders.setdefault(word, []).append(i)
    scores = np.zeros((len(queries), len(documents)))
    for row, query in zip(scores, queries, strict=True):
        for word in re.findall(r"\w+", query.lower()):
            at = holders.get(word, [])
            weight = np.log(1 + (len(bags) - len(at) + 0.5) / (len(at) + 0.5))
            counts = np.array([bags[i][word] for i in at])
            row[at] += weight * counts * 2.2 / (counts + share[at])
    return scores


def figures(scores: np.ndarray[Any, Any]) -> dict[str, float]:
    """Of the scores [n, n] of queries and documents, where document i answers query i."""
    own = np.diagonal(scores)[:, None]
    ranks = (scores > own).sum(1) + ((scores == own).sum(1) - 1) / 2 + 1  # of equal scores the mean rank
    return {
        "first": float((ranks == 1).mean()),
        "first ten": float((ranks <= 10).mean()),
        "mean of 1/rank": float((1 / ranks).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mails", type=Path, required=True)
    parser.add_argument("--gguf", action="append", required=True, metavar="NAME=FILE[:ACTIVATIONS]")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--threads", type=int)
    parser.add_argument(
        "--context", type=int, default=512, help="tokens that texts are cut after (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    queries, documents = map(list, zip(*mails(arguments.mails, arguments.n), strict=True))
    results = {"words (BM25)": figures(words := bag_of_words(queries, documents))}
    for given in arguments.gguf:
        name, _, path = given.partition("=")
        path, _, activations = path.partition(":")
        with clarion.load(
            path, threads=arguments.threads, activations=activations or "high", context=arguments.context
        ) as model:
            start = time.perf_counter()
            vectors = model.embed([*queries, *documents], truncate=True)
            seconds = time.perf_counter() - start
        scores = vectors[: len(queries)] @ vectors[len(queries) :].T
        results[name] = figures(scores) | {"seconds": seconds}
        both = words / words.max(1, keepdims=True).clip(1e-9) + scores
        results[f"{name} and words"] = figures(both)
    print("| | first | first ten | mean of 1/rank |\n| --- | ---: | ---: | ---: |")
    for name, row in results.items():
        print(f"| {name} | {row['first']:.1%} | {row['first ten']:.1%} | {row['mean of 1/rank']:.3f} |")
    if arguments.json:
        arguments.json.write_text(json.dumps({"n": len(queries), "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
