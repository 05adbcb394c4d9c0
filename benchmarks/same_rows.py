"""Compare what Clarion and llama.cpp compute of the same files: whether speeds are those of the same work.

    python benchmarks/same_rows.py MODEL... --llama-python PYTHON [--activations fast,high,exact]

Rows are logits of each token of a short prompt, or the vector of a text. Prints the squared distance from
llama.cpp's rows over their variance, and of how many rows the greatest element is the same; at last how far
Clarion's first activations are from its last. llama.cpp multiplies 8-bit activations, as `fast` does: it is
about as far from `exact` as that is.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]

HERE = Path(__file__).parent
LLAMA = """
import sys
import numpy as np
import llama_cpp
from measure_llama_cpp import Session

path, tokens, rows = sys.argv[1:]
tokens = [int(token) for token in tokens.split(",")]
session = Session(path, 2, 1, len(tokens))
session.decode([(0, i) for i in range(len(tokens))], every_logit=True, tokens=tokens)
n_embd = llama_cpp.llama_model_n_embd(session.model)
if session.speaks:
    shape, found = (len(tokens), session.n_vocab), llama_cpp.llama_get_logits(session.context)
else:
    shape, found = (1, n_embd), llama_cpp.llama_get_embeddings_seq(session.context, 0)
np.save(rows, np.ctypeslib.as_array(found, shape=shape))
"""


def llama_rows(python: str, model: str, tokens: list[int]) -> Rows:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npy"
        words = [model, ",".join(map(str, tokens)), str(path)]
        done = subprocess.run([python, "-c", LLAMA, *words], cwd=HERE, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"llama.cpp failed on {model}:\n{done.stderr[-2000:]}")
        found: Rows = np.load(path)
        return found


def clarion_rows(path: str, text: str, tokens: list[int], activations: str) -> Rows:
    import clarion
    from clarion.programs import writes

    with clarion.load(path, activations=activations, context=512, weights="mapped") as model:
        if writes(model.program):
            return model.logits(tokens)
        return model.embed([text], normalize=False)


def compared(rows: Rows, others: Rows) -> str:
    distance = np.square(rows - others).sum() / np.square(others - others.mean()).sum()
    same = int((rows.argmax(1) == others.argmax(1)).sum())
    return f"distance {distance:.1e}, {same} of {len(rows)} rows agree"


def main() -> None:
    from clarion.tokenizer import Tokenizer

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+")
    parser.add_argument("--llama-python", required=True, help="an interpreter that has llama-cpp-python")
    parser.add_argument("--activations", default="fast,high,exact", help="(default: %(default)s)")
    parser.add_argument("--text", default="A short text, of which a few tokens are enough: 0, 1, 2.")
    arguments = parser.parse_args()
    for path in arguments.models:
        tokens = Tokenizer.from_gguf(path).encode(arguments.text)
        theirs = llama_rows(arguments.llama_python, path, tokens)
        ways = arguments.activations.split(",")
        ours = {way: clarion_rows(path, arguments.text, tokens, way) for way in ways}
        for way, rows in ours.items():
            print(f"{path} {way} from llama.cpp: {compared(rows, theirs)}", flush=True)
        print(f"{path} {ways[0]} from {ways[-1]}: {compared(ours[ways[0]], ours[ways[-1]])}", flush=True)


if __name__ == "__main__":
    main()
