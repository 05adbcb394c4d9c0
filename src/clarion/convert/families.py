"""A checkpoint's figures and tensors under the names of a GGUF file, as the family's own file says.

Which tensors there must be, and in which shape, the family's graph says: it is built from the checkpoint, as
it will be from the file. A tensor that the graph does not ask for is an error, and so is one that is missing:
nothing is guessed, and nothing is dropped but what `_IGNORED` names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, assert_never

from clarion.convert.config import Config, rope, whole
from clarion.convert.pieces import Piece, Target
from clarion.convert.stored import Floats, Stored
from clarion.errors import ModelError, UnsupportedError
from clarion.gguf import Format, format_named
from clarion.models import FAMILIES, Family, build
from clarion.models.family import TENSORS, Flag, HuggingFace, Integer, Key, Number
from clarion.plan.ir import Tensor

# Tables that the configuration gives as well, and the scales of activations, which are not rounded here.
_IGNORED = re.compile(r".*\.(rotary_emb\.inv_freq|masked_bias|input_scale|input_scale_ub|activation_scale)")
_SCALES = ("_scale_inv", "_scale")
_SHOWN = 5
_F32, _NO_BYTES = format_named("F32"), memoryview(b"")
_NAME = re.compile(r"(?:blk\.(?P<layer>\d+)\.)?(?P<stem>\w+)\.(?P<leaf>\w+)")  # of a tensor of a file


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
    """What the checkpoint of a config.json is; None: no family reads it."""
    kinds = [(family, kind) for family in FAMILIES.values() for kind in family.checkpoints]
    named = values.get("architectures")
    for family, kind in kinds:
        if kind.architecture and named == [kind.architecture]:
            return family, kind
    model_type = values.get("model_type")
    return next(((family, kind) for family, kind in kinds if kind.model_type == model_type), None)


def convert(values: Mapping[str, Any], tensors: Mapping[str, Stored], folder: str) -> Converted:
    """The model that a config.json and a checkpoint's tensors describe; `folder` begins messages.

    Raises:
        UnsupportedError: a family, an option or a tensor that is not implemented; the message names it.
        ModelError: a figure or a tensor is missing, or they contradict each other.
    """
    config = Config(values, f"{folder}/config.json")
    found = recognise(values)
    if found is None:
        known = ", ".join(kind.model_type for family in FAMILIES.values() for kind in family.checkpoints)
        raise UnsupportedError(
            f"{folder}/config.json: model_type is {values.get('model_type')!r:.80} "
            f"(architectures: {values.get('architectures')!r:.80}), supported: {known}"
        )
    family, kind = found
    for key, allowed in kind.only.items():
        config.only(key, *allowed)
    metadata, factors = _metadata(config, kind)
    source = _Source(tensors, kind, metadata, _fp8_block(config))
    prefix = family.architecture
    keys = {"general.architecture": prefix, **{f"{prefix}.{key}": value for key, value in metadata.items()}}
    try:
        if config.flag("tie_word_embeddings", default=False):
            source.drop("output")  # where it is there, it is the embedding again
        else:
            source["output.weight"]  # a graph would do without, and take the embedding
        n_vocab = build(keys, source).hyperparameters.n_vocab
        source.refuse_unused()
    except (ModelError, UnsupportedError) as error:
        raise type(error)(f"{folder}: {error}") from error
    return Converted({**keys, f"{prefix}.vocab_size": n_vocab}, source.in_order(), factors, n_vocab)


@dataclass(frozen=True, slots=True)
class _Shape:
    """A target as a graph sees tensors: no bytes, and a format that any operation reads."""

    name: str
    shape: tuple[int, ...]
    format: Format = _F32
    view: memoryview = _NO_BYTES


class _Source(Mapping[str, Tensor]):
    """The checkpoint's tensors by the names of the file, as a graph asks for them; it remembers for which."""

    def __init__(
        self,
        tensors: Mapping[str, Stored],
        kind: HuggingFace,
        metadata: Mapping[str, Any],
        block: tuple[int, int],
    ) -> None:
        self._tensors = tensors
        self._kind = kind
        self._metadata = metadata
        self._block = block
        self._names = {**TENSORS, **kind.tensors}
        self._targets: dict[str, Target] = {}
        self._used: set[str] = set()

    def __contains__(self, name: object) -> bool:
        theirs = self._theirs(str(name))
        return theirs is not None and theirs.format(expert=0) in self._tensors

    def __getitem__(self, name: str) -> Tensor:
        """Raises ModelError if the checkpoint lacks it, and KeyError if the family names no such tensor."""
        theirs = self._theirs(name)
        if theirs is None:
            raise KeyError(name)
        if name not in self._targets:
            stem = name.rsplit(".", 2)[-2]
            self._targets[name] = self._target(name, stem, theirs)
        target = self._targets[name]
        return _Shape(theirs, target.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def __len__(self) -> int:
        return len(self._targets)

    def drop(self, stem: str) -> None:
        """Takes the tensors of this name away, whether they are there or not."""
        self._used.add(f"{self._names.pop(stem)}.weight")

    def in_order(self) -> list[Target]:
        """The targets that were asked for, in the file's order: what lies before the layers, each layer, the
        rest."""
        stems = list(self._names)
        first = next(i for i, theirs in enumerate(self._names.values()) if "{layer}" in theirs)

        def place(name: str) -> tuple[float, int, bool]:
            match = _NAME.fullmatch(name)
            assert match
            index = stems.index(match["stem"])
            outside = -1 if index < first else float("inf")
            return (
                outside if match["layer"] is None else int(match["layer"]),
                index,
                match["leaf"] == "bias",
            )

        return [self._targets[name] for name in sorted(self._targets, key=place)]

    def refuse_unused(self) -> None:
        """Raises UnsupportedError if the checkpoint has tensors that nobody asked for."""
        unused = [name for name in self._tensors if name not in self._used and not _IGNORED.fullmatch(name)]
        if unused:
            more = f" and {len(unused) - _SHOWN} more" if len(unused) > _SHOWN else ""
            raise UnsupportedError(
                f"tensors that this family does not have: {', '.join(map(repr, unused[:_SHOWN]))}{more}"
            )

    def _theirs(self, name: str) -> str | None:
        """What the checkpoint calls a tensor, with `{expert}` where it has one for each."""
        match = _NAME.fullmatch(name)
        theirs = self._names.get(match["stem"]) if match else None
        if match is None or theirs is None or ("{layer}" in theirs) != (match["layer"] is not None):
            return None
        return f"{theirs.replace('{layer}', match['layer'] or '')}.{match['leaf']}"

    def _target(self, name: str, stem: str, theirs: str) -> Target:
        head_dim = self._metadata["attention.key_length"] if stem in self._kind.interleaved else 0
        ternary = stem in self._kind.ternary and name.endswith(".weight")
        if "{expert}" not in theirs:
            return Target(name, (self._piece(theirs, head_dim, ternary),))
        each = (theirs.format(expert=e) for e in range(self._metadata["expert_count"]))
        pieces = tuple(self._piece(one, head_dim, ternary) for one in each)
        expected = pieces[0].stored.shape
        for piece in pieces:
            if piece.stored.shape != expected:
                raise ModelError(
                    f"{piece.stored.path.name}: tensor {piece.stored.name!r} has shape "
                    f"{list(piece.stored.shape)}, the first expert's has {list(expected)}"
                )
        return Target(name, pieces, stacked=True)

    def _piece(self, name: str, head_dim: int, ternary: bool) -> Piece:
        if name not in self._tensors:
            raise ModelError(f"tensor {name!r} is missing")
        stored = self._tensors[name]
        scales = [name + suffix for suffix in _SCALES if name + suffix in self._tensors]
        self._used |= {name, *scales}
        if stored.dtype.startswith("F8") and not scales:
            raise ModelError(
                f"{stored.path.name}: tensor {name!r} holds {stored.dtype}, and {name}_scale is missing"
            )
        if len(scales) > 1 or (scales and not stored.dtype.startswith("F8")):
            raise UnsupportedError(
                f"{stored.path.name}: tensor {name!r} holds {stored.dtype} and has {scales}"
            )
        return Piece(stored, self._tensors[scales[0]] if scales else None, self._block, head_dim, ternary)


def _metadata(config: Config, kind: HuggingFace) -> tuple[dict[str, Any], Floats | None]:
    """Hyperparameters below the architecture's name, and divisors of the rotary frequencies."""
    n_embd, n_head = config.integer("hidden_size"), config.integer("num_attention_heads")
    head_dim = config.integer("head_dim", default=n_embd // n_head)
    if head_dim % 2:
        raise config.error("head_dim", head_dim, "an even number")
    n_layer = config.integer("num_hidden_layers")
    metadata: dict[str, Any] = {
        "block_count": n_layer,
        "context_length": config.integer("max_position_embeddings"),
        "embedding_length": n_embd,
        "feed_forward_length": config.integer("intermediate_size"),
        "attention.head_count": n_head,
        "attention.head_count_kv": config.integer("num_key_value_heads", default=n_head),
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "attention.layer_norm_rms_epsilon": config.number("rms_norm_eps", default=1e-6),
    }
    window = _window(config, kind, n_layer)
    if window:
        metadata["attention.sliding_window"] = window
    for name, key in kind.keys.items():
        value = _value(config, key)
        if value is not None:
            metadata[name] = value
    rotation, factors = rope(config, head_dim, factors=kind.rope_factors)
    return metadata | rotation, factors


def _value(config: Config, key: Key) -> float | bool | None:
    """What config.json says; None: the file need not state it."""
    match key:
        case Integer(names, default):
            return config.integer(*names, default=default)
        case Number(names, default):
            return config.number(*names, default=default)
        case Flag(names, default, unwritten):
            flag = config.flag(*names, default=default)
            return None if flag is unwritten else flag
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
