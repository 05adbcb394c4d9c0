"""Files of the same models as other programs wrote them, or still write them."""

from __future__ import annotations

import numpy as np
import pytest

from clarion import models
from clarion.errors import ModelError
from tests.models.files import Format, Tensor, expected, golden, nmse, zeros
from tests.plan.toys import computed

LIMIT = 1e-11
F32 = Format("F32", 0)


def tensor(name, values):
    values = np.ascontiguousarray(values, np.float32)
    return Tensor(name, values.shape, F32, values.reshape(-1).view(np.uint8))


def values(tensors, name):
    found = tensors[name]
    return found.data.view(np.float32).reshape(found.shape)


def error(name, metadata, tensors):
    """How far the logits are from those of the golden."""
    ids, logits = expected(name)
    return nmse(computed(models.build(metadata, tensors).plan(), ids, tensors)["logits"], logits)


def with_keys_and_values_in_one(name):
    """The golden as it was written when keys and values of all heads were kept."""
    metadata, tensors = golden(name)
    prefix = "deepseek2.attention."
    dim, dim_v = metadata.pop(f"{prefix}key_length_mla"), metadata.pop(f"{prefix}value_length_mla")
    n_head = metadata["deepseek2.attention.head_count"]
    metadata |= {f"{prefix}key_length": dim, f"{prefix}value_length": dim_v, f"{prefix}head_count_kv": n_head}
    for layer in range(metadata["deepseek2.block_count"]):
        k, v = (values(tensors, f"blk.{layer}.attn_{part}_b.weight") for part in "kv")
        both = np.concatenate((k.swapaxes(1, 2), v), 1)  # [n_head, plain + dim_v, rank]
        made = tensor(f"blk.{layer}.attn_kv_b.weight", both.reshape(-1, both.shape[-1]))
        tensors[made.name] = made
    return metadata, tensors


@pytest.mark.parametrize("name", ["deepseek2", "deepseek2-v2", "deepseek2-lite"])
def test_keys_and_values_in_one(name):
    metadata, tensors = with_keys_and_values_in_one(name)
    rest = {key: value for key, value in tensors.items() if "attn_k_b" not in key and "attn_v_b" not in key}
    assert error(name, metadata, rest) < LIMIT
    assert {state.dim_v for state in models.build(metadata, rest).plan().states} == {12}


def test_both_ways_in_one_file():
    _metadata, tensors = with_keys_and_values_in_one("deepseek2")
    assert error("deepseek2", golden("deepseek2")[0], tensors) < LIMIT


def test_a_function_of_the_router_that_is_not_named():
    for name in ("deepseek2", "deepseek2-v2"):
        metadata, tensors = golden(name)
        del metadata["deepseek2.expert_gating_func"]
        assert error(name, metadata, tensors) < LIMIT


def test_all_of_a_head_of_keys_together():
    metadata, tensors = golden("qwen3next")
    n, key = metadata["qwen3next.ssm.group_count"], metadata["qwen3next.ssm.state_size"]
    for layer in range(3):
        qkv, z = (tensors.pop(f"blk.{layer}.attn_{part}.weight") for part in ("qkv", "gate"))
        parts = [*np.split(values({0: qkv}, 0), (n * key, 2 * n * key)), values({0: z}, 0)]
        mixed = np.concatenate([part.reshape(n, -1, 32) for part in parts], 1).reshape(-1, 32)
        made = tensor(f"blk.{layer}.ssm_in.weight", mixed)
        tensors[made.name] = made
    assert error("qwen3next", metadata, tensors) < LIMIT


@pytest.mark.parametrize("name", ["qwen35", "qwen35moe", "qwen3next", "deepseek2", "llama-mha"])
def test_layers_that_predict_further_tokens_are_left_unread(name):
    metadata, tensors = golden(name)
    prefix = metadata["general.architecture"]
    n = metadata[f"{prefix}.block_count"]
    more = [f"blk.{n}.nextn.eh_proj.weight", f"blk.{n}.attn_norm.weight", f"blk.{n}.ffn_up.weight"]
    tensors |= {key: zeros(key, 32, 32) for key in more}
    with pytest.raises(ModelError, match=f"blk.{n}.nextn.eh_proj"):
        models.build(metadata, tensors)
    metadata |= {f"{prefix}.block_count": n + 1, f"{prefix}.nextn_predict_layers": 1}
    recurrent = f"{prefix}.attention.recurrent_layers"
    if recurrent in metadata:
        metadata[recurrent] = [*metadata[recurrent], False]
    assert error(name, metadata, tensors) < LIMIT
    metadata[f"{prefix}.nextn_predict_layers"] = n + 1
    with pytest.raises(ModelError, match="nextn_predict_layers"):
        models.build(metadata, tensors)


def test_which_layers_are_recurrent_may_be_a_rule():
    metadata, tensors = golden("qwen35")
    del metadata["qwen35.attention.recurrent_layers"]
    assert error("qwen35", metadata, tensors) < LIMIT
    with pytest.raises(ModelError, match="attn_q"):
        models.build(metadata | {"qwen35.full_attention_interval": 2}, tensors)
