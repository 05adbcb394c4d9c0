"""Beginning with the weights of another file of the zoo instead of random ones."""

from __future__ import annotations

from pathlib import Path

import gguf
import torch
from torch import Tensor

from clarion.errors import ParameterError
from clarion.gguf import File
from zoo.names import tensor_names
from zoo.network import Network


def copy_weights(network: Network, path: Path) -> int:
    """Copies every tensor that the file has under the same name and in the same shape; the others stay.

    Layers that the file does not have add nothing at first, since what they put out begins as zero. Where
    the file has one feed-forward network and the model has experts, the experts are its slices (Komatsuzaki
    et al., 2022, Sparse Upcycling). Where only the model has norms of queries and keys, their gains keep the
    scores' size.

    Returns:
        How many parameters were set.

    Raises:
        FileError, FormatError: the file cannot be read.
        ParameterError: no tensor fits.
    """
    neighbours, theirs = _read(path)
    dense = "blk.0.ffn_up.weight" in theirs
    n_set = 0
    for name, target in tensor_names(dict(network.named_parameters())).items():
        parameter = network.get_parameter(name)
        value = theirs.get(target)
        if target.endswith("_exps.weight") and dense:
            value = _experts(theirs.get(target.replace("_exps", "")), parameter, "ffn_down" in target)
        elif target.endswith(("_q_norm.weight", "_k_norm.weight")) and value is None:
            value = _gain(theirs, target, parameter)
        if value is None or value.shape != parameter.shape:
            continue
        if target.endswith(("attn_q.weight", "attn_k.weight")):
            value = _rotated(value, network, neighbours)
        with torch.no_grad():
            parameter.copy_(value)
        n_set += 1
    if not n_set:
        raise ParameterError(f"{path}: no tensor has a name and a shape of the model's")
    return n_set


def _read(path: Path) -> tuple[bool, dict[str, Tensor]]:
    """Whether a file's rotation is of neighbouring elements, and its tensors as float32."""
    with File.open(path) as file:
        tensors = {}
        for name, tensor in file.tensors.items():
            kind = gguf.GGMLQuantizationType[tensor.format.name]
            values = gguf.quants.dequantize(tensor.data, kind).copy()
            tensors[name] = torch.from_numpy(values).reshape(tensor.shape)
        return file.metadata["general.architecture"] == "llama", tensors


def _rotated(rows: Tensor, network: Network, neighbours: bool) -> Tensor:
    """Rows of query or key in the order of the network's rotation; `neighbours`: the file's."""
    ours = network.shape.family == "llama"
    if ours == neighbours:
        return rows
    heads = rows.unflatten(0, (-1, network.shape.head_dim))  # [H, D, n_embd]
    return heads.unflatten(1, (2, -1) if ours else (-1, 2)).transpose(1, 2).flatten(0, 2)


def _experts(dense: Tensor | None, experts: Tensor, down: bool) -> Tensor | None:
    """Slices of a network, again and again: so scaled that the mean of them all is the whole."""
    if dense is None:
        return None
    n_ff = experts.shape[2 if down else 1]
    slices = list(dense.split(n_ff, dim=1 if down else 0))
    scale = len(slices) if down else 1
    return torch.stack([slices[e % len(slices)] * scale for e in range(len(experts))])


def _gain(theirs: dict[str, Tensor], target: str, gain: Tensor) -> Tensor | None:
    """The root mean square of a head's elements, for inputs of unit variance in every direction."""
    matrix = theirs.get(target.replace("_norm", ""))
    inputs = theirs.get(target.partition(".attn_")[0] + ".attn_norm.weight")
    if matrix is None or inputs is None:
        return None
    return torch.full_like(gain, (matrix * inputs).square().sum(1).mean().sqrt().item())
