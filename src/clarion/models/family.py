"""What a family's file says of it: how its graph is built, and which checkpoints become files of it.

Checkpoints are those of Hugging Face's transformers. What is the same in nearly all of them stands here once,
and a family gives what differs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self

from clarion.models.keys import Keys
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Graph

LAYER = "model.layers.{layer}."
EXPERT = LAYER + "mlp.experts.{expert}."
# A checkpoint's names by those of the file, in the file's order. Names in a layer stand below `blk.<layer>`.
TENSORS: dict[str, Name] = {
    "token_embd": "model.embed_tokens",
    "attn_norm": LAYER + "input_layernorm",
    "attn_q": LAYER + "self_attn.q_proj",
    "attn_k": LAYER + "self_attn.k_proj",
    "attn_v": LAYER + "self_attn.v_proj",
    "attn_q_norm": LAYER + "self_attn.q_norm",
    "attn_k_norm": LAYER + "self_attn.k_norm",
    "attn_sub_norm": LAYER + "self_attn.attn_sub_norm",
    "ffn_sub_norm": LAYER + "mlp.ffn_sub_norm",
    "attn_output": LAYER + "self_attn.o_proj",
    "ffn_norm": LAYER + "post_attention_layernorm",
    "ffn_gate": LAYER + "mlp.gate_proj",
    "ffn_up": LAYER + "mlp.up_proj",
    "ffn_down": LAYER + "mlp.down_proj",
    "ffn_gate_inp": LAYER + "mlp.gate",
    "ffn_gate_exps": EXPERT + "gate_proj",
    "ffn_up_exps": EXPERT + "up_proj",
    "ffn_down_exps": EXPERT + "down_proj",
    "output_norm": "model.norm",
    "output": "lm_head",
}
PROJECTIONS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


class Settings(Protocol):
    """A config.json, or an object in one, as `clarion.convert.config.Config` reads it: the first of the keys
    that is there and not null counts, and errors name it."""

    def get(self, *keys: str) -> Any: ...
    def integer(self, *keys: str, default: int | None = None, least: int = 1) -> int: ...
    def number(self, *keys: str, default: float | None = None) -> float: ...
    def flag(self, *keys: str, default: bool | None = None) -> bool: ...
    def child(self, key: str) -> Self: ...
    def only(self, key: str, *allowed: object) -> None: ...
    def error(self, key: str, found: object, expected: str) -> Exception: ...
    def unsupported(self, key: str, found: object, supported: str) -> Exception: ...


@dataclass(frozen=True, slots=True)
class Part:
    """Where a checkpoint has a tensor of the file in another form than under a name of its own.

    Attributes:
        name: of the stored tensor, as in `TENSORS`.
        index, count: which of how many equal parts of its rows; of a matrix for each expert, of each one's.
        interleaved: a part is every `count`-th row, from `index` on; else rows that follow each other.
        parameter: the weight has exactly this name, without `.weight`, and the bias `_bias` after it.
        transposed: unless it is quantised, rows and columns are exchanged there.
    """

    name: str
    index: int = 0
    count: int = 1
    interleaved: bool = False
    parameter: bool = False
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class Made:
    """A tensor of the file that is made of one of the checkpoint.

    Attributes:
        theirs: the checkpoint's complete name, as `model.layers.{layer}.linear_attn.A_log`.
        make: gives the file's values of the file's hyperparameters, by their names below the architecture's,
            and the checkpoint's values, all of them at once. It takes values of any type, for it also tells
            the shape. None: nothing changes.
        each: a stack of matrices, each of which is made apart, so that only one of them is in memory.
    """

    theirs: str
    make: Callable[[Mapping[str, Any], Any], Any] | None = None
    each: bool = False


Name = str | Part | Made | tuple[str | Made, ...]


def plus_one(metadata: Mapping[str, Any], x: Any) -> Any:
    """For `Made`: norms whose checkpoints hold by how much the gain exceeds 1."""
    return x + 1


def minus_exp(metadata: Mapping[str, Any], x: Any) -> Any:
    """For `Made`: numbers below zero whose checkpoints hold the logarithm of their magnitude."""
    import numpy as np  # conversions alone need it: a model loads without

    return -np.exp(x)


def half(number: int) -> Callable[[Mapping[str, Any], Any], Any]:
    """For `Made`: the first (0) or the second (1) half of rows."""
    return lambda metadata, x: x[number * (len(x) // 2) :][: len(x) // 2]


_STACKED = LAYER + "mlp.experts."
# Experts whose matrices are one tensor each, or one for all of them.
STACKED_EXPERTS: dict[str, Name] = {
    "ffn_gate_exps.weight": (
        EXPERT + "gate_proj.weight",
        Made(_STACKED + "gate_up_proj", half(0), each=True),
    ),
    "ffn_up_exps.weight": (EXPERT + "up_proj.weight", Made(_STACKED + "gate_up_proj", half(1), each=True)),
    "ffn_down_exps.weight": (EXPERT + "down_proj.weight", _STACKED + "down_proj"),
}


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number of config.json, from `least`. Of its names there, the first that is there and not null
    counts; without a default it is required."""

    names: tuple[str, ...]
    default: int | None = None
    least: int = 1


