"""Measure llama.cpp once, through llama-cpp-python's C functions, and print the speeds as JSON.

    python benchmarks/measure_llama_cpp.py MODEL -t 2 -p 256 -n 64 --texts 1,16 --depth 0,4096 --cache f16

A prompt is one `llama_decode` of all its tokens, with logits for the last one; generation starts behind one
token and feeds fixed tokens, so that neither sampling nor Python is part of it. Both are measured without a
past and after one, whose state is saved once and put back before each. Several texts, which share nothing,
are one `llama_decode` of a token each, with logits for all. Of a model that gives vectors a prompt is one
`llama_decode` of a text, up to its vector, and there is no generation. All settings but the numbers of
threads and texts and the formats of the cache are llama.cpp's defaults; flash attention is what it chooses,
which the answer names. `compare.py` calls this; it needs nothing of Clarion.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import random
import re
import time
from functools import partial
from typing import Any

import llama_cpp
from measured_work import STEPS, WARM_UP, add_work, repeated

BATCH = 512  # llama.cpp's default for the physical batch
LEAST = 256  # positions of a text, of which llama.cpp makes whole multiples
# llama.cpp's messages on flash attention: what it found, or that the format of the cache needs it.
FLASH_ATTENTION = re.compile(r"Flash Attention (enabled|not supported)|(enabl)ing flash_attn")


class Session:
    """A model and one context of it."""

    def __init__(self, path: str, threads: int, n_texts: int, context: int, cache: str = "f16") -> None:
        self.model = llama_cpp.llama_model_load_from_file(
            path.encode(), llama_cpp.llama_model_default_params()
        )
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {path}")
        keys, _, values = cache.upper().partition(":")
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = max(LEAST, context) * n_texts  # divided among the texts
        parameters.n_seq_max = n_texts
        parameters.n_batch = parameters.n_ubatch = BATCH
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.type_k = getattr(llama_cpp, f"GGML_TYPE_{keys}")
        parameters.type_v = getattr(llama_cpp, f"GGML_TYPE_{values or keys}")
        self.flash_attention = llama_cpp.llama_flash_attn_type_name(parameters.flash_attn_type).decode()
        self.context = llama_cpp.llama_init_from_model(self.model, parameters)
        if not self.context:
            raise SystemExit(f"llama.cpp refuses a context of {parameters.n_ctx} with a cache of {cache}")
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
    ) -> float:
        """Compute a token, a random one if none is given, at each (text, position); logits for the last one
        or for all. Return the seconds that llama.cpp took, without Python's."""
        self.batch.n_tokens = len(places)
        for i, (text, position) in enumerate(places):
            self.batch.token[i] = tokens[i] if tokens else self.draw.randrange(self.n_vocab)
            self.batch.pos[i] = position
            self.batch.n_seq_id[i] = 1
            self.batch.seq_id[i][0] = text
            self.batch.logits[i] = every_logit or i == len(places) - 1
        began = time.perf_counter()
        if llama_cpp.llama_decode(self.context, self.batch) != 0:
            raise SystemExit("llama_decode failed")
        llama_cpp.llama_synchronize(self.context)
        return time.perf_counter() - began

    def append(self, position: int, n: int) -> float:
        """Seconds of n tokens of the first text, from a position on."""
        pieces = (
            range(first, min(first + BATCH, position + n)) for first in range(position, position + n, BATCH)
        )
        return sum(self.decode([(0, i) for i in piece], every_logit=not self.speaks) for piece in pieces)

    def past(self, n: int) -> Past:
        """The state behind n tokens."""
        self.clear()
        self.append(0, n)
        size = llama_cpp.llama_state_seq_get_size(self.context, 0) if n else 0
        state = (ctypes.c_uint8 * size)()
        if n and llama_cpp.llama_state_seq_get_data(self.context, state, size, 0) != size:
            raise SystemExit(f"llama.cpp cannot save the state of {n} tokens")
        return Past(self, n, state)

    def together_rate(self, n_texts: int) -> float:
        """Tokens a second of texts that each have a token."""
        self.clear()
        self.decode([(text, 0) for text in range(n_texts)], every_logit=True)
        places = ([(text, position) for text in range(n_texts)] for position in range(1, STEPS + 1))
        return n_texts * STEPS / sum(self.decode(each, every_logit=True) for each in places)


class Past:
    """What the first text of a session has behind it, wherever it went since."""

    def __init__(self, session: Session, n: int, state: ctypes.Array[ctypes.c_uint8]) -> None:
        self.session = session
        self.n = n
        self.state = state

    def put_back(self) -> None:
        self.session.clear()
        size = len(self.state)
        if size and llama_cpp.llama_state_seq_set_data(self.session.context, self.state, size, 0) != size:
            raise SystemExit(f"llama.cpp cannot put back the state of {self.n} tokens")

    def prompt_rate(self, n: int) -> float:
        """Tokens a second of a prompt of n tokens."""
        self.put_back()
        return n / self.session.append(self.n, n)

    def generation_rate(self, n: int) -> float:
        """Tokens a second of n tokens, one at a time, behind one more."""
        self.put_back()
        self.session.append(self.n, 1)
        return n / sum(self.session.append(self.n + 1 + i, 1) for i in range(n))


def measured(work: argparse.Namespace) -> dict[str, Any]:
    context = max(work.depth) + max(WARM_UP, *work.prompts, work.generated + 1)
    alone = Session(work.model, work.threads, 1, context, work.cache)
    alone.past(0).prompt_rate(WARM_UP)  # pages of the weights, work buffers, threads
    prompt, generation = {}, {}
    for depth in work.depth if alone.speaks else [0]:
        past = alone.past(depth)
        prompt[depth] = {n: repeated(partial(past.prompt_rate, n)) for n in work.prompts}
        if alone.speaks:
            generation[depth] = repeated(partial(past.generation_rate, work.generated))
    texts = {}
    if alone.speaks and max(work.texts) > 1:
        together = Session(work.model, work.threads, max(work.texts), STEPS + 1, work.cache)
        texts = {n: repeated(partial(together.together_rate, n)) for n in work.texts if n > 1}
    return {
        "prompt": prompt,
        "generation": generation,
        "texts": texts,
        "flash_attention": alone.flash_attention,
    }


def main() -> dict[str, Any]:
    parser = argparse.ArgumentParser(description="Measure llama.cpp once.")
    add_work(parser)
    work = parser.parse_args()
    chosen: set[str] = set()

    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
    def listen(level: int, text: bytes, data: ctypes.c_void_p) -> None:
        """Drop llama.cpp's messages, but for what it chose where flash attention is left to it."""
        if found := FLASH_ATTENTION.search(text.decode(errors="replace")):
            chosen.add(found[1] or f"{found[2]}ed")

    llama_cpp.llama_log_set(listen, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    found = measured(work)
    found["flash_attention"] = ", ".join([found["flash_attention"], *sorted(chosen)])
    system = llama_cpp.llama_print_system_info().decode()
    enabled = [item.split("=")[0].strip() for item in system.split("|") if item.strip().endswith("= 1")]
    return {
        **found,
        "version": llama_cpp.__version__,
        "built_for": " ".join(name.removeprefix("CPU :").strip() for name in enabled),
    }


if __name__ == "__main__":
    print(json.dumps(main()))
