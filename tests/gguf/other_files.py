"""The beginnings of files that people take for models, and what is said of each."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Mapping

import numpy as np

from tests.gguf.gguf_bytes import gguf


def zipped(members: Mapping[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target.getvalue()


def tarred(name: str, content: bytes) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return target.getvalue()


def safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(8)


def numpy_file() -> bytes:
    target = io.BytesIO()
    np.save(target, np.arange(5))
    return target.getvalue()


def old_imatrix() -> bytes:
    name = b"blk.0.attn_q.weight"
    return struct.pack("<ii", 1, len(name)) + name + struct.pack("<ii", 3, 2) + bytes(8)


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n"
NOISE = bytes((i * i * 37 + i * 11 + 129) % 251 + 1 for i in range(5000))

# The bytes, and words that a message has of them: what the file is, and what to do.
OTHER_FILES: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "empty": (b"", ("an empty file", "download it again")),
    "zeros": (bytes(100_000), ("begins with zeros", "download it again")),
    "few zeros": (bytes(10), ("begins with zeros",)),
    "ggml": (b"lmgg" + NOISE, ("an older GGML file (ggml)", "get the same model as GGUF")),
    "ggmf": (b"fmgg\x01\0\0\0" + NOISE, ("an older GGML file (ggmf)",)),
    "ggjt": (b"tjgg\x03\0\0\0" + NOISE, ("an older GGML file (ggjt)",)),
    "ggjt of a big-endian machine": (b"ggjt\0\0\0\x03" + NOISE, ("an older GGML file (ggjt)",)),
    "session": (b"nsgg\x01\0\0\0" + NOISE, ("a session of llama.cpp",)),
    "imatrix.dat": (old_imatrix(), ("importance matrix of the older form", "llama-imatrix --in-file")),
    "safetensors": (safetensors(), ("safetensors weights", "clarion convert")),
    "safetensors, spaced": (
        struct.pack("<Q", 300) + b'{"__metadata__":{"format":"pt"}' + b" " * 300,
        ("safetensors weights", "clarion convert"),
    ),
    "torch": (
        zipped({"archive/data.pkl": b"\x80\x02}q.", "archive/version": b"3"}),
        ("a PyTorch archive", "clarion convert"),
    ),
    "torch, by another name": (
        zipped({"pytorch_model/data.pkl": b"\x80\x02}q.", "pytorch_model/data/0": bytes(5000)}),
        ("a PyTorch archive",),
    ),
    "older torch": (
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.",
        ("PyTorch weights or another pickle", "clarion convert"),
    ),
    "pickle": (pickle.dumps({"a": 1}), ("pickle",)),
    "onnx": (b"\x08\x07\x12\x07pytorch\x1a\x052.1.0:" + NOISE, ("an ONNX model", "GGUF")),
    "onnx without a producer": (b"\x08\x0a:\x92\x80\x04" + NOISE, ("an ONNX model",)),
    "tflite": (b"\x1c\0\0\0TFL3" + NOISE, ("a TFLite model",)),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + NOISE, ("an HDF5 file, as Keras writes it",)),
    "keras": (
        zipped({"metadata.json": b"{}", "config.json": b"{}", "model.weights.h5": b""}),
        ("a Keras archive",),
    ),
    "sentencepiece": (b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02\n\x0c" + NOISE, ("a sentencepiece tokenizer",)),
    "numpy": (numpy_file(), ("a NumPy array",)),
    "npz": (zipped({"a.npy": numpy_file()}), ("a NumPy archive",)),
    "html": (
        b"<!DOCTYPE html>\n<html><head><title>404</title>",
        ("an HTML page", "download the file itself"),
    ),
    "html, otherwise": (b"\xef\xbb\xbf \n<!-- x -->\n<HTML lang='en'>", ("an HTML page",)),
    "xml": (
        b"<?xml version='1.0'?>\n<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>",
        ("an XML text", "'Access Denied'"),
    ),
    "lfs": (
        LFS.format("4f" * 32, 4_920_000_000).encode(),
        ("a Git LFS pointer", "run git lfs pull (the file has 4.9 GB)"),
    ),
    "lfs, CRLF": (
        LFS.format("4f" * 32, 98_400_000).replace("\n", "\r\n").encode(),
        ("a Git LFS pointer", "(the file has 98.4 MB)"),
    ),
    "answer": (b'{"error":"Repository not found"}', ("a server's answer", "'Repository not found'")),
    "answer in a line": (b"Entry not found", ("a line of text", "'Entry not found'")),
    "text": (b"Once upon a time\nthere was a king.\n" * 200, ("a text",)),
    "text, not English": ("Ein K\u00f6nig\n\u738b\u69d8\n".encode() * 5000, ("a text",)),
    "utf-16": ("Once upon a time".encode("utf-16"), ("a text in UTF-16", "save it in UTF-8")),
    "index": (
        json.dumps({"metadata": {}, "weight_map": {"w": "model-00001-of-00002.safetensors"}}).encode(),
        ("an index of a checkpoint's weights", "clarion convert"),
    ),
    "config": (
        json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}, indent=2).encode(),
        ("the configuration of a checkpoint", "clarion convert"),
    ),
    "tokenizer": (b'{"version": "1.0", "added_tokens": [], "model": {}}', ("a tokenizer",)),
    "ollama": (
        b'{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json"}',
        ("a manifest of Ollama", "below blobs/"),
    ),
    "json": (b"[\n1, 2\n]", ("a JSON text",)),
    "gzip": (gzip.compress(NOISE), ("a gzip archive", "unpack it first: gunzip")),
    "xz": (lzma.compress(NOISE), ("an xz archive", "unpack it first: unxz")),
    "zstd": (b"\x28\xb5\x2f\xfd" + NOISE, ("a zstd archive", "unpack it first")),
    "zip": (zipped({"readme.txt": b"x"}), ("a zip archive", "unpack it first: unzip")),
    "zip with a model": (zipped({"a/model.gguf": gguf()}), ("a zip archive with a GGUF file in it", "unzip")),
    "tar": (tarred("model.gguf", gguf()), ("a tar archive", "unpack it first: tar xf")),
    "llamafile": (
        b"MZqFpD='\n" + NOISE + zipped({"model.gguf": gguf()}),
        ("a llamafile", "take that out: unzip", "'*.gguf'"),
    ),
    "program": (b"\x7fELF\x02\x01\x01" + NOISE, ("a program",)),
    "pdf": (b"%PDF-1.7\n" + NOISE, ("a PDF document",)),
    "picture": (b"\x89PNG\r\n\x1a\n" + NOISE, ("a picture",)),
}
