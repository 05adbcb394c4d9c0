#!/usr/bin/env python3
"""Makes tests/convert/goldens/greedy.json: what llama.cpp writes with the converted goldens, greedily.

Run by hand after scripts/make_convert_goldens.py, with llama-cpp-python (0.3.36) and this package importable.
A file is converted as f32, and once more in parts, which llama.cpp must load as well.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import llama_cpp

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from clarion.convert import convert  # noqa: E402
from tests.convert.files import GOLDENS, NAMES, unpack, without_window  # noqa: E402

PROMPT = "The cat's hat"
N_TOKENS = 12


def greedy(path: Path) -> dict:
    model = llama_cpp.Llama(str(path), n_ctx=64, n_threads=1, logits_all=True, verbose=False)
    special = model.tokenize(b"<|end|><tool> x", add_bos=False, special=True)
    prompt = model.tokenize(PROMPT.encode(), add_bos=True, special=False)
    tokens, margins = list(prompt), []
    for _ in range(N_TOKENS):
        model.reset()
        model.eval(tokens)
        row = model.scores[len(tokens) - 1]
        best, second = row.argsort()[::-1][:2]
        margins.append(round(float(row[best] - row[second]), 5))
        tokens.append(int(best))
    return {"prompt": prompt, "tokens": tokens[len(prompt) :], "margins": margins, "special": special}


def main() -> None:
    found = {}
    for name in NAMES:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = without_window(unpack(name, Path(folder) / "checkpoint"))
            (whole,) = convert(checkpoint, Path(folder) / "whole.gguf", "f32")
            parts = convert(checkpoint, Path(folder) / "parts.gguf", "f32", max_bytes=40_000)
            found[name] = greedy(whole)
            if greedy(parts[0]) != found[name]:
                raise SystemExit(f"{name}: the parts give another text than the whole")
            print(name, len(parts), min(found[name]["margins"]))
    (GOLDENS / "greedy.json").write_text(json.dumps(found, indent=1) + "\n")


main()
