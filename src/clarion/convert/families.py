"""A checkpoint's figures and tensors under the names of a GGUF file, as the family's own file says.

Which tensors there must be, and in which shape, the family's graph says: it is built from the checkpoint, as
it will be from the file. A tensor that the graph does not ask for is an error, and so is one that is missing:
nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, assert_never

from clarion.convert.config import Config, rope, rotated, whole
from clarion.convert.pieces import Target
from clarion.convert.source import Source
from clarion.convert.stored import Floats, Stored
from clarion.errors import ModelError, UnsupportedError
from clarion.models import FAMILIES, Family, build
from clarion.models.family import Computed, Flag, HuggingFace, Integer, Key, Number


@dataclass(frozen=True, slots=True)
class Converted:
    """Everything of a model but its tokenizer.

    Attributes:
        metadata: hyperparameters, keys complete.
        targets: the tensors, in the file's order.
        rope_factors: divisors of the rotary frequencies, or None.
        n_vocab: rows of the embedding.
    """

    metadata: dict[str, Any]
    targets: list[Target]
    rope_factors: Floats | None
    n_vocab: int


def recognise(values: Mapping[str, Any]) -> tuple[Family, HuggingFace] | None:
    """What the checkpoint of a config.json is, or the part of it that writes; None: no family reads it."""
    kinds = [(family, kind) for family in FAMILIES.values() for kind in family.checkpoints]
    named = values.get("architectures")
    for family, kind in kinds:
        if kind.architecture and named == [kind.architecture]:
            return family, kind
    nested = values.get("text_config")
    for each in (values, nested if isinstance(nested, Mapping) else {}):
        for family, kind in kinds:
            if kind.model_type == each.get("model_type"):
                return family, kind
    return None


def convert(values: Mapping[str, Any], tensors: Mapping[str, Stored], folder: str) -> Converted:
    """The model that a config.json and a checkpoint's tensors describe; `folder` begins messages.

    Raises:
        UnsupportedError: a family, an option or a tensor that is not implemented; the message names it.
        ModelError: a figure or a tensor is missing, or they contradict each other.
    """
    found = recognise(values)
    if found is None:
        known = ", ".join(kind.model_type for family in FAMILIES.values() for kind in family.checkpoints)
        raise UnsupportedError(
            f"{folder}/config.json: model_type is {values.get('model_type')!r:.80} "
            f"(architectures: {values.get('architectures')!r:.80}), supported: {known}"
        )
    family, kind = found
    config = _of_text(values, f"{folder}/config.json")
    for key, allowed in kind.only.items():
        config.only(key, *allowed)
    metadata, factors = _metadata(config, kind)
    n_further = config.integer("num_nextn_predict_layers", "num_mtp_layers", default=0, least=0)
    source = Source(tensors, kind, metadata, _fp8_block(config), n_further)
    tied = config.flag("tie_word_embeddings", default=kind.tied)
    prefix = family.architecture
    keys = {"general.architecture": prefix, **{f"{prefix}.{key}": value for key, value in metadata.items()}}
    try:
        if tied:
            source.drop("output")  # where it is there, it is the embedding again
        else:
            source["output.weight"]  # a graph would do without, and take the embedding
        n_vocab = build(keys, source).hyperparameters.n_vocab
        source.refuse_unused()
    except (ModelError, UnsupportedError) as error:
        raise type(error)(f"{folder}: {error}") from error
    return Converted({**keys, f"{prefix}.vocab_size": n_vocab}, source.in_order(), factors, n_vocab)


def _of_text(values: Mapping[str, Any], where: str) -> Config:
    """What config.json says of the part that writes, where others see or hear beside it."""
    nested = values.get("text_config")
    if not isinstance(nested, Mapping):
        return Config(values, where)
    return Config({**values, **nested}, f"{where}: text_config")


def _metadata(config: Config, kind: HuggingFace) -> tuple[dict[str, Any], Floats | None]:
    """Hyperparameters below the architecture's name, and divisors of the rotary frequencies."""
    metadata: dict[str, Any] = {}
    for name, key in {**kind.common, **kind.keys}.items():
        value = None if key is None else _value(config, key)
        if value is not None:
            metadata[name] = value
    window = _window(config, kind, metadata["block_count"])
    if window:
        metadata["attention.sliding_window"] = window
    n_rot = metadata.get("rope.dimension_count")
    if n_rot is None:
        if "attention.key_length" not in metadata:
            return metadata, None
        n_rot = rotated(config, kind.partial_rotary, metadata["attention.key_length"])
    rotation, factors = rope(config, n_rot, factors=kind.rope_factors, raises_scores=kind.raises_scores)
    return metadata | rotation, factors


def _value(config: Config, key: Key) -> Any:
    """What config.json says; None: the file need not state it."""
    match key:
        case Integer(names, default):
            return config.integer(*names, default=default)
        case Number(names, default):
            return config.number(*names, default=default)
        case Flag(names, default, unwritten):
            flag = config.flag(*names, default=default)
            return None if flag is unwritten else flag
        case Computed(make):
            return make(config)
        case _:
            assert_never(key)


def _window(config: Config, kind: HuggingFace, n_layer: int) -> int:
    """How many positions every layer's attention sees; 0 for all."""
    switched = kind.window == "switch" and config.flag("use_sliding_window", default=False)
    if config.get("sliding_window") is None or not (kind.window == "always" or switched):
        return 0
    window = config.integer("sliding_window")
    layers = config.get("layer_types")
    if layers is None and switched:
        first = min(config.integer("max_window_layers", default=0, least=0), n_layer)
        layers = ["full_attention"] * first + ["sliding_attention"] * (n_layer - first)
    kinds = set(layers or ["sliding_attention"])
    if kinds == {"full_attention"}:
        return 0
    if kinds != {"sliding_attention"}:
        raise config.unsupported("layer_types", layers, "the same attention in all layers")
    return window


def _fp8_block(config: Config) -> tuple[int, int]:
    """Rows and columns that share a scale, where the checkpoint is quantised."""
    quantization = config.child("quantization_config")
    method = quantization.get("quant_method")
    if method is None:
        return (0, 0)
    if method == "compressed-tensors":
        quantization.only("format", "float-quantized")
    elif method not in ("fp8", "fbgemm_fp8"):
        raise quantization.unsupported("quant_method", method, "fp8, fbgemm_fp8, compressed-tensors (float)")
    block = quantization.get("weight_block_size")
    if block is None:
        return (0, 0)
    sizes = [whole(size) or 0 for size in block] if isinstance(block, list) else []
    if len(sizes) != 2 or min(sizes) < 1:
        raise quantization.error("weight_block_size", block, "two whole numbers")
    return (sizes[0], sizes[1])
