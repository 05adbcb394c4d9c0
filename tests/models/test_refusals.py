"""Nothing is guessed: unknown or contradicting hyperparameters and tensors are errors that name them."""

from __future__ import annotations

import contextlib
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import clarion.gguf
from clarion import models
from clarion.errors import ClarionError, FormatError, ModelError, ParameterError, UnsupportedError
from clarion.evaluate.imatrix import Imatrix
from clarion.evaluate.summary import Summary
from tests.models.files import NAMES, golden, zeros


def refused(error, name, *words, changes=(), without=(), extra=()):
    """Building the golden with metadata changed, or tensors left out or added, is an error with these
    words."""
    metadata, tensors = golden(name)
    metadata |= dict(changes)
    metadata = {key: value for key, value in metadata.items() if value is not None}
    tensors = {key: tensor for key, tensor in tensors.items() if key not in without}
    tensors |= {tensor.name: tensor for tensor in extra}
    with pytest.raises(error) as caught:
        models.build(metadata, tensors)
    for word in words:
        assert str(word) in str(caught.value)


def test_unknown_architectures():
    refused(UnsupportedError, "qwen2-tied", "mpt", "qwen3moe", changes={"general.architecture": "mpt"})
    refused(ModelError, "qwen2-tied", "general.architecture", changes={"general.architecture": None})
    refused(ModelError, "qwen2-tied", "general.architecture", 7, changes={"general.architecture": 7})
    refused(UnsupportedError, "qwen2-tied", "general.type", "adapter", changes={"general.type": "adapter"})


UNSUPPORTED = {
    "llama.attention.clamp_kqv": 8.0,
    "llama.attn_logit_softcapping": 50.0,
    "llama.use_parallel_residual": True,
    "llama.attention.max_alibi_bias": 8.0,
    "llama.attention.causal": False,
    "llama.expert_shared_count": 1,
    "llama.final_logit_softcapping": 30.0,
    "llama.logit_scale": 0.0625,
    "llama.rope.scaling.type": "longrope",
    "llama.rope.scaling.yarn_log_multiplier": 0.1,
    "llama.rope.scaling.yarn_ext_factor": 0.5,
    "llama.something_new": 1,
    "llama.pooling_type": np.array([0, 1], "<i4"),
}


@pytest.mark.parametrize(("key", "value"), UNSUPPORTED.items(), ids=UNSUPPORTED)
def test_hyperparameters_that_are_not_implemented(key, value):
    shown = value.tolist() if isinstance(value, np.ndarray) else value
    refused(UnsupportedError, "llama-mha", key, shown, changes={key: value})


def test_values_that_mean_nothing_are_accepted():
    metadata, tensors = golden("llama-mha")
    metadata |= {
        "llama.attention.causal": True,
        "llama.attn_logit_softcapping": 0.0,
        "llama.attention.head_count_kv": np.array([4, 4], "<i4"),
        "llama.feed_forward_length": [72, 72],
        "llama.attention.sliding_window": 0,
        "llama.expert_count": 0,
        "llama.expert_used_count": 0,
        "llama.logit_scale": 1.0,
        "llama.rope.scaling.type": "none",
        "llama.rope.scaling.finetuned": False,
        "llama.tensor_data_layout": "Meta AI original pth",
        "evaluate.imatrix.file": "anything",
    }
    assert models.build(metadata, tensors).hyperparameters.window == 0


CONTRADICTIONS = {
    "llama.attention.head_count": [0, 5, 7, -1, 1 << 40, "4", 4.0, True],
    "llama.attention.head_count_kv": [0, 3, 8],
    "llama.attention.key_length": [0, 16, 1 << 40],
    "llama.attention.layer_norm_rms_epsilon": [-1.0, float("nan"), float("inf"), "1e-5"],
    "llama.block_count": [0, 1, 3, 1 << 40],
    "llama.context_length": [0, -1],
    "llama.embedding_length": [0, 47, 64],
    "llama.feed_forward_length": [0, 71, 1 << 40],
    "llama.rope.dimension_count": [0, 7, 14, 1 << 40],
    "llama.rope.freq_base": [0.0, 1.0, -10000.0, float("inf")],
    "llama.rope.scaling.factor": [-2.0, float("nan")],
    "llama.rope.scaling.type": [1],
    "llama.vocab_size": [79, 81],
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in CONTRADICTIONS.items() for value in values]
)
def test_hyperparameters_that_contradict_the_file(key, value):
    refused(ModelError, "llama-mha", changes={key: value})


@pytest.mark.parametrize(
    "key",
    ["block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count"],
)
def test_missing_hyperparameters(key):
    refused(ModelError, "llama-mha", f"llama.{key}", "missing", changes={f"llama.{key}": None})


def test_vocabulary_of_another_size():
    tokens = [f"t{i}" for i in range(79)]
    refused(ModelError, "qwen3", 79, 80, "token_embd.weight", changes={"tokenizer.ggml.tokens": tokens})


