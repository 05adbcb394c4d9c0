#!/usr/bin/env python3
"""Makes tests/quantize/goldens: what llama.cpp's quantizer does, and what it computes with our files.

Run by hand, with llama-cpp-python (0.3.36), gguf and this package importable.

recipes.json: the format of every tensor of small models, for each recipe, without and with an importance
matrix. blocks.npz: bytes of the formats that leave no choice. logits.json: for quantizations of the built-in
model the token that llama.cpp finds most likely after each token of a text, and by how much.
"""

from __future__ import annotations

import ctypes
import json
import re
import sys
import tempfile
from pathlib import Path

import llama_cpp
import numpy as np
from llama_cpp import llama_cpp as api

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from clarion.gguf import File, format_named  # noqa: E402
from clarion.quantize import RECIPES, quantize  # noqa: E402
from tests.quantize.files import GOLDENS, MODELS, awkward_rows, write_model  # noqa: E402

BUILT_IN = ROOT / "src/clarion/data/tale-q8_0.gguf"
TEXT = "Once upon a time there was a king who had three sons, and the youngest of them was called"
EXACT = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
ONLY_OURS = ("NVFP4", "MXFP4")  # llama.cpp has no recipe for the first, and the other for experts alone


def llama_formats(source: Path, out: Path, file_type: int, imatrix) -> dict[str, str] | None:
    """Each tensor's format after llama.cpp's quantizer; None where it refuses."""
    params = api.llama_model_quantize_default_params()
    params.nthread, params.ftype = 1, file_type
    if imatrix is not None:
        params.imatrix = imatrix
    if api.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(params)):
        return None
    with File.open(out) as file:
        return {name: tensor.format.name for name, tensor in file.tensors.items()}


def ones(source: Path):
    """An importance matrix of ones for every matrix."""
    with File.open(source) as file:
        matrices = [t for t in file.tensors.values() if len(t.shape) > 1]
        data = (api.llama_model_imatrix_data * (len(matrices) + 1))()
        for entry, tensor in zip(data, matrices, strict=False):
            values = np.ones(tensor.n_elements // tensor.shape[-2], np.float32)
            entry.name = tensor.name.encode()
            entry.data = values.ctypes.data_as(type(entry.data))
            entry.size = values.size
            keep.append(values)
    return data


keep: list[np.ndarray] = []


def recipes() -> dict:
    found: dict = {}
    for model in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            source = write_model(model, Path(folder) / "model.gguf")
            for recipe in RECIPES.values():
                if recipe.name in ONLY_OURS:
                    continue
                for kind, imatrix in (("without", None), ("with", ones(source))):
                    formats = llama_formats(source, Path(folder) / "out.gguf", recipe.file_type, imatrix)
                    if formats is not None:
                        found.setdefault(model, {}).setdefault(recipe.name, {})[kind] = runs(formats)
        print(model)
    return found


def runs(formats: dict[str, str]) -> dict[str, str]:
    """Matrices' formats, layers as a list: blk.*.attn_q.weight → `Q4_K 3, Q6_K 2`."""
    kinds: dict[str, list[str]] = {}
    for name, format in formats.items():
        kinds.setdefault(re.sub(r"blk\.\d+", "blk.*", name), []).append(format)
    out = {}
    for name, each in kinds.items():
        text: list[list] = []
        for format in each:
            if text and text[-1][0] == format:
                text[-1][1] += 1
            else:
                text.append([format, 1])
        if each != ["F32"] * len(each):
            out[name] = ", ".join(f"{format} {n}" for format, n in text)
    return out


def blocks() -> dict[str, np.ndarray]:
    library = ctypes.CDLL(str(next(Path(llama_cpp.__file__).parent.glob("lib/libggml-base.so*"))))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    rows = awkward_rows()
    found = {}
    for name in EXACT:
        format = format_named(name)
        out = np.empty((len(rows), format.n_bytes((1, rows.shape[1]))), np.uint8)
        library.ggml_quantize_chunk(
            format.type_id, rows.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p),
            ctypes.c_int64(0), ctypes.c_int64(len(rows)), ctypes.c_int64(rows.shape[1]), None,
        )  # fmt: skip
        found[name] = out
    return found


def logits() -> dict:
    found = {}
    for name in RECIPES:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.gguf"
            quantize(BUILT_IN, path, name, allow_requantize=True)
            model = llama_cpp.Llama(str(path), n_ctx=64, n_threads=1, logits_all=True, verbose=False)
            tokens = model.tokenize(TEXT.encode(), add_bos=True)
            model.eval(tokens)
            rows = np.array(model.scores[: len(tokens)])
            best = np.sort(rows, axis=1)
            found[name] = {
                "best": rows.argmax(1).tolist(),
                "margin": [round(float(m), 3) for m in best[:, -1] - best[:, -2]],
            }
            print(name, found[name]["best"][-4:])
    return {"tokens": tokens, "recipes": found}


def main() -> None:
    wanted = sys.argv[1:] or ["recipes", "blocks", "logits"]
    api.llama_log_set(ctypes.cast(None, api.llama_log_callback), None)
    GOLDENS.mkdir(exist_ok=True)
    if "blocks" in wanted:
        np.savez_compressed(GOLDENS / "blocks.npz", **blocks())
    if "recipes" in wanted:
        (GOLDENS / "recipes.json").write_text(json.dumps(recipes(), indent=0) + "\n")
    if "logits" in wanted:
        (GOLDENS / "logits.json").write_text(json.dumps(logits()) + "\n")


main()
