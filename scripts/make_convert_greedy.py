#!/usr/bin/env python3
"""Makes tests/convert/goldens/greedy.json: what llama.cpp writes with the converted goldens, greedily.

Run by hand after scripts/make_convert_goldens.py, with llama-cpp-python (0.3.36) and this package importable.
Each golden is converted to every type, quantized to formats that have room for its narrow matrices, and
converted once more in parts; llama.cpp must load all of them. (scripts/make_quantize_goldens.py does the same
with the built-in model and every recipe.)
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
from tests.convert.files import GOLDENS, NAMES, WRITTEN, unpack, without_window, write_as  # noqa: E402

PROMPT = "The cat's hat"
N_TOKENS = 12


def greedy(path: Path) -> tuple[dict, dict]:
    """The ids of texts, and what follows the prompt."""
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
    return {"prompt": prompt, "special": special}, {"tokens": tokens[len(prompt) :], "margins": margins}


def main() -> None:
    found = {}
    for name in NAMES:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = without_window(unpack(name, Path(folder) / "checkpoint"))
            parts = convert(checkpoint, Path(folder) / "parts.gguf", "f32", max_bytes=40_000)
            ids, text = greedy(parts[0])
            texts = {}
            for kind in WRITTEN:
                same, texts[kind] = greedy(write_as(kind, checkpoint, Path(folder) / f"{kind}.gguf"))
                if same != ids:
                    raise SystemExit(f"{name}: {kind} has another tokenizer than the parts")
            if texts["f32"] != text:
                raise SystemExit(f"{name}: the parts give another text than the whole")
            found[name] = {**ids, "texts": texts}
            print(name, len(parts), {kind: min(text["margins"]) for kind, text in texts.items()})
    (GOLDENS / "greedy.json").write_text(json.dumps(found) + "\n")


main()
