"""Measure Clarion once, through its Python interface, and print the speeds as JSON.

    python benchmarks/measure_clarion.py MODEL -t 2 -p 256,512 -n 64 -b 2,8 --isa avx2 --activations fast

The same work as `measure_llama_cpp.py` asks for: prompts whose last token's logits are wanted, generation
from a context of one token, and several texts generated at once. Greedy choice is part of Clarion's figures.
Of a model that gives vectors a prompt is a text, tokenized and embedded, and there is no generation.
Then, with the model idle, what the machine can do at most: bytes read and 8-bit products a second.
`compare.py` calls this.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from measured_work import STEPS, WARM_UP, add_work, repeated

import clarion
from clarion.programs import writes
from clarion.runtime.cost import BYTE_PRODUCTS
from clarion.runtime.measure import bandwidth, multiply_peak

FIXED: clarion.Options = {"greedy": True, "ignore_eos": True, "detokenize": False}


def step_seconds(model: clarion.Model, tokens: list[int]) -> float:
    """Seconds of a step that takes one token of each of several texts, which begin with `tokens`."""

    async def together() -> list[clarion.Completion]:
        texts = (model.agenerate([token], max_tokens=STEPS + 1, **FIXED) for token in tokens)
        return await asyncio.gather(*texts)

    return 1 / median(text.timings.generation_rate for text in asyncio.run(together()))


def text_of(model: clarion.Model, n: int) -> str:
    """A text of n tokens."""
    words = [chr(ord("a") + i % 26) for i in range(n)]
    while len(model.tokenize(" ".join(words))) > n:
        words.pop()
    return " ".join(words)


def embedding_rate(model: clarion.Model, text: str, n: int) -> float:
    begun = time.perf_counter()
    model.embed(text)
    return n / (time.perf_counter() - begun)


def main() -> dict[str, Any]:
    parser = argparse.ArgumentParser(description="Measure Clarion once.")
    add_work(parser)
    parser.add_argument("--isa", required=True)
    parser.add_argument("--activations", required=True)
    work = parser.parse_args()
    context = max(WARM_UP, *work.prompts, work.generated + 1, STEPS + 1) + 1
    held = max(context, max(work.batches, default=0) * 64 * -(-(STEPS + 2) // 64))  # whole pages of 64
    with clarion.load(
        work.model,
        threads=work.threads,
        context=context,
        cache_tokens=held,
        isa=work.isa,
        activations=work.activations,
    ) as model:
        model.settle()
        draw = np.random.default_rng(0)
        speaks = writes(model.program)

        def tokens(n: int) -> list[int]:
            return draw.integers(0, model.n_vocab, n).tolist()  # type: ignore[no-any-return]

        texts = {} if speaks else {n: text_of(model, n) for n in (WARM_UP, *work.prompts)}

        def prompt_rate(n: int) -> float:
            if not speaks:
                return embedding_rate(model, texts[n], n)
            return model.generate(tokens(n), max_tokens=1, **FIXED).timings.prompt_rate

        def generation_rate() -> float:
            return model.generate(tokens(1), max_tokens=work.generated + 1, **FIXED).timings.generation_rate

        prompt_rate(WARM_UP)  # pages of the weights, threads
        steps = (1, *work.batches) if speaks and work.batches else ()
        return {
            "prompt": {n: repeated(partial(prompt_rate, n)) for n in work.prompts},
            "generation": generation_rate() if speaks else None,
            "step": {n: step_seconds(model, tokens(n)) for n in steps},
            "version": clarion.__version__,
            "bytes_per_token": model.bytes_per_token,
            # Of one byte each, as 8-bit activations have: the same work for every engine.
            "products_per_token": model.byte_products_per_token // BYTE_PRODUCTS.get(work.activations, 1),
            "bandwidth": bandwidth(work.threads, work.isa),
            "multiply": multiply_peak(work.threads, work.isa),
        }


if __name__ == "__main__":
    print(json.dumps(main()))