@dataclass(frozen=True, slots=True)
class Number:
    """A number above zero, as `Integer`; files state its power `exponent`, or `otherwise` where config.json
    has none."""

    names: tuple[str, ...]
    default: float | None = None
    exponent: float = 1.0
    otherwise: float | None = None


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false, as `Integer`; the file need not state `unwritten`."""

    names: tuple[str, ...]
    default: bool | None = None
    unwritten: bool | None = None


@dataclass(frozen=True, slots=True)
class Computed:
    """What a function makes of config.json; None: the file need not state it."""

    make: Callable[[Settings], Any]


Key = Integer | Number | Flag | Computed


def head_size(config: Settings) -> int:
    """The elements of a head."""
    size = config.integer(
        "head_dim", default=config.integer("hidden_size") // config.integer("num_attention_heads")
    )
    if size % 2:
        raise config.error("head_dim", size, "an even number")
    return size


# The hyperparameters that the files of all transformers have.
DECODER_KEYS: dict[str, Key] = {
    "block_count": Integer(("num_hidden_layers",)),
    "context_length": Integer(("max_position_embeddings",)),
    "embedding_length": Integer(("hidden_size",)),
    "feed_forward_length": Integer(("intermediate_size",)),
    "attention.head_count": Integer(("num_attention_heads",)),
    "attention.head_count_kv": Computed(
        lambda config: config.integer("num_key_value_heads", default=config.integer("num_attention_heads"))
    ),
    "attention.key_length": Computed(head_size),
    "attention.value_length": Computed(head_size),
    "attention.layer_norm_rms_epsilon": Number(("rms_norm_eps",), 1e-6),
}


def _labels(config: Settings) -> list[str] | None:
    """The names of what a classifier gives scores for, where somebody named them."""
    labels = config.get("id2label")
    names = list(labels.values()) if isinstance(labels, Mapping) else []
    return names if names and not all(str(name).startswith("LABEL_") for name in names) else None


def _ranks(config: Settings) -> int | None:
    """The file's number for a model whose vectors are classified; None: it is not one."""
    named = config.get("architectures")
    classifies = isinstance(named, list) and any("SequenceClassification" in str(name) for name in named)
    return 4 if classifies else None


# What the files of all encoders have in their place.
ENCODER_KEYS: dict[str, Key] = {
    **DECODER_KEYS,
    "attention.layer_norm_epsilon": Number(("layer_norm_eps", "layer_norm_epsilon", "norm_eps")),
    "attention.causal": Computed(lambda config: False),
    "pooling_type": Computed(_ranks),
    "classifier.output_labels": Computed(_labels),
}
del ENCODER_KEYS["attention.layer_norm_rms_epsilon"], ENCODER_KEYS["attention.head_count_kv"]
# The names of BERT's checkpoints.
ENCODER_TENSORS: dict[str, Name] = {
    "token_embd": "model.embeddings.word_embeddings",
    "position_embd": "model.embeddings.position_embeddings",
    "token_types": "model.embeddings.token_type_embeddings",
    "token_embd_norm": "model.embeddings.LayerNorm",
}
EXPERT_KEYS: dict[str, Key] = {
    "expert_count": Integer(("num_local_experts", "num_experts")),
    "expert_used_count": Integer(("num_experts_per_tok",)),
}
# The only values of these keys that are implemented, where config.json has them.
ONLY: dict[str, tuple[object, ...]] = {
    "hidden_act": ("silu",),
    "attention_multiplier": (1,),
    "decoder_sparse_step": (1,),
    "mlp_only_layers": ([],),
}


