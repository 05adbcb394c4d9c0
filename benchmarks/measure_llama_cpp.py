"""Measure llama.cpp once, through llama-cpp-python's C functions, and print the speeds as JSON.

    python benchmarks/measure_llama_cpp.py MODEL -t 2 -p 256,512 -n 64 -b 2,8

A prompt is one `llama_decode` of all its tokens, with logits for the last one; generation starts at a context
of one token and feeds fixed tokens, so that neither sampling nor Python is part of it; several texts are one
`llama_decode` of a token each, with logits for all. Of a model that gives vectors a prompt is one
`llama_decode` of a text, up to its vector, and there is no generation. All settings but the numbers of
threads and texts are llama.cpp's defaults. `compare.py` calls this; it needs nothing of Clarion.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import random
import time
from functools import partial
from typing import Any

import llama_cpp
from measured_work import STEPS, WARM_UP, add_work, repeated

BATCH = 512  # llama.cpp's default for both the logical and the physical batch


class Session:
    """A model and one context of it."""

    def __init__(self, path: str, threads: int, n_texts: int, context: int) -> None:
        self.model = llama_cpp.llama_model_load_from_file(
            path.encode(), llama_cpp.llama_model_default_params()
        )
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {path}")
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = max(BATCH, context) * n_texts  # divided among the texts
        parameters.n_seq_max = n_texts
        parameters.n_batch = parameters.n_ubatch = BATCH
        parameters.n_threads = parameters.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, parameters)
        # A model that gives vectors remembers nothing.
        self.speaks = bool(llama_cpp.llama_get_memory(self.context))
        llama_cpp.llama_set_embeddings(self.context, not self.speaks)
        self.batch = llama_cpp.llama_batch_init(BATCH, 0, 1)
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.draw = random.Random(0)

    def clear(self) -> None:
        if self.speaks:
            llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)

    def decode(
        self, places: list[tuple[int, int]], every_logit: bool = False, tokens: list[int] | None = None
    ) -> None:
        """Compute a token, a random one if none is given, at each (text, position); logits for the last one
        or for all."""
        self.batch.n_tokens = len(places)
        for i, (text, position) in enumerate(places):
            self.batch.token[i] = tokens[i] if tokens else self.draw.randrange(self.n_vocab)
            self.batch.pos[i] = position
            self.batch.n_seq_id[i] = 1
            self.batch.seq_id[i][0] = text
            self.batch.logits[i] = every_logit or i == len(places) - 1
        if llama_cpp.llama_decode(self.context, self.batch) != 0:
            raise SystemExit("llama_decode failed")
        llama_cpp.llama_synchronize(self.context)

    def prompt_rate(self, n: int) -> float:
        """Tokens a second of a prompt of n tokens."""
        self.clear()
        start = time.perf_counter()
        for first in range(0, n, BATCH):
            places = [(0, position) for position in range(first, min(first + BATCH, n))]
            self.decode(places, every_logit=not self.speaks)
        return n / (time.perf_counter() - start)

    def step_seconds(self, n_texts: int, steps: int) -> float:
        """Seconds of a step that takes one token of each of several texts."""
        self.clear()
        self.decode([(text, 0) for text in range(n_texts)], every_logit=True)
        start = time.perf_counter()
        for position in range(1, steps + 1):
            self.decode([(text, position) for text in range(n_texts)], every_logit=True)
        return (time.perf_counter() - start) / steps


def main() -> dict[str, Any]:
    parser = argparse.ArgumentParser(description="Measure llama.cpp once.")
    add_work(parser)
    work = parser.parse_args()

    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
    def quiet(level: int, text: bytes, data: ctypes.c_void_p) -> None:
        """Drop llama.cpp's messages."""

    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    context = max(WARM_UP, *work.prompts, work.generated + 1)
    alone = Session(work.model, work.threads, 1, context)
    alone.prompt_rate(WARM_UP)  # pages of the weights, work buffers, threads
    measured: dict[str, Any] = {
        "prompt": {n: repeated(partial(alone.prompt_rate, n)) for n in work.prompts},
        "generation": 1 / alone.step_seconds(1, work.generated) if alone.speaks else None,
        "step": {},
    }
    if work.batches and alone.speaks:
        together = Session(work.model, work.threads, max(work.batches), STEPS + 1)
        measured["step"] = {1: alone.step_seconds(1, STEPS)}
        measured["step"] |= {n: together.step_seconds(n, STEPS) for n in work.batches}
    system = llama_cpp.llama_print_system_info().decode()
    enabled = [item.split("=")[0].strip() for item in system.split("|") if item.strip().endswith("= 1")]
    return {
        **measured,
        "version": llama_cpp.__version__,
        "built_for": " ".join(name.removeprefix("CPU :").strip() for name in enabled),
    }


if __name__ == "__main__":
    print(json.dumps(main()))
