"""A checkpoint's figures and tensors under the names of a GGUF file, as the family's own file says.

Which tensors there must be, and in which shape, the family's graph says: it is built from the checkpoint, as
it will be from the file. A tensor that the graph does not ask for is an error, and so is one that is missing:
nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, assert_never

from clarion.convert import quantization
from clarion.convert.config import Config
from clarion.convert.pieces import Target
from clarion.convert.rotation import Factors, rope
from clarion.convert.source import Source
from clarion.convert.stored import Stored
from clarion.errors import ModelError, UnsupportedError
from clarion.models import FAMILIES, Family, build
from clarion.models.family import Computed, Flag, HuggingFace, Integer, Key, Number
from clarion.models.hyperparameters import Windows


@dataclass(frozen=True, slots=True)
class Converted:
    """Everything of a model but its tokenizer.

    Attributes:
        metadata: hyperparameters, keys complete.
        targets: the tensors, in the file's order.
        rope_factors: divisors of the rotary frequencies, by the names of their tensors.
        n_vocab: rows of the embedding.
    """

    metadata: dict[str, Any]
    targets: list[Target]
    rope_factors: Factors
    n_vocab: int


def recognise(values: Mapping[str, Any]) -> tuple[Family, HuggingFace] | None:
    """What the checkpoint of a config.json is, or the part of it that writes; None: no family reads it."""
    kinds = [(family, kind) for family in FAMILIES.values() for kind in family.checkpoints]
    nested = values.get("text_config")
    for each in (values, nested if isinstance(nested, Mapping) else {}):
        named, model_type = each.get("architectures"), each.get("model_type")
        for family, kind in kinds:
            if kind.architecture and named == [kind.architecture]:
                return family, kind
        for family, kind in kinds:
            if kind.model_type == model_type:
                return family, kind
    return None


def convert(
    values: Mapping[str, Any],
    tensors: Mapping[str, Stored],
    folder: str,
    change: Callable[[HuggingFace], HuggingFace] | None = None,
) -> Converted:
    """The model that a config.json and a checkpoint's tensors describe; `folder` begins messages.

    change: gives the kind of checkpoint as it is to be read, where config.json does not say all.

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
    kind = change(kind) if change else kind
    config = _of_text(values, f"{folder}/config.json")
    for key, allowed in kind.only.items():
        config.only(key, *allowed)
    metadata, factors = _metadata(config, kind)
    n_further = config.integer("num_nextn_predict_layers", "num_mtp_layers", default=0, least=0)
    source = Source(tensors, kind, metadata, quantization.read(config), n_further)
    tied = config.flag("tie_word_embeddings", default=kind.tied)
    prefix = family.architecture
    keys = {"general.architecture": prefix, **{f"{prefix}.{key}": value for key, value in metadata.items()}}
    try:
        source.refuse_other_methods()
        if tied or not kind.writes:
            source.drop("output")  # where it is there, it is the embedding again
        else:
            source["output.weight"]  # a graph would do without, and take the embedding
        n_vocab = build(keys, source).hyperparameters.n_vocab
        source.refuse_unused()
    except (ModelError, UnsupportedError) as error:
        if str(error).startswith(f"{folder}/"):  # it names the file already
            raise
        raise type(error)(f"{folder}: {error}") from error
    return Converted({**keys, f"{prefix}.vocab_size": n_vocab}, source.in_order(), factors, n_vocab)


def _of_text(values: Mapping[str, Any], where: str) -> Config:
    """What config.json says of the part that writes, where others see or hear beside it."""
    nested = values.get("text_config")
    if not isinstance(nested, Mapping):
        return Config(values, where)
    return Config({**values, **nested}, f"{where}: text_config")


def _metadata(config: Config, kind: HuggingFace) -> tuple[dict[str, Any], Factors]:
    """Hyperparameters below the architecture's name, and divisors of the rotary frequencies."""
    metadata: dict[str, Any] = {}
    for name, key in {**kind.common, **kind.keys}.items():
        value = None if key is None else _value(config, key)
        if value is not None:
            metadata[name] = value
    metadata |= _windows(config, kind, metadata["block_count"])
    _check_unrotated(config, kind, metadata["block_count"])
    head_dim = metadata.get("attention.key_length")
    if head_dim is None or not kind.rotates:
        return metadata, {}
    rotation, factors = rope(config, kind, head_dim, metadata.get("rope.dimension_count"))
    return metadata | rotation, factors


def _value(config: Config, key: Key) -> Any:
    """What config.json says; None: the file need not state it."""
    match key:
        case Integer(names, default, least):
            return config.integer(*names, default=default, least=least)
        case Number(names, default, exponent, otherwise):
            if otherwise is not None and config.get(*names) is None:
                return otherwise
            return config.number(*names, default=default) ** exponent
        case Flag(names, default, unwritten):
            flag = config.flag(*names, default=default)
            return None if flag is unwritten else flag
        case Computed(make):
            return make(config)
        case _:
            assert_never(key)


def _check_unrotated(config: Config, kind: HuggingFace, n_layer: int) -> None:
    """Raises UnsupportedError where other layers than in files do not rotate."""
    if kind.unrotated:
        rotated = [int(i % kind.unrotated != kind.unrotated - 1) for i in range(n_layer)]
        if config.get("no_rope_layers") is None:
            config.only("no_rope_layer_interval", kind.unrotated)
        config.only("no_rope_layers", rotated)


def _windows(config: Config, kind: HuggingFace, n_layer: int) -> dict[str, Any]:
    """Metadata that says which layers look back over how many positions."""
    if kind.window != "layers":
        window = _window(config, kind, n_layer)
        return {"attention.sliding_window": window} if window else {}
    usual = Windows(kind.period or 1).flags(n_layer)
    named = config.get("layer_types")
    period = config.integer("sliding_window_pattern", default=kind.period or 1)
    windowed = Windows(period).flags(n_layer)
    if named is not None:
        names = ("full_attention", "sliding_attention")
        if not isinstance(named, list) or len(named) < n_layer or not set(named) <= set(names):
            raise config.unsupported("layer_types", named, f"{' or '.join(names)} for each layer")
        windowed = [name == "sliding_attention" for name in named[:n_layer]]
    if config.get("sliding_window") is None or not any(windowed):
        return {"attention.sliding_window": 0} if kind.period else {}
    metadata: dict[str, Any] = {"attention.sliding_window": config.integer("sliding_window")}
    if windowed != usual or not kind.period:
        metadata["attention.sliding_window_pattern"] = windowed
    return metadata


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
