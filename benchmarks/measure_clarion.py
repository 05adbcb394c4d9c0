"""Measure Clarion once, through its Python interface, and print the speeds as JSON.

    python benchmarks/measure_clarion.py MODEL -t 2 -p 256 -n 64 --texts 1,16 --depth 0,4096 --cache f16 \
        --isa avx2 --activations fast

The same work as `measure_llama_cpp.py` asks for: prompts whose last token's logits are wanted, generation
from one token on, both without a past and after one, and several texts generated at once, which share
nothing. Greedy choice is part of Clarion's figures. A past is the retained prefix of an earlier prompt.
Of a model that gives vectors a prompt is a text, tokenized and embedded, and there is no generation.
Then, with the model idle, what the machine can do at most: bytes read and 8-bit products a second.
`compare.py` calls this.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from typing import Any

import numpy as np
from measured_work import STEPS, WARM_UP, add_work, repeated

import clarion
from clarion.programs import DEFAULT_OUTPUTS, writes
from clarion.runtime.cost import BYTE_PRODUCTS
from clarion.runtime.measure import bandwidth, multiply_peak

FIXED: clarion.Options = {"greedy": True, "ignore_eos": True, "detokenize": False}
BATCH = 256  # `clarion.load`'s default


class Writer:
    """A model that writes, and how fast it does."""

    def __init__(self, model: clarion.Model) -> None:
        self.model = model
        self.draw = np.random.default_rng(0)

    def tokens(self, n: int) -> list[int]:
        """Random ones."""
        return self.draw.integers(0, self.model.n_vocab, n).tolist()  # type: ignore[no-any-return]

    def after(self, past: list[int], n: int, max_tokens: int) -> clarion.Timings:
        """A text of n more tokens than its past, continued.

        Raises:
            SystemExit: the past was computed again: its state was not kept.
        """
        timings = self.model.generate(past + self.tokens(n), max_tokens=max_tokens, **FIXED).timings
        if timings.reused_tokens < len(past):  # more where a random token was drawn before
            raise SystemExit(f"Clarion reused {timings.reused_tokens} tokens of a past of {len(past)}")
        return timings

    def prompt_rate(self, past: list[int], n: int) -> float:
        return self.after(past, n, 1).prompt_rate

    def generation_rate(self, past: list[int], n: int) -> float:
        return self.after(past, 1, n + 1).generation_rate

    def together_rate(self, n: int) -> float:
        """Tokens a second of n texts that begin with a token each, from the first tokens to the last."""
        prompts = [self.tokens(1) for _ in range(n)]
        found = self.model.generate(prompts, max_tokens=STEPS + 1, **FIXED)
        return n * STEPS / max(text.timings.generation for text in found)

    def measured(self, work: argparse.Namespace) -> dict[str, Any]:
        self.prompt_rate([], WARM_UP)  # pages of the weights, threads
        prompt, generation = {}, {}
        for depth in work.depth:
            past = self.tokens(depth)
            if past:
                self.model.generate(past, max_tokens=1, **FIXED)
            prompt[depth] = {n: repeated(partial(self.prompt_rate, past, n)) for n in work.prompts}
            generation[depth] = repeated(partial(self.generation_rate, past, work.generated))
        texts = {n: repeated(partial(self.together_rate, n)) for n in work.texts if n > 1}
        return {"prompt": prompt, "generation": generation, "texts": texts}


def measured_vectors(model: clarion.Model, work: argparse.Namespace) -> dict[str, Any]:
    """Of a model that gives vectors."""

    def text_of(n: int) -> str:
        words = [chr(ord("a") + i % 26) for i in range(n)]
        while len(model.tokenize(" ".join(words))) > n:
            words.pop()
        return " ".join(words)

    def rate(text: str, n: int) -> float:
        begun = time.perf_counter()
        model.embed(text)
        return n / (time.perf_counter() - begun)

    model.embed(text_of(WARM_UP))
    prompt = {n: repeated(partial(rate, text_of(n), n)) for n in work.prompts}
    return {"prompt": {0: prompt}, "generation": {}, "texts": {}}


def main() -> dict[str, Any]:
    parser = argparse.ArgumentParser(description="Measure Clarion once.")
    add_work(parser)
    parser.add_argument("--isa", required=True)
    parser.add_argument("--activations", required=True)
    work = parser.parse_args()
    context = max(work.depth) + max(WARM_UP, *work.prompts, work.generated + 1, STEPS + 1) + 1
    most = max(work.texts)
    # Twice, so that what is retained of an earlier prompt does not displace the past; whole pages of 64.
    held = max(2 * context, most * 64 * -(-(STEPS + 2) // 64))
    with clarion.load(
        work.model,
        threads=work.threads,
        context=context,
        cache_tokens=held,
        kv=work.cache,
        isa=work.isa,
        activations=work.activations,
        batch=max(BATCH, most),
        outputs=max(DEFAULT_OUTPUTS, most),
    ) as model:
        model.settle()
        speaks = writes(model.program)
        return {
            **(Writer(model).measured(work) if speaks else measured_vectors(model, work)),
            "version": clarion.__version__,
            "bytes_per_token": model.bytes_per_token,
            # Of one byte each, as 8-bit activations have: the same work for every engine.
            "products_per_token": model.byte_products_per_token // BYTE_PRODUCTS.get(work.activations, 1),
            "bandwidth": bandwidth(work.threads, work.isa),
            "multiply": multiply_peak(work.threads, work.isa),
        }


if __name__ == "__main__":
    print(json.dumps(main()))
