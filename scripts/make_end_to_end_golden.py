#!/usr/bin/env python3
"""Makes the goldens of tests/end_to_end: the greedy text that llama.cpp writes with the built-in model.

Run by hand when the built-in model changes; the tests need only the files it writes:

    python -m venv golden && golden/bin/pip install . gguf==0.19.0 llama-cpp-python==0.3.36
    golden/bin/python scripts/make_end_to_end_golden.py

Two files are read: the one that comes with Clarion, and the same weights in F16, which `tests/end_to_end`
makes again, byte for byte. For each prompt a golden has the tokens of the prompt, those that llama.cpp
chose, and the margin by which each was ahead of the second best: where it is small, rounding decides and
not the model.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import llama_cpp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.end_to_end.files import BUILT_IN, GOLDENS, digest, write_f16

N_GENERATED = 64
PROMPTS = [
    "",
    "Once upon a time",
    "The old wolf said to the boy,",
    '"I will give you three wishes," said the fairy, "but',
    "In the year 1847, 12 ships left the harbour;  two came\n\nback. They",
    "Ça alors! Ελλάδα, 狼 🐺",
    "There was once a miller who had a mill, an ass, a cat and three sons. When he died the eldest "
    "son took the mill, the second took the ass, and the youngest had nothing left for him but the "
    "cat. He was very sad, and said to himself that his brothers could earn an honest living "
    "together, but that as soon as he had eaten his cat and made a cap of its skin he must die of "
    'hunger. The cat, who had heard all this, looked at him and said: "Do not be unhappy, dear '
    "master. Give me a bag, and have a pair of boots made for me, so that I may go into the forest, "
    'and you shall see that you are not so badly off as you think." The youngest son',
]


def greedy(llama: llama_cpp.Llama, prompt: list[int]) -> tuple[list[int], list[float]]:
    """Return what llama.cpp chooses after the prompt up to the end of the text, and each choice's margin."""
    llama.reset()
    llama.eval(prompt)
    tokens: list[int] = []
    margins: list[float] = []
    while len(tokens) < N_GENERATED:
        row = llama_cpp.llama_get_logits_ith(llama.ctx, -1)
        logits = np.ctypeslib.as_array(row, (llama.n_vocab(),))  # [V]
        second, first = np.sort(logits)[-2:]
        tokens.append(int(logits.argmax()))
        margins.append(round(float(first - second), 6))
        if tokens[-1] == llama.token_eos():
            break
        llama.eval(tokens[-1:])
    return tokens, margins


def record(name: str, path: Path) -> None:
    llama = llama_cpp.Llama(str(path), n_ctx=512, n_threads=1, n_threads_batch=1, verbose=False)
    lines: list[object] = [{"sha256": digest(path), "llama_cpp_python": llama_cpp.__version__}]
    for prompt in PROMPTS:
        ids = llama.tokenize(prompt.encode(), add_bos=True, special=False)
        tokens, margins = greedy(llama, ids)
        lines.append({"prompt": prompt, "prompt_tokens": ids, "tokens": tokens, "margins": margins})
    GOLDENS[name].write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        f16 = Path(folder) / "tale-f16.gguf"
        write_f16(f16)
        record("f16", f16)
    record("q8_0", BUILT_IN)


if __name__ == "__main__":
    main()
