"""Measure once what a long past costs llama.cpp, through llama-cpp-python's C functions; print it as JSON.

    python benchmarks/measure_attention_llama_cpp.py MODEL THREADS KV PROMPTS CONTEXTS

KV is a type of the cache, or two as KEYS:VALUES; flash attention is on. One prompt as long as the longest of
PROMPTS and CONTEXTS (lists as 512,4096) runs in batches of 512; where it passes one of them, its time so far
is that of such a prompt, and a few tokens are generated there, which are then forgotten. `attention.py` calls
this; it needs nothing of Clarion.
"""

from __future__ import annotations

import ctypes
import json
import random
import sys
import time
from statistics import median

import llama_cpp

BATCH, SHORT, TOKENS = 512, 64, 12


def main(path: str, threads: int, kv: str, prompts: list[int], contexts: list[int]) -> dict[str, object]:
    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
    def quiet(level: int, text: bytes, data: ctypes.c_void_p) -> None:
        """Drop llama.cpp's messages."""

    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
    if not model:
        raise SystemExit(f"llama.cpp cannot load {path}")
    longest = max(*prompts, *contexts)
    keys, _, values = kv.upper().partition(":")
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = longest + BATCH
    parameters.n_batch = parameters.n_ubatch = BATCH
    parameters.n_threads = parameters.n_threads_batch = threads
    parameters.type_k = getattr(llama_cpp, f"GGML_TYPE_{keys}")
    parameters.type_v = getattr(llama_cpp, f"GGML_TYPE_{values or keys}")
    parameters.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
    context = llama_cpp.llama_init_from_model(model, parameters)
    if not context:
        raise SystemExit(f"llama.cpp refuses a cache of {kv}")
    memory = llama_cpp.llama_get_memory(context)
    n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    draw = random.Random(0)

    def seconds(n: int) -> float:
        """Append n tokens; only the last one's logits are computed."""
        tokens = (llama_cpp.llama_token * n)(*(draw.randrange(n_vocab) for _ in range(n)))
        began = time.perf_counter()
        if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(tokens, n)) != 0:
            raise SystemExit("llama_decode failed")
        llama_cpp.llama_synchronize(context)
        return time.perf_counter() - began

    def generation(n: int) -> float:
        """The median of a few tokens at a context of n."""
        found = median(seconds(1) for _ in range(TOKENS))
        llama_cpp.llama_memory_seq_rm(memory, 0, n, -1)
        return found

    seconds(BATCH)  # warms up: pages of the weights, work buffers, threads
    llama_cpp.llama_memory_clear(memory, True)
    seconds(SHORT)
    generation(SHORT)
    steps = {SHORT: generation(SHORT)}
    llama_cpp.llama_memory_clear(memory, True)
    total, prompt = 0.0, {}
    for done in range(BATCH, longest + 1, BATCH):
        total += seconds(BATCH)
        if done in prompts:
            prompt[done] = total / done
        if done in contexts:
            steps[done] = generation(done)
    return {
        "prompt": prompt,
        "generation": {n: steps[n] for n in contexts},
        "version": llama_cpp.__version__,
    }


if __name__ == "__main__":
    if len(sys.argv) != 6:
        raise SystemExit(__doc__)
    lists = [[int(n) for n in text.split(",")] for text in sys.argv[4:]]
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], *lists)))
