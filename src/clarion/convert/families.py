"""What each family's checkpoint is called in a GGUF file: hyperparameters and tensors.

A tensor of the checkpoint that no family asks for is an error, and so is one that is missing: nothing is
guessed, and nothing is dropped but what `_IGNORED` names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from clarion.convert.config import Config, rope, whole
from clarion.convert.pieces import Piece, Target
from clarion.convert.stored import Floats, Stored
from clarion.errors import ModelError, UnsupportedError

# Tables that the configuration gives as well, and the scales of activations, which are not rounded here.
_IGNORED = re.compile(r".*\.(rotary_emb\.inv_freq|masked_bias|input_scale|input_scale_ub|activation_scale)")
_SCALES = ("_scale_inv", "_scale")
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Family:
    """How one `model_type` differs from the others.

    Attributes:
        architecture: the name in the file.
        interleaved: neighbouring elements of a head are rotated together, which reorders query and key rows.
        head_norms: query and key heads are normalised.
        experts: what router and expert matrices are called: router, gate, up, down.
        sliding: how the configuration says that attention looks back over a window: "" never, "always" where
            sliding_window is given, "switch" where use_sliding_window is true.
        ternary: projections are rounded to -1, 0 and 1 times a scale, have norms before them, and the
            embedding is the output.
    """

    architecture: str
    interleaved: bool = False
    head_norms: bool = False
    experts: tuple[str, str, str, str] | None = None
    sliding: str = ""
    ternary: bool = False


_MIXTRAL_EXPERT = "block_sparse_moe.experts.{}."
_MIXTRAL = ("block_sparse_moe.gate", _MIXTRAL_EXPERT + "w1", _MIXTRAL_EXPERT + "w3", _MIXTRAL_EXPERT + "w2")
_QWEN_EXPERT = "mlp.experts.{}."
_QWEN = ("mlp.gate", _QWEN_EXPERT + "gate_proj", _QWEN_EXPERT + "up_proj", _QWEN_EXPERT + "down_proj")
FAMILIES = {
    "llama": Family("llama", interleaved=True),
    "mistral": Family("llama", interleaved=True, sliding="always"),
    "mixtral": Family("llama", interleaved=True, sliding="always", experts=_MIXTRAL),
    "qwen2": Family("qwen2", sliding="switch"),
    "qwen3": Family("qwen3", head_norms=True, sliding="switch"),
    "qwen3_moe": Family("qwen3moe", head_norms=True, sliding="switch", experts=_QWEN),
    "bitnet_b1_58": Family("bitnet", ternary=True),
}
# Checkpoints that share their model_type with another family are told by their architecture.
_BY_ARCHITECTURE = {"BitnetForCausalLM": "bitnet_b1_58"}


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


@dataclass(slots=True)
class _Source:
    """The checkpoint's tensors, and which of them were asked for."""

    tensors: Mapping[str, Stored]
    folder: str
    block: tuple[int, int]
    used: set[str] = field(default_factory=set)

    def piece(self, name: str, head_dim: int = 0, ternary: bool = False) -> Piece:
        if name not in self.tensors:
            raise ModelError(f"{self.folder}: tensor {name!r} is missing")
        stored = self.tensors[name]
        scales = [name + suffix for suffix in _SCALES if name + suffix in self.tensors]
        self.used |= {name, *scales}
        if stored.dtype.startswith("F8") and not scales:
            raise ModelError(
                f"{stored.path}: tensor {name!r} holds {stored.dtype}, and {name}_scale is missing"
            )
        if len(scales) > 1 or (scales and not stored.dtype.startswith("F8")):
            raise UnsupportedError(f"{stored.path}: tensor {name!r} holds {stored.dtype} and has {scales}")
        return Piece(stored, self.tensors[scales[0]] if scales else None, self.block, head_dim, ternary)

    def refuse_unused(self) -> None:
        unused = [name for name in self.tensors if name not in self.used and not _IGNORED.fullmatch(name)]
        if unused:
            more = f" and {len(unused) - _SHOWN} more" if len(unused) > _SHOWN else ""
            raise UnsupportedError(
                f"{self.folder}: tensors that this family does not have: "
                f"{', '.join(map(repr, unused[:_SHOWN]))}{more}"
            )


