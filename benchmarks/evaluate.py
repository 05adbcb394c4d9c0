"""How fast `clarion eval` is beside `clarion bench`, on the same file, in turns within one process.

    python benchmarks/evaluate.py llama-1b.gguf -t 2 -r 5

A round is some prompts as `clarion bench -p` has them, of which only the last token's logits are wanted, and
an evaluation of as many chunks of as many tokens, from the first batch to the scores. An evaluation needs
the logits of half of its tokens: `products_of_logits` is how much more there is to multiply for that, and
`scoring` the share of an evaluation's time in which nothing is multiplied.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

import clarion
from clarion.evaluate.chunks import halves
from clarion.evaluate.evaluation import Track, evaluate
from clarion.evaluate.scorers import BATCH, ClarionScorer
from clarion.model import Model


def output_share(model: Model, n_tokens: int) -> float:
    """Products of the logits that an evaluation needs more than a prompt, over those of the prompt."""
    program = model.program
    last = program.weights[program.ops[-1].weights[0]]
    inner = sum(w.rows * w.cols for w in program.weights if w.rows > 1 and w.name.startswith("blk."))
    return (n_tokens // 2) * last.rows * last.cols / (n_tokens * inner)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("-p", "--tokens", type=int, default=512)
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("-r", "--rounds", type=int, default=5)
    parser.add_argument("-k", "--chunks", type=int, default=8)
    parser.add_argument("-b", "--batch", type=int, default=BATCH, help="of the evaluation")
    parser.add_argument("--activations", default="high")
    arguments = parser.parse_args()
    n, threads, activations = arguments.tokens, arguments.threads, arguments.activations
    engine = ClarionScorer(
        arguments.model, n, batch=arguments.batch, threads=threads, activations=activations
    )
    options: clarion.Options = {"max_tokens": 1, "greedy": True, "ignore_eos": True, "detokenize": False}
    prompts, evaluations, scoring = [], [], []
    with clarion.load(arguments.model, threads=threads, context=n + 1, activations=activations) as model:
        model.settle()
        model.settle()
        rng = np.random.default_rng(0)
        for _ in range(arguments.rounds + 1):  # the first warms up
            tokens = rng.integers(0, model.n_vocab, (arguments.chunks + 1) * n).tolist()
            chunks = list(halves(tokens, n, None))[: arguments.chunks]
            seconds = sum(
                model.generate(tokens[i * n : (i + 1) * n], **options).timings.prompt
                for i in range(arguments.chunks)
            )
            prompts.append(arguments.chunks * n / seconds)
            track = Track(arguments.model, engine.name, 0)
            started = time.perf_counter()
            evaluate(tokens, chunks, [(track, engine)], None, model.tokenizer, threads)
            seconds = time.perf_counter() - started
            evaluations.append(track.n_computed / seconds)
            scoring.append(1 - track.seconds / seconds)
        share = output_share(model, n)
    engine.close()
    ratios = [e / p for p, e in zip(prompts[1:], evaluations[1:], strict=True)]
    print(
        json.dumps(
            {
                "prompt_tokens_per_second": statistics.median(prompts[1:]),
                "evaluation_tokens_per_second": statistics.median(evaluations[1:]),
                "ratio": statistics.median(ratios),
                "ratios": [round(ratio, 3) for ratio in sorted(ratios)],
                "products_of_logits": round(share, 3),
                "scoring": round(statistics.median(scoring[1:]), 3),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