@dataclass(frozen=True, slots=True)
class HuggingFace:
    """One kind of checkpoint of Hugging Face's, and how it becomes a file of the family.

    Attributes:
        model_type: what config.json calls it.
        architecture: the one name in `architectures` that tells it as well, whatever the model_type is.
        roots: what the names begin with, in the place of `model.`: the first that the checkpoint has.
        beside: what the names of parts begin with that see or hear, or predict further tokens, and are left
            out.
        tensors: the names that are not those of `TENSORS`, or how tensors are made of the checkpoint's. What
            has a key of its own (`ssm_dt.bias`, or `ssm_a`, which has no leaf) is called as that says, any
            other `ssm_dt.weight` as `ssm_dt` says. Of several names the first that the checkpoint has counts.
        keys: the file's hyperparameters beside those of `common`, by their name in the file; None: no such.
        common: those that all decoders have.
        only: the values that are implemented, by key of config.json.
        interleaved: what belongs to heads of which the file rotates neighbouring elements together, and the
            checkpoint halves: its rows are reordered.
        ternary: the matrices that are rounded to -1, 0 and 1 times their mean magnitude.
        window: when attention looks back over `sliding_window` positions: never, always where that is given,
            where `use_sliding_window` is true, or in the layers that `layer_types` names.
        period: of the last kind of window, every so many-th layer looks back over everything where
            config.json does not say, and files need not say; 0: both must.
        unrotated: every so many-th layer does not rotate; config.json may only say the same. 0: all do.
        partial_rotary: the part of a head that is rotated where config.json does not say; None: it must be 1.
        raises_scores: YaRN raises the scores by `mscale_all_dim`, in place of the rotated pairs.
        yarn_truncates: whether the ends of YaRN's ramp are whole pairs.
        tied: whether the embedding is the head where config.json does not say.
        writes: whether there is a head that makes text.
        rope_base: the base of the rotation where config.json does not say.
        rotates: whether positions are rotated.
        rope_factors: the kind of scaling that files state as divisors of the rotation's frequencies.
        words: the pre-tokenizer, as files call it, where the checkpoint has no tokenizer.json.
    """

    model_type: str
    architecture: str = ""
    roots: tuple[str, ...] = ("model.",)
    beside: tuple[str, ...] = ()
    tensors: Mapping[str, Name] = field(default_factory=dict)
    keys: Mapping[str, Key | None] = field(default_factory=dict)
    common: Mapping[str, Key] = field(default_factory=lambda: DECODER_KEYS)
    only: Mapping[str, tuple[object, ...]] = field(default_factory=lambda: ONLY)
    interleaved: tuple[str, ...] = ()
    ternary: tuple[str, ...] = ()
    window: Literal["never", "always", "switch", "layers"] = "never"
    period: int = 0
    unrotated: int = 0
    partial_rotary: float | None = None
    raises_scores: bool = False
    yarn_truncates: bool = True
    tied: bool = False
    writes: bool = True
    rope_base: float = 10000.0
    rotates: bool = True
    rope_factors: Literal["", "llama3", "longrope", "proportional"] = ""
    words: str = "gpt-2"


@dataclass(frozen=True, slots=True)
class Family:
    """A family of models.

    Attributes:
        architecture: `general.architecture` of its files.
        build: the graph that a file's hyperparameters and tensors describe; see `clarion.models.build`.
        checkpoints: what is converted to such files.
    """

    architecture: str
    build: Callable[[Keys, Checkpoint], Graph]
    checkpoints: tuple[HuggingFace, ...] = ()
