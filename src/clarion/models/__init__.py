"""Model families: one file each, which says what is computed, in which order, from which tensors, and how
checkpoints become its files."""

from __future__ import annotations

from collections.abc import Mapping

from clarion.errors import ModelError, UnsupportedError
from clarion.models import (
    bert,
    bitnet,
    deepseek2,
    gemma2,
    gemma3,
    gemma4,
    gemma_embedding,
    glm4,
    gpt_oss,
    jina_bert,
    llama,
    mamba,
    mamba2,
    mistral4,
    modern_bert,
    nomic_bert,
    olmo2,
    phi3,
    qwen2,
    qwen3,
    qwen3moe,
    qwen3next,
    qwen35,
    qwen35moe,
    smollm3,
)
from clarion.models.family import Family
from clarion.models.keys import Keys, shown
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Graph
from clarion.plan.ir import Tensor
from clarion.plan.output import Output

# The registry, by general.architecture.
FAMILIES: dict[str, Family] = {
    family.architecture: family
    for family in (
        llama.FAMILY,
        qwen2.FAMILY,
        qwen3.FAMILY,
        qwen3moe.FAMILY,
        qwen3next.FAMILY,
        qwen35.FAMILY,
        qwen35moe.FAMILY,
        deepseek2.FAMILY,
        mistral4.FAMILY,
        mamba.FAMILY,
        mamba2.FAMILY,
        bitnet.FAMILY,
        gemma2.FAMILY,
        gemma3.FAMILY,
        gemma4.FAMILY,
        gemma_embedding.FAMILY,
        smollm3.FAMILY,
        olmo2.FAMILY,
        phi3.FAMILY,
        glm4.FAMILY,
        gpt_oss.FAMILY,
        bert.FAMILY,
        nomic_bert.FAMILY,
        nomic_bert.EXPERTS,
        jina_bert.FAMILY,
        jina_bert.ROTATED,
        modern_bert.FAMILY,
    )
}

# What a file is, by general.type or general.architecture, that holds something else than a language model.
_OTHER_FILES = {
    "imatrix": "an importance matrix, which clarion quantize takes as --imatrix",
    "adapter": "an adapter (LoRA), which is merged into its model first",
    "mmproj": "a part that sees or hears, for a model beside it",
    "clip": "a part that sees or hears, for a model beside it",
}


def family(metadata: Mapping[str, object]) -> Family:
    """The family that a file belongs to.

    Raises:
        ModelError: the file names no architecture.
        UnsupportedError: it holds no model, or one of an unknown architecture.
    """
    kind = metadata.get("general.type", "model")
    if not isinstance(kind, str) or kind != "model":  # an array of numbers has no one truth
        what = _OTHER_FILES.get(kind, "the file holds no model") if isinstance(kind, str) else "no model"
        raise UnsupportedError(f"general.type is {shown(kind)}: {what}")
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise ModelError(f"general.architecture is {shown(architecture)}, expected a name")
    if architecture in _OTHER_FILES:
        raise UnsupportedError(f"general.architecture is {architecture!r}: {_OTHER_FILES[architecture]}")
    if architecture not in FAMILIES:
        raise UnsupportedError(f"general.architecture is {shown(architecture)}; known: {', '.join(FAMILIES)}")
    return FAMILIES[architecture]


def context_length(metadata: Mapping[str, object]) -> int:
    """How many tokens the model of a file was made for. Raises as `build`."""
    family(metadata)
    return Keys(metadata).integer("context_length")


def build(
    metadata: Mapping[str, object],
    tensors: Mapping[str, Tensor],
    *,
    output: Output | None = None,
    context: int | None = None,
) -> Graph:
    """The graph of the model that a file describes.

    Args:
        metadata: the file's keys and values; hyperparameters are those below the architecture's name.
        tensors: the file's tensors by name.
        output: what is wanted of it; None: what the file is made for.
        context: the longest sequence that it is wanted for, on which some rotations depend; None: that which
            the model was made for.

    Raises:
        UnsupportedError: an architecture, a hyperparameter or a tensor's format that no family implements.
        ModelError: hyperparameters and tensors contradict each other; a tensor is missing or unexpected.
    """
    found, checkpoint = family(metadata), Checkpoint(tensors)
    keys = Keys(metadata, output=output, context=context)
    graph = found.build(keys, checkpoint)
    keys.refuse_unread()
    checkpoint.refuse_unused()
    checkpoint.refuse_gaps(graph.hyperparameters.n_layer)
    return graph


__all__ = ["FAMILIES", "Family", "build", "context_length", "family"]
