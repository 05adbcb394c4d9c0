"""The tensors of a file as a model names them: `w.blk[3].attn_q` stands for `blk.3.attn_q`.

Every tensor is checked against the shape that the model expects, and remembered, so that tensors which the
model does not know are found too.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import replace

from clarion.errors import ModelError, UnsupportedError
from clarion.plan.ir import Tensor
from clarion.plan.weight import Weight, Whole, part

# Integer tensors exist in files, but no product or table reads them.
_NOT_WEIGHTS = frozenset({"I8", "I16", "I32", "I64"})
_SHOWN = 5
_OF_LAYER = re.compile(r"blk\.(\d+)\.(.+)")
# What may be missing in all layers, but not in some, beside biases: of the same layer it needs the other.
_ALL_OR_NONE = {
    "exp_probs_b.bias": "ffn_gate_inp.weight",
    "attn_q_norm.weight": "attn_output.weight",
    "attn_norm_2.weight": "attn_output.weight",
    "layer_output_scale.weight": "ffn_norm.weight",
}
_QKV = ("attn_q.weight", "attn_k.weight", "attn_v.weight")
_LEAVES = ("weight", "bias", "scale", "input_scale")

ALL = slice(None)


class Checkpoint:
    """A name in the file, `prefix`, below which tensors lie."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str = "", used: set[str] | None = None) -> None:
        self._tensors = tensors
        self._used: set[str] = set() if used is None else used
        self.prefix = prefix

    def __getattr__(self, name: str) -> Checkpoint:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str | int) -> Checkpoint:
        prefix = f"{self.prefix}.{name}" if self.prefix else str(name)
        return Checkpoint(self._tensors, prefix, self._used)

    def __contains__(self, leaf: str) -> bool:
        return f"{self.prefix}.{leaf}" in self._tensors

    def n_rows(self) -> int:
        """Rows of the matrix `prefix.weight`, for the one table whose height only the file knows.

        Raises:
            ModelError: the tensor is missing or not a matrix.
        """
        name = f"{self.prefix}.weight"
        tensor = self._tensors.get(name)
        if tensor is None:
            raise ModelError(f"tensor {name!r} is missing")
        if len(tensor.shape) != 2:
            raise ModelError(f"tensor {tensor.name!r} has shape {list(tensor.shape)}, expected a matrix")
        return tensor.shape[0]

    def n_elements(self) -> int:
        """Elements of all tensors of the file."""
        return sum(math.prod(tensor.shape) for tensor in self._tensors.values())

    def matrix(
        self, n_rows: int, n_cols: int, *, leaf: str = "weight", rows: slice = ALL, cols: slice = ALL
    ) -> Weight:
        """`prefix.leaf`, which has n_rows × n_cols, or those of its rows and columns that are named.

        Raises:
            UnsupportedError: some columns of several rows, which are no one piece of bytes.
        """
        return part(self._take(leaf, (n_rows, n_cols)), ALL, rows, cols)

    def experts(self, n: int, n_rows: int, n_cols: int, *, experts: slice = ALL) -> Weight:
        """`prefix.weight`, n matrices of n_rows × n_cols, or those of them that are named."""
        return part(self._take("weight", (n, n_rows, n_cols)), experts, ALL, ALL)

    def vector(self, leaf: str, n: int, *, elements: slice = ALL) -> Weight:
        """`prefix.leaf`, which has n values in float32, or those of them that are named.

        Raises:
            UnsupportedError: the vector is in another format.
        """
        return part(_in_float32(self._take(leaf, (n,))), ALL, ALL, elements)

    def finite(self, leaf: str, n: int) -> Weight:
        """`vector` of a few values that decide what is computed, all of them finite.

        Raises:
            ModelError: one is not, where the bytes are there: a checkpoint's are checked as they are written.
        """
        weight = self.vector(leaf, n)
        view = self._tensors[weight.name].view
        if view.nbytes and not all(map(math.isfinite, struct.unpack(f"<{n}f", view.tobytes()))):
            raise ModelError(f"tensor {weight.name!r} holds values that are not finite")
        return weight

    def flat(self, leaf: str, n: int) -> Weight:
        """`prefix.leaf` as a vector of n values in float32, also where the file has them as a matrix.

        Raises:
            UnsupportedError: it is in another format.
        """
        tensor = self._tensors.get(f"{self.prefix}.{leaf}")
        if tensor is None or len(tensor.shape) != 2 or math.prod(tensor.shape) != n:
            return self.vector(leaf, n)
        return replace(_in_float32(self._take(leaf, tuple(tensor.shape))), rows=1, cols=n)

    def row(self, n: int) -> Weight:
        """`prefix.weight`, a matrix of one row or a vector of n values in any format."""
        tensor = self._tensors.get(f"{self.prefix}.weight")
        return self._take("weight", (1, n) if tensor is not None and len(tensor.shape) == 2 else (n,))

    def first_row(self, n_rows: int, n: int) -> Weight:
        """The first row of the matrix `prefix.weight`, which is in float32."""
        weight = self._take("weight", (n_rows, n))
        if weight.format != "F32":
            raise UnsupportedError(
                f"tensor {weight.name!r} is in {weight.format}; a row of it is read in F32 only"
            )
        return part(weight, ALL, slice(1), ALL)

    def bias(self, n: int, *, rows: slice = ALL) -> Weight | None:
        """`prefix.bias`, where the file has one: its n values, or those that are named."""
        return self.vector("bias", n, elements=rows) if "bias" in self else None

    def scale(self, n: int = 1) -> Weight | None:
        """`prefix.scale`, where the file has one: a number that the whole tensor is times, or one for each of
        n experts. What a device would scale the input with to round it, `prefix.input_scale`, is not needed.
        """
        if "input_scale" in self:
            self._used.add(f"{self.prefix}.input_scale")
        return self.vector("scale", n) if "scale" in self else None

    def floats(self, n: int) -> tuple[float, ...]:
        """The n values of the vector `prefix.weight`."""
        weight = self.vector("weight", n)
        return struct.unpack(f"<{n}f", self._tensors[weight.name].view.tobytes())

    def leave(self, *, kept: bool = True) -> None:
        """Counts what lies below this name as asked for, though nothing reads it.

        kept: a checkpoint that is converted gives it to the file.
        """
        names = {name for name in self._tensors if name.startswith(f"{self.prefix}.")}
        self._used |= names | {f"{self.prefix}.{leaf}" for leaf in _LEAVES if leaf in self}
        for leaf in _LEAVES if kept else ():
            if leaf in self:
                self._tensors[f"{self.prefix}.{leaf}"]

    def refuse_unused(self) -> None:
        """Raises ModelError if the file holds tensors that nobody asked for."""
        unused = [name for name in self._tensors if name not in self._used]
        if unused:
            more = f" and {len(unused) - _SHOWN} more" if len(unused) > _SHOWN else ""
            raise ModelError(f"unexpected tensors: {', '.join(map(repr, unused[:_SHOWN]))}{more}")

    def refuse_gaps(self, n_layer: int) -> None:
        """Raises ModelError if one of the layers lacks a bias, or another tensor that files need not have,
        which others have beside the same weight. Without it the file would be another model, silently."""
        found = [set[str]() for _ in range(n_layer)]
        for name in self._tensors:
            match = _OF_LAYER.fullmatch(name)
            if match and int(match[1]) < n_layer:
                found[int(match[1])].add(match[2])
        for name in sorted(set[str]().union(*found)):
            stem, _, leaf = name.rpartition(".")
            beside = _ALL_OR_NONE.get(name, f"{stem}.weight" if leaf == "bias" else None)
            for i, names in enumerate(found):
                fused = beside in _QKV and "attn_qkv.weight" in names and "attn_qkv.bias" not in names
                if name not in names and (beside in names or fused):
                    other = next(j for j, names in enumerate(found) if name in names)
                    raise ModelError(f"tensor 'blk.{i}.{name}' is missing, which layer {other} has")

    def _take(self, leaf: str, shape: tuple[int, ...]) -> Weight:
        name = f"{self.prefix}.{leaf}"
        tensor = self._tensors.get(name)
        if tensor is None:
            raise ModelError(f"tensor {name!r} is missing, expected with shape {list(shape)}")
        if tuple(tensor.shape) != shape:
            raise ModelError(f"tensor {tensor.name!r} has shape {list(tensor.shape)}, expected {list(shape)}")
        if tensor.format.name in _NOT_WEIGHTS:
            raise UnsupportedError(f"tensor {name!r} is in {tensor.format.name}, which no operation reads")
        self._used.add(name)
        experts, rows, cols = (1,) * (3 - len(shape)) + shape
        return Weight(
            name,
            Whole(name),
            tensor.format.name,
            tensor.format.type_id,
            rows,
            cols,
            experts,
            tensor.view.nbytes,
        )


def _in_float32(weight: Weight) -> Weight:
    if weight.format != "F32":
        raise UnsupportedError(f"tensor {weight.name!r} is in {weight.format}; vectors are read in F32 only")
    return weight
