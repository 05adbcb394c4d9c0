"""The same model becomes the same file, however its checkpoint lays out tensors and configuration."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from clarion.convert.checkpoint import Checkpoint
from clarion.convert.families import convert
from clarion.errors import ModelError, UnsupportedError
from tests.convert.files import write_safetensors

WIDTH, N_EXPERT, N_FF = 16, 3, 8
CONFIG = {
    "model_type": "qwen3_5_moe_text",
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "layer_types": ["linear_attention", "full_attention"],
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 32,
    "linear_conv_kernel_dim": 3,
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "num_experts": N_EXPERT,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": N_FF,
    "shared_expert_intermediate_size": N_FF,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.5},
}
OF_LAYER = {
    "input_layernorm.weight": (WIDTH,),
    "post_attention_layernorm.weight": (WIDTH,),
    "mlp.gate.weight": (N_EXPERT, WIDTH),
    "mlp.shared_expert.gate_proj.weight": (N_FF, WIDTH),
    "mlp.shared_expert.up_proj.weight": (N_FF, WIDTH),
    "mlp.shared_expert.down_proj.weight": (WIDTH, N_FF),
    "mlp.shared_expert_gate.weight": (1, WIDTH),
    "mlp.experts.gate_up_proj": (N_EXPERT, 2 * N_FF, WIDTH),
    "mlp.experts.down_proj": (N_EXPERT, WIDTH, N_FF),
}
RECURRENT = {
    "linear_attn.in_proj_qkv.weight": (32, WIDTH),
    "linear_attn.in_proj_z.weight": (16, WIDTH),
    "linear_attn.in_proj_a.weight": (4, WIDTH),
    "linear_attn.in_proj_b.weight": (4, WIDTH),
    "linear_attn.conv1d.weight": (32, 1, 3),
    "linear_attn.A_log": (4,),
    "linear_attn.dt_bias": (4,),
    "linear_attn.norm.weight": (4,),
    "linear_attn.out_proj.weight": (WIDTH, 16),
}
ATTENTION = {
    "self_attn.q_proj.weight": (32, WIDTH),
    "self_attn.k_proj.weight": (8, WIDTH),
    "self_attn.v_proj.weight": (8, WIDTH),
    "self_attn.o_proj.weight": (WIDTH, 16),
    "self_attn.q_norm.weight": (8,),
    "self_attn.k_norm.weight": (8,),
}


def tensors():
    shapes = {f"model.layers.0.{name}": shape for name, shape in (OF_LAYER | RECURRENT).items()}
    shapes |= {f"model.layers.1.{name}": shape for name, shape in (OF_LAYER | ATTENTION).items()}
    shapes |= {"model.embed_tokens.weight": (20, WIDTH), "model.norm.weight": (WIDTH,)}
    shapes |= {"lm_head.weight": (20, WIDTH)}
    random = np.random.default_rng(3)
    return {name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def of_each_expert(named):
    """One tensor for each expert and matrix."""
    found = {}
    for name, value in named.items():
        start, fused, end = name.partition("mlp.experts.")
        if not fused:
            found[name] = value
            continue
        for e, matrix in enumerate(value):
            halves = np.split(matrix, 2) if end == "gate_up_proj" else [matrix]
            for one, kind in zip(
                halves, end.replace("gate_up_proj", "gate_proj up_proj").split(), strict=True
            ):
                found[f"{start}mlp.experts.{e}.{kind}.weight"] = one
    return found


def seeing(named):
    """The tensors of a model that sees as well, and that predicts further tokens."""
    moved = {name.replace("model.", "model.language_model."): value for name, value in named.items()}
    more = {
        "model.visual.blocks.0.weight": np.ones((2, 2), np.float32),
        "mtp.fc.weight": np.ones((2, 2), "<f4"),
    }
    return moved | more


def converted(folder: Path, config, named):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    write_safetensors(folder / "model.safetensors", named)
    checkpoint = Checkpoint(folder)
    made = convert(checkpoint.config, checkpoint, str(folder))
    data = {
        target.name: b"".join(map(bytes, target.encode("F32", lambda n: None))) for target in made.targets
    }
    return (
        {key: str(value) for key, value in made.metadata.items()},
        {target.name: target.shape for target in made.targets},
        data,
    )


def test_layouts_of_one_model(tmp_path):
    usual = converted(tmp_path / "usual", CONFIG, of_each_expert(tensors()))
    assert usual[0]["general.architecture"] == "qwen35moe"
    assert usual[1]["blk.0.ffn_gate_exps.weight"] == (N_EXPERT, N_FF, WIDTH)
    assert usual[1]["blk.0.ssm_conv1d.weight"] == (32, 3)
    assert converted(tmp_path / "fused", CONFIG, tensors()) == usual
    nested = {"model_type": "qwen3_5_moe", "text_config": CONFIG, "vision_config": {"hidden_size": 1}}
    assert converted(tmp_path / "seeing", nested, seeing(tensors())) == usual


def test_values_are_those_of_the_file(tmp_path):
    named = tensors()
    _, shapes, data = converted(tmp_path / "checkpoint", CONFIG, named)

    def found(name):
        return np.frombuffer(data[name], np.float32).reshape(shapes[name])

    tiled = [0, 2, 1, 3]  # heads of values, of which the first two share a head of keys in the checkpoint
    in_layer = {name.removeprefix("model.layers.0."): value for name, value in named.items()}
    np.testing.assert_array_equal(found("output_norm.weight"), named["model.norm.weight"] + 1)
    np.testing.assert_array_equal(found("blk.0.ssm_norm.weight"), in_layer["linear_attn.norm.weight"])
    np.testing.assert_allclose(found("blk.0.ssm_a"), -np.exp(in_layer["linear_attn.A_log"][tiled]))
    np.testing.assert_array_equal(found("blk.0.ssm_dt.bias"), in_layer["linear_attn.dt_bias"][tiled])
    wanted = in_layer["linear_attn.out_proj.weight"].reshape(WIDTH, 4, 4)[:, tiled].reshape(WIDTH, 16)
    np.testing.assert_array_equal(found("blk.0.ssm_out.weight"), wanted)
    qkv = in_layer["linear_attn.in_proj_qkv.weight"]
    wanted = np.concatenate((qkv[:16], qkv[16:].reshape(4, 4, WIDTH)[tiled].reshape(16, WIDTH)))
    np.testing.assert_array_equal(found("blk.0.attn_qkv.weight"), wanted)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.layers.0.linear_attn.in_proj_z.weight", (15, WIDTH)),
        ("model.layers.0.linear_attn.conv1d.weight", (30, 1, 3)),
        ("model.layers.0.mlp.experts.gate_up_proj", (N_EXPERT, 2 * N_FF - 1, WIDTH)),
        ("model.layers.0.mlp.experts.gate_up_proj", (N_EXPERT - 1, 2 * N_FF, WIDTH)),
    ],
)
def test_shapes_that_contradict_the_configuration(tmp_path, name, shape):
    named = tensors() | {name: np.ones(shape, np.float32)}
    with pytest.raises(ModelError, match=name.rpartition(".layers.0.")[2].replace(".", r"\.")):
        converted(tmp_path / "checkpoint", CONFIG, named)


def test_values_that_become_infinite(tmp_path):
    named = tensors() | {"model.layers.0.linear_attn.A_log": np.full(4, 100, np.float32)}
    with pytest.raises(ModelError, match="A_log"):
        converted(tmp_path / "checkpoint", CONFIG, named)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"layer_types": ["linear_attention", "sliding_attention"]}, "layer_types"),
        ({"layer_types": ["linear_attention"]}, "recurrent_layers"),
        ({"linear_num_value_heads": 3}, "time_step_rank"),
        (
            {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.4}},
            "partial_rotary_factor",
        ),
        ({"hidden_act": "gelu"}, "hidden_act"),
    ],
)
def test_configurations_that_are_refused(tmp_path, change, word):
    with pytest.raises((ModelError, UnsupportedError), match=word):
        converted(tmp_path / "checkpoint", CONFIG | change, tensors())


def test_the_head_of_a_tied_model_is_left_out(tmp_path):
    tied = CONFIG | {"tie_word_embeddings": True}
    _, shapes, _ = converted(tmp_path / "checkpoint", tied, tensors())
    assert "output.weight" not in shapes


LATENT = {
    "model_type": "deepseek_v3",
    "hidden_size": WIDTH,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": N_FF,
    "max_position_embeddings": 32,
    "q_lora_rank": None,
    "kv_lora_rank": 6,
    "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 2,
    "v_head_dim": 5,
    "first_k_dense_replace": 1,
    "n_routed_experts": N_EXPERT,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": N_FF,
    "num_nextn_predict_layers": 1,
}


def latent_tensors():
    shapes = {
        "input_layernorm.weight": (WIDTH,),
        "post_attention_layernorm.weight": (WIDTH,),
        "self_attn.q_proj.weight": (12, WIDTH),
        "self_attn.kv_a_proj_with_mqa.weight": (8, WIDTH),
        "self_attn.kv_a_layernorm.weight": (6,),
        "self_attn.kv_b_proj.weight": (18, 6),
        "self_attn.o_proj.weight": (WIDTH, 10),
        "mlp.gate_proj.weight": (N_FF, WIDTH),
        "mlp.up_proj.weight": (N_FF, WIDTH),
        "mlp.down_proj.weight": (WIDTH, N_FF),
    }
    found = {f"model.layers.0.{name}": shape for name, shape in shapes.items()}
    found |= {"model.embed_tokens.weight": (20, WIDTH), "model.norm.weight": (WIDTH,)}
    found |= {"lm_head.weight": (20, WIDTH), "model.layers.1.eh_proj.weight": (WIDTH, 2 * WIDTH)}
    random = np.random.default_rng(4)
    return {name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in found.items()}


def test_keys_and_values_of_heads_are_taken_apart(tmp_path):
    named = latent_tensors()
    metadata, shapes, data = converted(tmp_path / "checkpoint", LATENT, named)
    assert "deepseek2.nextn_predict_layers" not in metadata
    both = named["model.layers.0.self_attn.kv_b_proj.weight"].reshape(2, 9, 6)
    for name, wanted in (("k_b", both[:, :4].swapaxes(1, 2)), ("v_b", both[:, 4:])):
        assert shapes[f"blk.0.attn_{name}.weight"] == wanted.shape
        found = np.frombuffer(data[f"blk.0.attn_{name}.weight"], np.float32).reshape(wanted.shape)
        np.testing.assert_array_equal(found, wanted)


def test_layers_behind_the_last_are_only_those_that_the_configuration_states(tmp_path):
    with pytest.raises(UnsupportedError, match="eh_proj"):
        converted(tmp_path / "checkpoint", LATENT | {"num_nextn_predict_layers": 0}, latent_tensors())


def test_a_model_within_one_that_sees_is_recognised_by_its_own_configuration(tmp_path):
    def inside(name):
        return name if name.startswith("vision_tower.") else f"language_model.{name}"

    named = latent_tensors() | {"vision_tower.patch.weight": np.ones((2, 2), np.float32)}
    nested = {"model_type": "kimi_k25", "text_config": LATENT | {"model_type": "kimi_k2"}}
    nested["text_config"]["architectures"] = ["DeepseekV3ForCausalLM"]
    whole = converted(tmp_path / "whole", nested, {inside(name): value for name, value in named.items()})
    assert whole == converted(tmp_path / "part", LATENT, latent_tensors())
