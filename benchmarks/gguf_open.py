"""How long a file that holds a vocabulary of 150,000 tokens and as many merges takes to open, warm."""

from __future__ import annotations

import itertools
import tempfile
import time
from pathlib import Path

import numpy as np

from clarion.gguf import File, Writer

N = 150_000
ROUNDS = 9


def main() -> None:
    tokens = [f"token{i:x}" for i in range(N)]
    metadata = {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.ones(N, np.int32),
        "tokenizer.ggml.merges": [f"{a} {b}" for a, b in itertools.pairwise(tokens)],
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocabulary.gguf"
        with Writer(path, metadata):
            pass
        seconds = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            File.open(path).close()
            seconds.append(time.perf_counter() - start)
    print(f"open: median {sorted(seconds)[ROUNDS // 2] * 1e3:.1f} ms, worst {max(seconds) * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
