"""Hyperparameters as a file states them, each read by its name below the architecture's.

Nothing is guessed: a key that no family reads is refused, unless its value means "not used".
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from typing import overload

from clarion.errors import ModelError, UnsupportedError
from clarion.plan.ir import Tensor
from clarion.plan.output import Output

# Keys without effect on the arithmetic here, whatever their value: notes on the file's origin, and which
# pairs of a rotation turn by which coordinate of a picture's part: a text's have the same in all of them.
_NOTES = frozenset({"rope.dimension_sections", "rope.scaling.finetuned", "tensor_data_layout"})

# Keys that families here do not implement, and the values with which they change nothing.
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0,),
    "attention.max_alibi_bias": (0,),
    "attn_logit_softcapping": (0,),
    "embedding_scale": (0, 1),
    "expert_count": (0,),
    "expert_feed_forward_length": (0,),
    "expert_gating_func": (0, 1),  # none stated, softmax
    "expert_group_count": (0, 1),
    "expert_group_used_count": (0, 1),
    "expert_shared_count": (0,),
    "expert_shared_feed_forward_length": (0,),
    "expert_used_count": (0,),
    "expert_weights_scale": (0, 1),
    "final_logit_softcapping": (0,),
    "leading_dense_block_count": (0,),
    "logit_scale": (0, 1),
    "residual_scale": (0, 1),
    "rope.scaling.yarn_attn_factor": (1,),
    "rope.scaling.yarn_ext_factor": (1,),
    "rope.scaling.yarn_log_multiplier": (0,),
    "router_logit_softcapping": (0,),
    "use_parallel_residual": (False,),
}


TOKEN_TYPES = "tokenizer.ggml.token_type_count"
TYPES_TENSOR = "token_types.weight"  # a row for each type of tokens


def n_token_types(tensors: Mapping[str, Tensor]) -> int:
    """How many types of tokens a model was trained with: queries' and documents', where it judges pairs."""
    tensor = tensors.get(TYPES_TENSOR)
    return 1 if tensor is None else tensor.shape[0]


shown = reprlib.repr  # values come from the file: at most a line of them


class Keys:
    """The metadata below `architecture.`; remembers what was read.

    Attributes:
        output: what the caller wants of the model; None: what the file is made for.
        context: the longest sequence that the graph is wanted for; None: the model's own.
    """

    def __init__(
        self, metadata: Mapping[str, object], *, output: Output | None = None, context: int | None = None
    ) -> None:
        self.output = output
        self.architecture = str(metadata["general.architecture"])
        self.context = context
        self._metadata = metadata
        self._read: set[str] = set()

    def name(self, key: str) -> str:
        """The key as it stands in the file."""
        return f"{self.architecture}.{key}"

    def __contains__(self, key: str) -> bool:
        return self.name(key) in self._metadata

    def integer(self, key: str, default: int | None = None, minimum: int = 1) -> int:
        """A whole number; required where there is no default. A list is accepted where all layers agree.

        Raises:
            ModelError: missing, not a whole number, or below `minimum`.
            UnsupportedError: a list with a different value for some layers.
        """
        value = self._get(key, default)
        if isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0:
            if any(item != value[0] for item in value):
                raise UnsupportedError(
                    f"{self.name(key)} is {shown(list(value))}: layers that differ are not supported"
                )
            value = value[0]
        return self._integer(key, value, minimum)

    def integers(self, key: str, n: int, default: int | None = None, minimum: int = 0) -> tuple[int, ...]:
        """A whole number for each of n layers: a list of them, or one for all; required where there is no
        default.

        Raises:
            ModelError: missing, not as many whole numbers as layers, or one below `minimum`.
        """
        value = self._get(key, default)
        return tuple(self._integer(key, item, minimum) for item in self._each(key, value, n))

    def numbers(self, key: str, n: int, default: float | None = None) -> tuple[float, ...]:
        """A finite number for each of n layers, as `integers`."""
        found = []
        for item in self._each(key, self._get(key, default), n):
            if isinstance(item, bool) or not isinstance(item, int | float) or not math.isfinite(item):
                raise ModelError(f"{self.name(key)} holds {shown(item)}, expected finite numbers")
            found.append(float(item))
        return tuple(found)

    def flags(self, key: str, n: int, default: Sequence[bool], *, first: bool = False) -> tuple[bool, ...]:
        """True or false for each of n layers. A number p in the file stands for a pattern: of each p layers
        the last one, or the first where so, is false, and the others are true; all are where p is 0.

        Raises:
            ModelError: anything else.
        """
        value = self._value(self.name(key), None)
        self._read.add(key)
        if value is None:
            return tuple(default)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            odd = 0 if first else value - 1
            return tuple(value == 0 or layer % value != odd for layer in range(n))
        found = tuple(self._each(key, value, n))
        if not all(isinstance(item, bool) or item in (0, 1) for item in found):
            raise ModelError(f"{self.name(key)} is {shown(value)}, expected true or false for each layer")
        return tuple(map(bool, found))

    def number(self, key: str, default: float | None = None, *, positive: bool = True) -> float:
        """A finite number, above zero if `positive`; required where there is no default.

        Raises:
            ModelError: missing or out of range.
        """
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ModelError(f"{self.name(key)} is {shown(value)}, expected a finite number")
        if value < 0 or (positive and value == 0):
            raise ModelError(f"{self.name(key)} is {shown(value)}, expected a positive number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false.

        Raises:
            ModelError: anything else.
        """
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise ModelError(f"{self.name(key)} is {shown(value)}, expected true or false")
        return value

    @overload
    def text(self, key: str, default: str) -> str: ...
    @overload
    def text(self, key: str, default: None) -> str | None: ...
    def text(self, key: str, default: str | None) -> str | None:
        """A string.

        Raises:
            ModelError: anything else.
        """
        value = self._value(self.name(key), default)
        self._read.add(key)
        if value is not None and not isinstance(value, str):
            raise ModelError(f"{self.name(key)} is {shown(value)}, expected a string")
        return value

    def strings(self, key: str) -> tuple[str, ...]:
        """An array of strings; none where the key is missing.

        Raises:
            ModelError: anything else.
        """
        value = self._value(self.name(key), ())
        self._read.add(key)
        if not isinstance(value, Sequence) or not all(isinstance(item, str) for item in value):
            raise ModelError(f"{self.name(key)} is {shown(value)}, expected an array of strings")
        return tuple(map(str, value))

    def n_tokens(self) -> int | None:
        """How many tokens the file's vocabulary holds, where it has one."""
        tokens = self._metadata.get("tokenizer.ggml.tokens")
        return len(tokens) if isinstance(tokens, Sequence) else None

    def check_token_types(self, n: int) -> None:
        """Raises ModelError where the file states another number of types of tokens than n."""
        stated = self._value(TOKEN_TYPES, n)
        if isinstance(stated, bool) or not isinstance(stated, int) or stated != n:
            raise ModelError(f"{TOKEN_TYPES} is {shown(stated)}, tensor {TYPES_TENSOR!r} holds {n}")

    def refuse_unread(self) -> None:
        """Raises UnsupportedError for the first hyperparameter that nobody read and that changes the
        result."""
        prefix = f"{self.architecture}."
        for name in self._metadata:
            key = name.removeprefix(prefix)
            if not name.startswith(prefix) or key in self._read or key in _NOTES:
                continue
            value = self._value(name, None)
            if key not in _NEUTRAL or value not in _NEUTRAL[key]:
                raise UnsupportedError(f"{name} = {shown(value)} is not implemented for {self.architecture}")

    def _integer(self, key: str, value: object, minimum: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise ModelError(
                f"{self.name(key)} is {shown(value)}, expected a whole number of at least {minimum}"
            )
        return value

    def _each(self, key: str, value: object, n: int) -> Sequence[object]:
        """A value for each of n layers: as the file has them, or the same for all."""
        if not isinstance(value, Sequence) or isinstance(value, str):
            return (value,) * n
        if len(value) < n:
            raise ModelError(f"{self.name(key)} has {len(value)} values, expected one for each of {n} layers")
        return value[:n]

    def _get(self, key: str, default: object) -> object:
        self._read.add(key)
        value = self._value(self.name(key), default)
        if value is None:
            raise ModelError(f"metadata key {self.name(key)!r} is missing")
        return value

    def _value(self, name: str, default: object) -> object:
        """A value; arrays of numbers, which files give as numpy views, as lists."""
        value = self._metadata.get(name, default)
        return value.tolist() if hasattr(value, "tolist") else value
