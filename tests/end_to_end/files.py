"""The model files of the end-to-end tests, and what llama.cpp wrote with them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from importlib import resources
from pathlib import Path

import gguf
import numpy as np

from clarion.gguf import File, Writer

BUILT_IN = Path(str(resources.files("clarion") / "data" / "tale-q8_0.gguf"))
GOLDENS = {name: Path(__file__).parent / f"greedy-{name}.jsonl" for name in ("q8_0", "f16")}


@dataclass(frozen=True, slots=True)
class Text:
    """A prompt and its greedy continuation: with `<|endoftext|>`, if the text came to its end."""

    prompt: str
    prompt_tokens: list[int]
    tokens: list[int]
    margins: list[float]  # of each token's logit over the second best


def read_golden(name: str) -> tuple[str, list[Text]]:
    """Return (SHA-256 of the model file, texts)."""
    head, *texts = map(json.loads, GOLDENS[name].read_text().splitlines())
    return head["sha256"], [Text(**text) for text in texts]


def write_f16(path: Path) -> None:
    """Write the built-in model with its matrices in F16: the same bytes on every machine."""
    with File.open(BUILT_IN) as file:
        file_type = {"general.file_type": np.uint32(gguf.LlamaFileType.MOSTLY_F16)}
        with Writer(path, {**file.metadata.exact(), **file_type}) as writer:
            for tensor in file.tensors.values():
                if tensor.format.name == "F32":
                    writer.add(tensor.name, tensor.shape, "F32", tensor.data)
                else:
                    kind = gguf.GGMLQuantizationType[tensor.format.name]
                    values = gguf.quants.dequantize(tensor.data, kind).astype(np.float16)
                    writer.add(tensor.name, tensor.shape, "F16", values)


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()
