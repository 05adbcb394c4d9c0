"""Measure Clarion once, through its Python interface, and print the speeds as JSON.

    python benchmarks/measure_clarion.py MODEL THREADS PROMPT_TOKENS GENERATED_TOKENS ISA ACTIVATIONS

The same work as `measure_llama_cpp.py` asks for: a prompt whose last token's logits are wanted, then
generation from a context of one token. Greedy choice is part of Clarion's figures. Then, with the model idle,
what the machine can do at most: bytes read and 8-bit products a second. `compare.py` calls this.
"""

from __future__ import annotations

import json
import sys

import numpy as np

import clarion
from clarion.devices.measure import bandwidth, multiply_peak


def main(
    path: str, threads: int, n_prompt: int, n_generated: int, isa: str, activations: str
) -> dict[str, float | str]:
    context = max(n_prompt, n_generated + 1) + 1
    with clarion.load(path, threads=threads, context=context, isa=isa, activations=activations) as model:
        model.settle()
        warm_up, prompt = np.random.default_rng(n_prompt).integers(0, model.n_vocab, (2, n_prompt)).tolist()
        fixed: clarion.Options = {"greedy": True, "ignore_eos": True, "detokenize": False}
        model.generate(warm_up, max_tokens=1, **fixed)
        first = model.generate(prompt, max_tokens=1, **fixed)
        rest = model.generate(prompt[:1], max_tokens=n_generated + 1, **fixed)
        return {
            "prompt": first.timings.prompt_rate,
            "generation": rest.timings.generation_rate,
            "version": clarion.__version__,
            "bytes_per_token": model.bytes_per_token,
            "byte_products_per_token": model.byte_products_per_token,
            "bandwidth": bandwidth(threads, isa),
            "multiply": multiply_peak(threads, isa),
        }


if __name__ == "__main__":
    if len(sys.argv) != 7:
        raise SystemExit(__doc__)
    print(json.dumps(main(sys.argv[1], *map(int, sys.argv[2:5]), *sys.argv[5:])))
