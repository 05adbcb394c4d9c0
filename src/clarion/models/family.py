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
TENSORS = {
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


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number of config.json, from `least`. Of its names there, the first that is there and not null
    counts; without a default it is required, unless it is optional: then the file need not state it."""

    names: tuple[str, ...]
    default: int | None = None
    least: int = 1
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Number:
    """A number above zero, as `Integer`; files state its power `exponent`."""

    names: tuple[str, ...]
    default: float | None = None
    exponent: float = 1.0
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false, as `Integer`; the file need not state `unwritten`."""

    names: tuple[str, ...]
    default: bool | None = None
    unwritten: bool | None = None


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
class Computed:
    """What a function makes of config.json; None: the file need not state it."""

    make: Callable[[Settings], Any]


Key = Integer | Number | Flag | Computed

EXPERT_KEYS: dict[str, Key] = {
    "expert_count": Integer(("num_local_experts", "num_experts")),
    "expert_used_count": Integer(("num_experts_per_tok",)),
}
# The only values of these keys that are implemented, where config.json has them.
ONLY: dict[str, tuple[object, ...]] = {
    "hidden_act": ("silu",),
    "attention_multiplier": (1,),
    "partial_rotary_factor": (1,),
    "decoder_sparse_step": (1,),
    "mlp_only_layers": ([],),
}


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
class HuggingFace:
    """One kind of checkpoint of Hugging Face's, and how it becomes a file of the family.

    Attributes:
        model_type: what config.json calls it.
        architecture: the one name in `architectures` that tells it as well, whatever the model_type is.
        roots: what the names begin with, in the place of `model.`: the first that the checkpoint has.
        beside: what the names of parts begin with that see or hear, and are left out.
        tensors: the names that are not those of `TENSORS`, or the parts of stored tensors. A name of the file
            may be one of a single tensor, as `ffn_gate_inp.scale`.
        keys: the file's hyperparameters beside those that all decoders have, by their name in the file.
        only: the values that are implemented, by key of config.json.
        interleaved: what belongs to heads of which the file rotates neighbouring elements together, and the
            checkpoint halves: its rows are reordered.
        ternary: the matrices that are rounded to -1, 0 and 1 times their mean magnitude.
        plus_one: the vectors that the checkpoint has less 1.
        window: when attention looks back over `sliding_window` positions: never, always where that is given,
            where `use_sliding_window` is true, or in the layers that `layer_types` names.
        period: of the last kind of window, every so many-th layer looks back over everything where
            config.json does not say, and files need not say; 0: both must.
        unrotated: every so many-th layer does not rotate; config.json may only say the same. 0: all do.
        partial_rotary: the part of a head that is rotated where config.json does not say; None: it must be 1.
        yarn_truncates: whether the ends of YaRN's ramp are whole pairs.
        tied: whether the embedding is the head where config.json does not say.
        rope_base: the base of the rotation where config.json does not say.
        rope_factors: the kind of scaling that files state as divisors of the rotation's frequencies.
        words: the pre-tokenizer, as files call it, where the checkpoint has no tokenizer.json.
    """

    model_type: str
    architecture: str = ""
    roots: tuple[str, ...] = ("model.",)
    beside: tuple[str, ...] = ()
    tensors: Mapping[str, str | Part] = field(default_factory=dict)
    keys: Mapping[str, Key] = field(default_factory=dict)
    only: Mapping[str, tuple[object, ...]] = field(default_factory=lambda: ONLY)
    interleaved: tuple[str, ...] = ()
    ternary: tuple[str, ...] = ()
    plus_one: tuple[str, ...] = ()
    window: Literal["never", "always", "switch", "layers"] = "never"
    period: int = 0
    unrotated: int = 0
    partial_rotary: float | None = None
    yarn_truncates: bool = True
    tied: bool = False
    rope_base: float = 10000.0
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
