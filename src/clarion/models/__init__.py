"""Model families: one file each, which says what is computed, in which order, from which tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from clarion.errors import ModelError, UnsupportedError
from clarion.models import bitnet, llama, mixtral, qwen2, qwen3, qwen3moe
from clarion.models.keys import Keys
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Graph
from clarion.plan.ir import Tensor

# By general.architecture; "+experts" where one architecture's name covers a dense family and one with
# experts.
FAMILIES: dict[str, Callable[[Keys, Checkpoint], Graph]] = {
    "llama": llama.build,
    "llama+experts": mixtral.build,
    "qwen2": qwen2.build,
    "qwen3": qwen3.build,
    "qwen3moe": qwen3moe.build,
    "bitnet": bitnet.build,
}


# What a file is, by general.type or general.architecture, that holds something else than a language model.
_OTHER_FILES = {
    "imatrix": "an importance matrix, which clarion quantize takes as --imatrix",
    "adapter": "an adapter (LoRA), which is merged into its model first",
    "mmproj": "a part that sees or hears, for a model beside it",
    "clip": "a part that sees or hears, for a model beside it",
}


def family(metadata: Mapping[str, object]) -> str:
    """The name in FAMILIES of the family that a file belongs to.

    Raises:
        ModelError: the file names no architecture.
        UnsupportedError: it holds no model, or one of an unknown architecture.
    """
    kind = metadata.get("general.type", "model")
    if kind != "model":
        what = _OTHER_FILES.get(kind, "the file holds no model") if isinstance(kind, str) else "no model"
        raise UnsupportedError(f"general.type is {kind!r}: {what}")
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise ModelError(f"general.architecture is {architecture!r}, expected a name")
    with_experts = f"{architecture}+experts"
    experts = metadata.get(f"{architecture}.expert_count", 0)
    if with_experts in FAMILIES and not (isinstance(experts, int) and experts == 0):
        return with_experts
    if architecture not in FAMILIES:
        if architecture in _OTHER_FILES:
            raise UnsupportedError(f"general.architecture is {architecture!r}: {_OTHER_FILES[architecture]}")
        known = ", ".join(name for name in FAMILIES if "+" not in name)
        raise UnsupportedError(f"general.architecture is {architecture!r}; known: {known}")
    return architecture


def build(metadata: Mapping[str, object], tensors: Mapping[str, Tensor]) -> Graph:
    """The graph of the model that a file describes.

    Args:
        metadata: the file's keys and values; hyperparameters are those below the architecture's name.
        tensors: the file's tensors by name.

    Raises:
        UnsupportedError: an architecture, a hyperparameter or a tensor's format that no family implements.
        ModelError: hyperparameters and tensors contradict each other; a tensor is missing or unexpected.
    """
    name = family(metadata)
    keys = Keys(metadata)
    checkpoint = Checkpoint(tensors)
    graph = FAMILIES[name](keys, checkpoint)
    keys.refuse_unread()
    checkpoint.refuse_unused()
    return graph


__all__ = ["FAMILIES", "build", "family"]