def convert(values: Mapping[str, Any], tensors: Mapping[str, Stored], folder: str) -> Converted:
    """The model that a config.json and a checkpoint's tensors describe; `folder` begins messages.

    Raises:
        UnsupportedError: a family, an option or a tensor that is not implemented; the message names it.
        ModelError: a figure or a tensor is missing, or they contradict each other.
    """
    config = Config(values, f"{folder}/config.json")
    kind, named = config.get("model_type"), config.get("architectures")
    if isinstance(named, list) and len(named) == 1 and isinstance(named[0], str):
        kind = _BY_ARCHITECTURE.get(named[0], kind)
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise UnsupportedError(
            f"{folder}/config.json: model_type is {kind!r:.80} (architectures: {named!r:.80}), "
            f"supported: {', '.join(FAMILIES)}"
        )
    family = FAMILIES[kind]
    config.only("hidden_act", "silu")
    config.only("attention_multiplier", 1, 1.0)
    config.only("partial_rotary_factor", 1, 1.0)
    config.only("decoder_sparse_step", 1)
    config.only("mlp_only_layers", [])
    if family.ternary:
        config.only("tie_word_embeddings", True)
    shape = _Shape.read(config)
    source = _Source(tensors, folder, _fp8_block(config))
    targets = list(_targets(config, family, shape, source))
    source.refuse_unused()
    metadata, factors = _metadata(config, family, shape)
    n_vocab = targets[0].shape[0]
    metadata["vocab_size"] = n_vocab
    prefix = family.architecture
    return Converted(
        {"general.architecture": prefix, **{f"{prefix}.{key}": value for key, value in metadata.items()}},
        targets,
        factors,
        n_vocab,
    )


