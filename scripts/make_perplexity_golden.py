"""Makes tests/evaluate/perplexity.json: perplexities as llama.cpp's llama-perplexity computes them.

    pip install . llama-cpp-python==0.3.36 && python scripts/make_perplexity_golden.py

Tokenization, BOS and logits are llama.cpp's, through llama-cpp-python; chunks and scores are as
llama-perplexity has them: of each chunk the tokens after its middle are scored, and the running perplexity
is printed after each. The weights are those of the built-in model as F32, since llama.cpp multiplies with
8-bit activations otherwise.
"""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

import llama_cpp
import numpy as np

from clarion.gguf import File, Writer
from clarion.host import native
from clarion.programs import BUILT_IN

ROOT = Path(__file__).parents[1]
CONTEXTS = (64, 256)
CHUNKS = 12


def in_float(path: Path, source: Path) -> None:
    """The same weights in F32."""
    with File.open(source) as file, Writer(path, file.metadata.exact()) as writer:
        for tensor in file.tensors.values():
            values = native().dequantize(tensor.format.type_id, np.asarray(tensor.data), tensor.n_elements)
            writer.add(tensor.name, tensor.shape, "F32", values)


def perplexities(model: llama_cpp.Llama, tokens: list[int], context: int) -> dict[str, object]:
    surprises: list[float] = []
    running = []
    for begin in range(0, min(len(tokens) // context, CHUNKS) * context, context):
        chunk = tokens[begin : begin + context]
        model.reset()
        model.eval([model.token_bos(), *chunk[1:]])
        for row in range(context // 2, context - 1):
            logits = np.asarray(model.scores[row], np.float64)
            logits -= logits.max()
            surprises.append(float(np.log(np.exp(logits).sum()) - logits[chunk[row + 1]]))
        running.append(math.exp(np.mean(surprises)))
    variance = np.mean(np.square(surprises)) - np.mean(surprises) ** 2
    error = running[-1] * math.sqrt(variance / (len(surprises) - 1))
    return {"context": context, "running": running, "error": error}


def main() -> None:
    text = (ROOT / "benchmarks" / "held_out.txt").read_text(encoding="utf-8").removesuffix("\n")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f32.gguf"
        in_float(path, ROOT / "src" / "clarion" / "data" / BUILT_IN)
        model = llama_cpp.Llama(
            str(path),
            n_ctx=max(CONTEXTS),
            n_batch=max(CONTEXTS),
            type_k=llama_cpp.GGML_TYPE_F32,
            type_v=llama_cpp.GGML_TYPE_F32,
            logits_all=True,
            verbose=False,
        )
        tokens = model.tokenize(text.encode(), add_bos=True, special=False)
        golden = {
            "llama_cpp": llama_cpp.__version__,
            "model": BUILT_IN,
            "tokens": len(tokens),
            "perplexities": [perplexities(model, tokens, context) for context in CONTEXTS],
        }
    target = ROOT / "tests" / "evaluate" / "perplexity.json"
    target.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
