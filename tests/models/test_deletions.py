"""What a family's file lacks is an error that names it, or has a default: each key, and each tensor."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from clarion import models
from clarion.errors import ClarionError
from tests.models.files import BIDIRECTIONAL, ENCODERS, NAMES, golden, zeros

# The keys that a file need not have, and what holds then.
DEFAULTS = {
    "attention.head_count_kv": "as many as of queries",
    "attention.key_length": "embedding_length / attention.head_count",
    "attention.recurrent_layers": "all but each full_attention_interval-th",
    "attention.key_length_swa": "attention.key_length",
    "attention.scale": "1 / sqrt(attention.key_length)",
    "attention.shared_kv_layers": "0",
    "attention.sliding_window": "none, or 4096 in gemma2",
    "attention.sliding_window_pattern": "the family's",
    "attention.temperature_length": "rope.scaling.original_context_length",
    "attention.temperature_scale": "none",
    "attention.value_length": "attention.key_length",
    "attention.value_length_swa": "attention.value_length",
    "attn_logit_softcapping": "50 in gemma2",
    "embedding_length_per_layer_input": "0",
    "expert_feed_forward_length": "feed_forward_length",
    "expert_gating_func": "sigmoid for layers with exp_probs_b, else softmax",
    "expert_shared_feed_forward_length": "feed_forward_length",
    "expert_weights_norm": "true",
    "expert_weights_scale": "1",
    "final_logit_softcapping": "30 in gemma2, else none",
    "feed_forward_length": "nothing, where all layers have experts",
    "full_attention_interval": "4",
    "hidden_activation": "silu",
    "rope.dimension_count": "all of a head",
    "rope.dimension_sections": "a text needs none",
    "rope.dimension_count_swa": "rope.dimension_count",
    "rope.freq_base": "10000",
    "rope.freq_base_swa": "10000 in gemma3, else rope.freq_base",
    "rope.scaling.attn_factor": "1",
    "rope.scaling.factor": "1",
    "rope.scaling.original_context_length": "context_length",
    "rope.scaling.type": "linear",
    "rope.scaling.yarn_beta_fast": "32",
    "rope.scaling.yarn_beta_slow": "1",
    "rope.scaling.yarn_log_multiplier": "0",
    "ssm.dt_b_c_rms": "false",
    "vocab_size": "rows of token_embd",
}
# The head is the embedding without the first, and others are missing in whole models, but not in some layers.
OPTIONAL = ("output.weight", "rope_freqs.weight", "token_types.weight", "cls.weight")
IN_ALL_LAYERS = (".bias", "layer_output_scale.weight", "attn_norm_2.weight", "attn_q_norm.weight")


def one_of_each(names=NAMES):
    """The first golden of each architecture."""
    found = {}
    for name in names:
        found.setdefault(golden(name)[0]["general.architecture"], name)
    return sorted(found.values())


def refusal(metadata, tensors):
    """What the error says of them, or "none"."""
    try:
        models.build(metadata, tensors)
    except ClarionError as error:
        return str(error)
    return "none"


@pytest.mark.parametrize("name", one_of_each())
def test_each_key(name):
    metadata, tensors = golden(name)
    prefix = f"{metadata['general.architecture']}."
    n_tested = 0
    for key in metadata:
        stem = key.removeprefix(prefix)
        if not key.startswith(prefix) or stem in DEFAULTS:
            continue
        found = refusal({other: value for other, value in metadata.items() if other != key}, tensors)
        assert stem in found or "tensor" in found  # that contradicts what holds without the key
        n_tested += 1
    assert n_tested > 3


@pytest.mark.parametrize("name", one_of_each())
def test_each_key_with_a_default(name):
    """It builds without, or the default contradicts what the file holds, by name."""
    metadata, tensors = golden(name)
    for key in DEFAULTS:
        rest = dict(metadata)
        if rest.pop(f"{metadata['general.architecture']}.{key}", None) is not None:
            assert any(word in refusal(rest, tensors) for word in (key, "tensor", "expected", "none"))


@pytest.mark.parametrize("name", one_of_each(NAMES + ENCODERS + BIDIRECTIONAL))
def test_each_tensor(name):
    metadata, tensors = golden(name)
    for missing in tensors:
        if missing in OPTIONAL or (missing.endswith(IN_ALL_LAYERS) and not elsewhere(missing, tensors)):
            continue
        rest = {other: tensor for other, tensor in tensors.items() if other != missing}
        found = refusal(metadata, rest)
        if missing.startswith("dense_"):  # a key of its size, or of the next one's, is left over
            assert "dense_" in found
            continue
        assert missing.replace("attn_qkv", "attn_q") in found.replace("attn_qkv", "attn_q"), found


def elsewhere(name, tensors):
    """Whether another layer has this tensor too."""
    part = name.split(".", 2)[-1] if name.startswith("blk.") else name
    return any(other != name and re.fullmatch(rf"blk\.\d+\.{re.escape(part)}", other) for other in tensors)


def test_a_gap_names_the_first_layer_that_lacks_it():
    metadata, tensors = golden("qwen2-tied")
    del tensors["blk.0.attn_k.bias"]
    assert refusal(metadata, tensors) == "tensor 'blk.0.attn_k.bias' is missing, which layer 1 has"


def test_a_gap_in_biases_beside_one_matrix():
    """Of query, key and value in one tensor, biases may be apart."""
    metadata, tensors = golden("phi3")
    width = tensors["blk.0.attn_output.weight"].shape[1]
    for layer in range(metadata["phi3.block_count"]):
        name = f"blk.{layer}.attn_q.bias"
        tensors[name] = zeros(name, width)
    assert refusal(metadata, tensors) == "none"
    del tensors["blk.1.attn_q.bias"]
    assert refusal(metadata, tensors) == "tensor 'blk.1.attn_q.bias' is missing, which layer 0 has"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_router_whose_choice_is_no_number(value):
    metadata, tensors = golden("deepseek2")
    name = next(name for name in tensors if name.endswith("exp_probs_b.bias"))
    values = tensors[name].data.view(np.float32).copy()
    values[-1] = value
    tensors[name] = replace(tensors[name], data=values.view(np.uint8))
    assert refusal(metadata, tensors) == f"tensor '{name}' holds values that are not finite"
