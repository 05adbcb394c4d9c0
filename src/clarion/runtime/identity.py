"""What tells the states of two models apart: saved ones are loaded by the model alone that computed them."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from clarion.gguf import File
from clarion.gguf.metadata import Strings
from clarion.plan.program import Program

_SAMPLE = 64  # bytes at three places of each tensor: fine-tuning changes all of them
_VOCABULARY = frozenset({"tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.tokens"})


def identity(file: File, program: Program) -> str:
    """The model, and the formats that it computes with; neither the file's name nor its place, nor the
    processor, context or batch.

    A fingerprint of the hyperparameters, the vocabulary, the table of tensors, and a sample of their bytes:
    to read all of them takes as long as to load the model.
    """
    architecture = str(file.metadata["general.architecture"])
    found = blake2b(digest_size=16)
    for key in sorted(file.metadata):
        # Of the vocabulary texts alone: numbers of tokens, as their scores, are in no state.
        if key.startswith(f"{architecture}.") or key in _VOCABULARY:
            found.update(f"\0{key}\0".encode("utf-8", "surrogatepass"))
            found.update(_bytes(file.metadata[key]))
    for name, tensor in sorted(file.tensors.items()):
        found.update(f"{name}\0{tensor.shape}\0{tensor.format.name}\0".encode())
        last = max(0, tensor.n_bytes - _SAMPLE)
        for at in (0, last // 2, last):
            found.update(tensor.view[at : at + _SAMPLE])
    found.update(repr(program.states).encode())
    formats = f"{program.kv.keys}:{program.kv.values}"
    return f"{architecture} {found.hexdigest()}, activations {program.activations}, keys and values {formats}"


def _bytes(value: object) -> bytes | memoryview:
    """A value of the metadata, as bytes that differ where values do."""
    if isinstance(value, Strings):
        data, starts, lengths = value.places()
        return data[starts[0] : starts[-1] + lengths[-1]] if len(value) else b""  # they follow one another
    if isinstance(value, str | int | float):
        return repr(value).encode("utf-8", "surrogatepass")
    numbers: Any = value  # an array of numpy
    found: bytes = numbers.tobytes()
    return found