def test_experts():
    refused(ModelError, "mixtral", "expert_used_count", 6, 5, changes={"llama.expert_used_count": 6})
    refused(ModelError, "mixtral", "expert_used_count", changes={"llama.expert_used_count": 0})
    refused(ModelError, "qwen3moe", "expert_count", changes={"qwen3moe.expert_count": None})
    refused(ModelError, "mixtral", "ffn_gate_inp", changes={"llama.expert_count": 4})
    refused(
        ModelError,
        "mixtral",
        "ffn_up",
        changes={"llama.expert_count": None, "llama.expert_used_count": None},
    )
    refused(UnsupportedError, "mixtral", "expert_gating_func", 2, changes={"llama.expert_gating_func": 2})
    refused(UnsupportedError, "qwen2-tied", "expert_count", changes={"qwen2.expert_count": 4})
    split = zeros("blk.0.ffn_gate.0.weight", 32, 48)
    refused(UnsupportedError, "mixtral", "blk.0.ffn_gate.0.weight", extra=[split])


def test_missing_and_unexpected_tensors():
    refused(ModelError, "qwen3", "blk.1.attn_q_norm.weight", [20], without=["blk.1.attn_q_norm.weight"])
    refused(ModelError, "qwen3", "token_embd.weight", "missing", without=["token_embd.weight"])
    strange = [zeros(f"blk.0.strange.{i}", 4) for i in range(7)]
    refused(ModelError, "llama-mha", "blk.0.strange.0", "2 more", extra=strange)
    refused(ModelError, "llama-mha", "blk.2.attn_q.weight", extra=[zeros("blk.2.attn_q.weight", 48, 48)])
    refused(ModelError, "gemma2", "output.weight", extra=[zeros("output.weight", 320, 32)])
    norm = zeros("blk.0.attn_q_norm.weight", 12)
    refused(ModelError, "qwen2-tied", "blk.0.attn_q_norm.weight", extra=[norm])


def test_tensors_of_a_wrong_shape_or_format():
    wide = zeros("blk.1.ffn_up.weight", 72, 49)
    refused(ModelError, "llama-mha", "blk.1.ffn_up.weight", [72, 49], [72, 48], extra=[wide])
    refused(ModelError, "llama-mha", "token_embd.weight", [80], extra=[zeros("token_embd.weight", 80)])
    half = zeros("output_norm.weight", 48, fmt="F16")
    refused(UnsupportedError, "llama-mha", "output_norm.weight", "F16", extra=[half])
    whole = zeros("blk.0.attn_v.weight", 48, 48, fmt="I32")
    refused(UnsupportedError, "llama-mha", "blk.0.attn_v.weight", "I32", extra=[whole])
    zero = zeros("rope_freqs.weight", 6)
    refused(ModelError, "llama-mha", "rope_freqs.weight", extra=[zero])


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), 1 << 63),
    st.integers(0, 100),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(-3, 100), max_size=3).map(lambda values: np.array(values, "<i8")),
)


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(NAMES), st.data())
def test_any_metadata_builds_or_is_refused(name, data):
    metadata, tensors = golden(name)
    keys = [key for key in metadata if not key.startswith("general.")]
    for key in data.draw(st.lists(st.sampled_from(keys), min_size=1, max_size=3)):
        metadata[key] = data.draw(VALUES)
    for tensor in data.draw(st.lists(st.sampled_from(sorted(tensors)), max_size=1)):
        del tensors[tensor]
    metadata = {key: value for key, value in metadata.items() if value is not None}
    with contextlib.suppress(ClarionError):
        models.build(metadata, tensors)


@pytest.mark.parametrize(
    "array", [np.array([2, 2], "<u4"), np.array([2], "<u4"), np.array([], "<f4"), [2, 2]]
)
def test_arrays_in_the_place_of_one_value(array):
    """An array of numbers, as files give it, has no one truth, and one of a single number is no number."""
    for key, kind in (
        ("general.type", UnsupportedError),
        ("general.architecture", ModelError),
        ("tokenizer.ggml.token_type_count", ModelError),
        ("bert.attention.causal", ModelError),
        ("bert.rope.scaling.type", ModelError),
        ("bert.logit_scale", UnsupportedError),
    ):
        metadata, tensors = golden("encoders/bert")
        with pytest.raises(kind, match=re.escape(key)):
            models.build(metadata | {key: array}, tensors)


def test_arrays_in_the_place_of_one_value_elsewhere(tmp_path):
    """What does not build a model looks at such values too."""
    two = np.array([7, 7], "<u4")
    path = tmp_path / "model.gguf"
    with clarion.gguf.Writer(path, {"general.type": two, "general.file_type": two}) as writer:
        writer.add("a.weight", (2, 32), clarion.gguf.format_named("Q8_0"), bytes(68))
    with clarion.gguf.File.open(path) as file:
        assert Summary.of(file).type == "Q8_0"
    with pytest.raises(FormatError, match=r"general\.type is .*, expected 'imatrix'"):
        Imatrix.read(path)
    with pytest.raises(ParameterError, match=r"general\.alignment"):
        clarion.gguf.Writer(path, {"general.alignment": two})


@pytest.mark.parametrize("key", ["general.architecture", "general.type", "llama.rope.scaling.type"])
def test_long_values_are_shortened(key):
    metadata, tensors = golden("llama-mha")
    with pytest.raises(UnsupportedError, match=re.escape(key)) as error:
        models.build(metadata | {key: "x" * 10_000}, tensors)
    assert len(str(error.value)) < 600
