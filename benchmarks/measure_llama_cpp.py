"""Measure llama.cpp once, through llama-cpp-python's C functions, and print the speeds as JSON.

    python benchmarks/measure_llama_cpp.py MODEL THREADS PROMPT_TOKENS GENERATED_TOKENS

The prompt is one `llama_decode` of all its tokens, with logits for the last one; generation starts at an
empty context and feeds fixed tokens, so that neither sampling nor Python is part of it. All settings but the
numbers of threads are llama.cpp's defaults. `compare.py` calls this; it needs nothing of Clarion.
"""

from __future__ import annotations

import ctypes
import json
import random
import sys
import time

import llama_cpp

BATCH = 512  # llama.cpp's default for both the logical and the physical batch


def main(path: str, threads: int, n_prompt: int, n_generated: int) -> dict[str, float | str]:
    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
    def quiet(level: int, text: bytes, data: ctypes.c_void_p) -> None:
        """Drop llama.cpp's messages."""

    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
    if not model:
        raise SystemExit(f"llama.cpp cannot load {path}")
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = max(BATCH, n_prompt, n_generated + 1)
    parameters.n_batch = parameters.n_ubatch = BATCH
    parameters.n_threads = parameters.n_threads_batch = threads
    context = llama_cpp.llama_init_from_model(model, parameters)
    n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    draw = random.Random(n_prompt)

    def decode(n: int) -> None:
        """Append n tokens; only the last one's logits are computed."""
        tokens = (llama_cpp.llama_token * n)(*(draw.randrange(n_vocab) for _ in range(n)))
        if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(tokens, n)) != 0:
            raise SystemExit("llama_decode failed")
        llama_cpp.llama_synchronize(context)

    def rate(n: int, batch: int) -> float:
        """Tokens a second for n tokens in batches of `batch`."""
        start = time.perf_counter()
        for first in range(0, n, batch):
            decode(min(batch, n - first))
        return n / (time.perf_counter() - start)

    def clear() -> None:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)

    rate(n_prompt, BATCH)  # warms up: pages of the weights, work buffers, threads
    clear()
    prompt = rate(n_prompt, BATCH)
    clear()
    decode(1)
    generation = rate(n_generated, 1)
    system = llama_cpp.llama_print_system_info().decode()
    enabled = [item.split("=")[0].strip() for item in system.split("|") if item.strip().endswith("= 1")]
    return {
        "prompt": prompt,
        "generation": generation,
        "version": llama_cpp.__version__,
        "built_for": " ".join(name.removeprefix("CPU :").strip() for name in enabled),
    }


if __name__ == "__main__":
    if len(sys.argv) != 5:
        raise SystemExit(__doc__)
    print(json.dumps(main(sys.argv[1], *map(int, sys.argv[2:]))))
