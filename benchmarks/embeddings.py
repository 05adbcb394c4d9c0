"""Measure how many sentences become vectors in a second, beside ONNX Runtime and llama.cpp.

    python benchmarks/embeddings.py --texts FILE --gguf NAME=FILE[:ACTIVATIONS] ...
        [--llama NAME=FILE ...] [--onnx NAME=FILE ...] [--tokenizer FOLDER] [--peer PYTHON] [--rounds 7]
        [--threads 2] [--json FILE]

FILE has a text on each line. Every measurement is a process of its own, which loads its model, computes
some texts to warm up, and then all of them. The engines take turns, and medians count. Tokenizing counts.
ONNX Runtime gets batches of 32 texts of about the same length, which is the best for it, since it pads them;
llama.cpp computes as many as fit into 512 tokens at once. `--peer` is a Python that has onnxruntime,
tokenizers and llama-cpp-python.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median

CLARION = """
import sys, time, json
import clarion
path, activations, threads, texts = sys.argv[1:5]
texts = open(texts, encoding="utf-8").read().splitlines()
with clarion.load(path, threads=int(threads), activations=activations, context=512) as model:
    model.settle()
    model.embed(texts[:64])
    begun = time.perf_counter()
    vectors = model.embed(texts)
    print(len(texts) / (time.perf_counter() - begun))
"""
ONNX = """
import sys, time
import numpy as np, onnxruntime, tokenizers
path, tokenizer, threads, texts = sys.argv[1:5]
texts = open(texts, encoding="utf-8").read().splitlines()
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.inter_op_num_threads = int(threads), 1
session = onnxruntime.InferenceSession(path, options)
names = [entry.name for entry in session.get_inputs()]
tokens = tokenizers.Tokenizer.from_file(tokenizer + "/tokenizer.json")
tokens.no_truncation()
tokens.no_padding()
def embed(texts):
    ids = [found.ids for found in tokens.encode_batch(texts)]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    result = np.empty((len(ids), 384), np.float32)
    for begin in range(0, len(order), 32):
        some = order[begin:begin + 32]
        longest = max(len(ids[i]) for i in some)
        x = np.zeros((len(some), longest), np.int64)
        mask = np.zeros_like(x)
        for row, i in enumerate(some):
            x[row, :len(ids[i])] = ids[i]
            mask[row, :len(ids[i])] = 1
        values = [x, mask, np.zeros_like(x)][:len(names)]
        rows = session.run(None, dict(zip(names, values)))[0]
        means = (rows * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        result[some] = means / np.linalg.norm(means, axis=1, keepdims=True)
    return result
embed(texts[:64])
begun = time.perf_counter()
embed(texts)
print(len(texts) / (time.perf_counter() - begun))
"""
LLAMA = """
import sys, time
import llama_cpp
path, _, threads, texts = sys.argv[1:5]
texts = open(texts, encoding="utf-8").read().splitlines()
model = llama_cpp.Llama(path, embedding=True, n_ctx=512, n_batch=512, n_ubatch=512, n_threads=int(threads),
                        n_threads_batch=int(threads), verbose=False)
model.embed(texts[:64], normalize=True)
begun = time.perf_counter()
model.embed(texts, normalize=True)
print(len(texts) / (time.perf_counter() - begun))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--gguf", action="append", default=[])
    parser.add_argument("--onnx", action="append", default=[])
    parser.add_argument("--llama", action="append", default=[])
    parser.add_argument("--tokenizer", default="")
    parser.add_argument("--peer", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    runs: dict[str, list[str]] = {}
    tail = [str(args.threads), str(args.texts)]
    for entry in args.gguf:
        name, _, path = entry.partition("=")
        path, _, activations = path.partition(":")
        runs[name] = [sys.executable, "-c", CLARION, path, activations or "high", *tail]
    for entry in args.onnx:
        name, _, path = entry.partition("=")
        runs[name] = [args.peer, "-c", ONNX, path, args.tokenizer, *tail]
    for entry in args.llama:
        name, _, path = entry.partition("=")
        runs[name] = [args.peer, "-c", LLAMA, path, "", *tail]
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.rounds):
        for name, command in runs.items():
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            speeds[name].append(float(done.stdout.split()[-1]))
    for name, found in speeds.items():
        print(f"{name:24} {median(found):8.1f} texts/s  ({min(found):.1f} to {max(found):.1f})")
    if args.json:
        args.json.write_text(json.dumps(speeds, indent=1))


if __name__ == "__main__":
    main()