@dataclass(frozen=True, slots=True)
class _Shape:
    n_layer: int
    n_embd: int
    n_head: int
    n_head_kv: int
    head_dim: int
    n_ff: int

    @classmethod
    def read(cls, config: Config) -> _Shape:
        n_embd, n_head = config.integer("hidden_size"), config.integer("num_attention_heads")
        head_dim = config.integer("head_dim", default=n_embd // n_head)
        if head_dim % 2:
            raise config.error("head_dim", head_dim, "an even number")
        return cls(
            config.integer("num_hidden_layers"),
            n_embd,
            n_head,
            config.integer("num_key_value_heads", default=n_head),
            head_dim,
            config.integer("intermediate_size"),
        )


def _metadata(config: Config, family: Family, shape: _Shape) -> tuple[dict[str, Any], Floats | None]:
    """Hyperparameters below the architecture's name."""
    metadata: dict[str, Any] = {
        "block_count": shape.n_layer,
        "context_length": config.integer("max_position_embeddings"),
        "embedding_length": shape.n_embd,
        "feed_forward_length": shape.n_ff,
        "attention.head_count": shape.n_head,
        "attention.head_count_kv": shape.n_head_kv,
        "attention.key_length": shape.head_dim,
        "attention.value_length": shape.head_dim,
        "attention.layer_norm_rms_epsilon": config.number("rms_norm_eps", 1e-6),
    }
    window = _window(config, family, shape)
    if window:
        metadata["attention.sliding_window"] = window
    if family.experts:
        metadata["expert_count"] = config.integer("num_local_experts", "num_experts")
        metadata["expert_used_count"] = config.integer("num_experts_per_tok")
        if family.architecture == "qwen3moe":
            metadata["expert_feed_forward_length"] = config.integer("moe_intermediate_size")
            if not config.flag("norm_topk_prob", False):
                metadata["expert_weights_norm"] = False
    # Only files of this architecture may hold divisors, as far as others know.
    rotation, factors = rope(config, shape.head_dim, factors=family.architecture == "llama")
    return metadata | rotation, factors


def _window(config: Config, family: Family, shape: _Shape) -> int:
    """How many positions every layer's attention sees; 0 for all."""
    switched = family.sliding == "switch" and config.flag("use_sliding_window", False)
    if config.get("sliding_window") is None or not (family.sliding == "always" or switched):
        return 0
    window = config.integer("sliding_window")
    layers = config.get("layer_types")
    if layers is None and switched:
        first = min(config.integer("max_window_layers", default=0, least=0), shape.n_layer)
        layers = ["full_attention"] * first + ["sliding_attention"] * (shape.n_layer - first)
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


def _targets(config: Config, family: Family, shape: _Shape, source: _Source) -> Iterator[Target]:
    """The tensors in the file's order, the embedding first."""
    n_embd, n_q = shape.n_embd, shape.n_head * shape.head_dim
    n_kv = shape.n_head_kv * shape.head_dim

    def one(name: str, theirs: str, *expected: int, head_dim: int = 0, ternary: bool = False) -> Target:
        target = Target(name, (source.piece(theirs, head_dim, ternary),))
        target.check_shape(expected)
        return target

    def linear(name: str, theirs: str, rows: int, cols: int, head_dim: int = 0) -> Iterator[Target]:
        weight = f"{theirs}.weight"
        yield one(f"{name}.weight", weight, rows, cols, head_dim=head_dim, ternary=family.ternary)
        if f"{theirs}.bias" in source.tensors:
            yield one(f"{name}.bias", f"{theirs}.bias", rows, head_dim=head_dim)

    embedding = Target("token_embd.weight", (source.piece("model.embed_tokens.weight"),))
    n_vocab = embedding.shape[0] if len(embedding.shape) == 2 else 0
    embedding.check_shape((n_vocab, n_embd))
    yield embedding
    permuted = shape.head_dim if family.interleaved else 0
    for i in range(shape.n_layer):
        blk, layer = f"blk.{i}", f"model.layers.{i}"
        attention = f"{layer}.self_attn"
        yield one(f"{blk}.attn_norm.weight", f"{layer}.input_layernorm.weight", n_embd)
        yield from linear(f"{blk}.attn_q", f"{attention}.q_proj", n_q, n_embd, permuted)
        yield from linear(f"{blk}.attn_k", f"{attention}.k_proj", n_kv, n_embd, permuted)
        yield from linear(f"{blk}.attn_v", f"{attention}.v_proj", n_kv, n_embd)
        if family.head_norms:
            yield one(f"{blk}.attn_q_norm.weight", f"{attention}.q_norm.weight", shape.head_dim)
            yield one(f"{blk}.attn_k_norm.weight", f"{attention}.k_norm.weight", shape.head_dim)
        if family.ternary:
            yield one(f"{blk}.attn_sub_norm.weight", f"{attention}.inner_attn_ln.weight", n_q)
            yield one(f"{blk}.ffn_sub_norm.weight", f"{layer}.mlp.ffn_layernorm.weight", shape.n_ff)
        yield from linear(f"{blk}.attn_output", f"{attention}.o_proj", n_embd, n_q)
        yield one(f"{blk}.ffn_norm.weight", f"{layer}.post_attention_layernorm.weight", n_embd)
        if family.experts:
            yield from _experts(config, family.experts, shape, source, blk, layer)
        else:
            yield from linear(f"{blk}.ffn_gate", f"{layer}.mlp.gate_proj", shape.n_ff, n_embd)
            yield from linear(f"{blk}.ffn_up", f"{layer}.mlp.up_proj", shape.n_ff, n_embd)
            yield from linear(f"{blk}.ffn_down", f"{layer}.mlp.down_proj", n_embd, shape.n_ff)
    yield one("output_norm.weight", "model.norm.weight", n_embd)
    if config.flag("tie_word_embeddings", False):
        source.used.add("lm_head.weight")  # where it is there, it is the embedding again
    else:
        yield one("output.weight", "lm_head.weight", n_vocab, n_embd)


def _experts(
    config: Config,
    names: tuple[str, str, str, str],
    shape: _Shape,
    source: _Source,
    blk: str,
    layer: str,
) -> Iterator[Target]:
    n_expert = config.integer("num_local_experts", "num_experts")
    n_ff = config.integer("moe_intermediate_size", default=shape.n_ff)
    router, *matrices = names
    target = Target(f"{blk}.ffn_gate_inp.weight", (source.piece(f"{layer}.{router}.weight"),))
    target.check_shape((n_expert, shape.n_embd))
    yield target
    for kind, theirs in zip(("gate", "up", "down"), matrices, strict=True):
        pieces = (source.piece(f"{layer}.{theirs.format(e)}.weight") for e in range(n_expert))
        target = Target(f"{blk}.ffn_{kind}_exps.weight", tuple(pieces), stacked=True)
        target.check_shape((shape.n_embd, n_ff) if kind == "down" else (n_ff, shape.n_embd))
        yield target
