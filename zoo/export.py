"""From a run to a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from clarion.errors import ParameterError
from clarion.gguf import Writer
from zoo.config import Model, Shape
from zoo.corpus import tokenizer_metadata
from zoo.names import tensor_names

# By family, the first is the default. Ternary weights are exact in both of theirs.
FORMATS = {"llama": ("Q8_0", "F16"), "qwen3moe": ("Q8_0", "F16"), "bitnet": ("TQ2_0", "TQ1_0")}
CONTEXT_LENGTH = 2048  # what an engine may use, looking back over a window as long as those of the training


def export(
    model: Model, weights: Mapping[str, NDArray[np.float32]], path: Path, format: str | None = None
) -> None:
    """Writes the model's GGUF file.

    Args:
        weights: what the network multiplies with, by its parameters' names.
        format: of the matrices, but for routers (F32) and, where weights are ternary, the embedding (F16).

    Raises:
        ParameterError: a format that the family is not written in, or one of ternary weights for others.
        FileError: the file cannot be written.
    """
    known = FORMATS[model.shape.family]
    format = known[0] if format is None else format.upper()
    if format not in known:
        raise ParameterError(f"{model.name}: format is {format!r}, expected {' or '.join(known)}")
    with Writer(path, metadata(model, format)) as writer:
        for name, target in tensor_names(weights).items():
            values = weights[name]
            kind = tensor_format(target, values.ndim, model.shape.family, format)
            stored = gguf.GGMLQuantizationType[kind]
            data = gguf.quants.quantize(values, stored)
            if kind.startswith("TQ") and not np.array_equal(gguf.quants.dequantize(data, stored), values):
                raise ParameterError(f"{model.name}: {target!r} holds other values than -s, 0 and s")
            writer.add(target, values.shape, kind, data)


def tensor_format(name: str, n_dimensions: int, family: str, format: str) -> str:
    """The format that a tensor is written in."""
    if n_dimensions == 1 or name.endswith("ffn_gate_inp.weight"):
        return "F32"
    if family == "bitnet" and name == "token_embd.weight":
        return "F16"
    return format


def metadata(model: Model, format: str) -> dict[str, Any]:
    """The keys of the file."""
    hyperparameters = {
        f"{model.shape.family}.{key}": value
        for key, value in _hyperparameters(model.shape, model.recipe.context).items()
    }
    return {
        "general.architecture": model.shape.family,
        "general.name": model.name,
        "general.description": "Trained from scratch on English stories in the public domain.",
        "general.languages": ["en"],
        "general.license": "CC0-1.0",
        "general.file_type": np.uint32(gguf.LlamaFileType[f"MOSTLY_{format}"]),
        "general.quantization_version": np.uint32(gguf.GGML_QUANT_VERSION),
        **hyperparameters,
        **tokenizer_metadata(),
    }


def _hyperparameters(shape: Shape, window: int) -> dict[str, Any]:
    keys: dict[str, Any] = {
        "vocab_size": np.uint32(shape.n_vocab),
        "context_length": np.uint32(CONTEXT_LENGTH),
        "block_count": np.uint32(shape.n_layer),
        "embedding_length": np.uint32(shape.n_embd),
        "feed_forward_length": np.uint32(shape.n_ff),
        # With more in view than in training, a model loses its words after a few hundred tokens.
        "attention.sliding_window": np.uint32(window),
        "attention.head_count": np.uint32(shape.n_head),
        "attention.head_count_kv": np.uint32(shape.n_head_kv),
        "attention.layer_norm_rms_epsilon": np.float32(shape.norm_eps),
        "rope.dimension_count": np.uint32(shape.head_dim),
        "rope.freq_base": np.float32(shape.rope_base),
    }
    if shape.n_expert:
        keys |= {
            "attention.key_length": np.uint32(shape.head_dim),
            "attention.value_length": np.uint32(shape.head_dim),
            "expert_count": np.uint32(shape.n_expert),
            "expert_used_count": np.uint32(shape.n_expert_used),
            "expert_feed_forward_length": np.uint32(shape.n_ff),
        }
    return keys
