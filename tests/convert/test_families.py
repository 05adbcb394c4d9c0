"""What the configurations of families say beyond a Llama's: windows, rotations, figures by layer, MXFP4."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from clarion.convert import convert, families
from clarion.errors import ModelError, UnsupportedError
from tests.convert import quantized
from tests.convert.checkpoints import bytes_tokenizer
from tests.convert.checkpoints import write as write_llama
from tests.convert.files import write_safetensors

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 128,
    "head_dim": 8,
}
GEMMA = {"query_pre_attn_scalar": 16, "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 8}
CAPS = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
FULL, NEAR = "full_attention", "sliding_attention"


def metadata(model_type, **values):
    """The file's hyperparameters, by their names below the architecture's."""
    values = {"model_type": model_type, **SIZES, **values}
    config = families._of_text(values, "config.json")
    _, kind = families.recognise(values)
    for key, allowed in kind.only.items():
        config.only(key, *allowed)
    return families._metadata(config, kind)[0]


def factors(model_type, **values):
    values = {"model_type": model_type, **SIZES, **values}
    return families._metadata(families._of_text(values, "config.json"), families.recognise(values)[1])[1]


def test_layers_with_a_window():
    """A file states which these are where it is not the family's usual pattern."""
    found = metadata("gemma2", **GEMMA, **CAPS)
    assert found["attention.sliding_window"] == 8
    assert "attention.sliding_window_pattern" not in found
    found = metadata("gemma2", **GEMMA, **CAPS, layer_types=[NEAR, FULL] * 3)
    assert "attention.sliding_window_pattern" not in found
    found = metadata("gemma2", **GEMMA, **CAPS, layer_types=[FULL] * 5 + [NEAR])
    assert found["attention.sliding_window_pattern"] == [False] * 5 + [True]
    found = metadata("gemma3_text", **GEMMA, sliding_window_pattern=3)
    assert found["attention.sliding_window_pattern"] == [True, True, False] * 2
    assert metadata("gemma3_text", **GEMMA, sliding_window_pattern=1)["attention.sliding_window"] == 0
    assert "attention.sliding_window" not in metadata("olmo2")


def test_figures_that_are_computed():
    found = metadata("gemma2", **GEMMA, **CAPS)
    assert found["attention.scale"] == 0.25
    assert metadata("gemma3_text", **GEMMA)["final_logit_softcapping"] == 0.0
    found = metadata(
        "gemma4_text",
        sliding_window=8,
        global_head_dim=16,
        num_global_key_value_heads=1,
        attention_k_eq_v=True,
        num_kv_shared_layers=2,
        use_double_wide_mlp=True,
        layer_types=[NEAR, FULL] * 3,
    )
    assert (found["attention.key_length"], found["attention.key_length_swa"]) == (16, 8)
    assert found["attention.head_count_kv"] == [2, 1] * 3
    assert found["feed_forward_length"] == [32] * 4 + [64] * 2
    assert "expert_count" not in found


def test_rotations_by_kind_of_layer():
    new = {NEAR: {"rope_theta": 100.0}, FULL: {"rope_theta": 5e5, "rope_type": "linear", "factor": 8.0}}
    old = {
        "rope_theta": 5e5,
        "rope_local_base_freq": 100.0,
        "rope_scaling": {"type": "linear", "factor": 8.0},
    }
    for values in ({"rope_parameters": new}, old):
        found = metadata("gemma3_text", **GEMMA, **values)
        assert found["rope.freq_base"] == 5e5
        assert found["rope.freq_base_swa"] == 100.0
        assert found["rope.scaling.factor"] == 8.0
    assert metadata("gemma3_text", **GEMMA)["rope.freq_base"] == 1e6
    assert metadata("glm4", partial_rotary_factor=0.25)["rope.dimension_count"] == 2
    assert metadata("glm4")["rope.dimension_count"] == 4


def test_longrope():
    """Divisors for texts within the original context, and for longer ones; their ratio is the magnitude."""
    scaling = {"long_factor": [1.0, 2.0, 3.0, 4.0], "short_factor": [1.0] * 4}
    for name in ("longrope", "su", "yarn"):
        values = {"rope_scaling": {"type": name, **scaling}, "original_max_position_embeddings": 32}
        found = metadata("phi3", **values)
        assert found["rope.scaling.original_context_length"] == 32
        assert found["rope.scaling.attn_factor"] == pytest.approx((1 + np.log(4) / np.log(32)) ** 0.5)
        assert "rope.scaling.type" not in found
        tables = factors("phi3", **values)
        assert tables["rope_factors_long.weight"].tolist() == [1, 2, 3, 4]
        assert tables["rope_factors_short.weight"].tolist() == [1] * 4


def test_pairs_that_do_not_turn():
    parameters = {FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6}}
    found = factors("gemma4_text", sliding_window=8, layer_types=[FULL] * 6, rope_parameters=parameters)
    assert found["rope_freqs.weight"].tolist() == [1.0] + [np.float32(1e30)] * 3


REFUSED = [
    (UnsupportedError, "gemma2", {"layer_types": ["chunked_attention"] * 6}, ["layer_types"]),
    (UnsupportedError, "gemma2", {"layer_types": [FULL]}, ["layer_types"]),
    (ModelError, "gemma2", {"final_logit_softcapping": None}, ["final_logit_softcapping"]),
    (UnsupportedError, "gemma3_text", {"use_bidirectional_attention": True}, ["use_bidirectional_attention"]),
    (UnsupportedError, "gemma3_text", {"attn_logit_softcapping": 50.0}, ["attn_logit_softcapping"]),
    (UnsupportedError, "gemma4_text", {"use_bidirectional_attention": "all"}, ["bidirectional", "all"]),
    (UnsupportedError, "smollm3", {"no_rope_layers": [1] * 6}, ["no_rope_layers"]),
    (UnsupportedError, "smollm3", {"no_rope_layer_interval": 3}, ["no_rope_layer_interval", "3"]),
    (ModelError, "phi3", {"rope_scaling": {"type": "longrope", "long_factor": [1.0]}}, ["long_factor"]),
    (ModelError, "glm4", {"partial_rotary_factor": 0.4}, ["partial_rotary_factor"]),
    (UnsupportedError, "olmo2", {"partial_rotary_factor": 0.5}, ["partial_rotary_factor"]),
    (UnsupportedError, "gpt_oss", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, ["truncate"]),
    (UnsupportedError, "gpt_oss", {"swiglu_limit": 5.0}, ["swiglu_limit"]),
]


@pytest.mark.parametrize(("error", "kind", "values", "words"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_files_cannot_state(error, kind, values, words):
    base = {**GEMMA, **CAPS} if kind == "gemma2" else {}
    base = GEMMA if kind == "gemma3_text" else base
    if kind == "gpt_oss":
        base = {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8}
    with pytest.raises(error) as caught:
        metadata(kind, **{**base, **values})
    assert all(word in str(caught.value) for word in words)


WIDTH, N_EXPERT = 32, 3
OSS = {
    "model_type": "gpt_oss",
    "architectures": ["GptOssForCausalLM"],
    "hidden_size": WIDTH,
    "intermediate_size": WIDTH,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "num_local_experts": N_EXPERT,
    "num_experts_per_tok": 2,
    "sliding_window": 8,
    "layer_types": [NEAR],
}


MXFP4 = {"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["model.norm"]}}


def gpt_oss(folder, *, kept):
    """A checkpoint with experts in MXFP4, or with the numbers that these stand for."""
    random, layer = np.random.default_rng(0), "model.layers.0."
    write_llama(folder, bytes_tokenizer(), spare=0, **OSS, **(MXFP4 if kept else {}))
    n_vocab = bytes_tokenizer().get_vocab_size()
    shapes = {"model.embed_tokens.weight": (n_vocab, WIDTH), "lm_head.weight": (n_vocab, WIDTH)}
    shapes |= {"model.norm.weight": (WIDTH,), layer + "input_layernorm.weight": (WIDTH,)}
    shapes |= {layer + "post_attention_layernorm.weight": (WIDTH,), layer + "self_attn.sinks": (2,)}
    for name, n in (("q", 32), ("k", 16), ("v", 16), ("o", WIDTH)):
        shapes[f"{layer}self_attn.{name}_proj.weight"] = (n, 32)
        shapes[f"{layer}self_attn.{name}_proj.bias"] = (n,)
    shapes |= {layer + "mlp.router.weight": (N_EXPERT, WIDTH), layer + "mlp.router.bias": (N_EXPERT,)}
    experts = layer + "mlp.experts."
    shapes |= {
        experts + "gate_up_proj_bias": (N_EXPERT, 2 * WIDTH),
        experts + "down_proj_bias": (N_EXPERT, WIDTH),
    }
    tensors = {name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    for name, rows in (("gate_up_proj", 2 * WIDTH), ("down_proj", WIDTH)):
        made = quantized.mxfp4(random, N_EXPERT, rows, WIDTH)
        if kept:
            tensors |= {f"{experts}{name}{end}": part for end, part in made.parts.items()}
        else:
            tensors[experts + name] = made.values.swapaxes(1, 2).astype(np.float32)
    write_safetensors(folder / "model.safetensors", tensors)
    return folder


def test_experts_of_gpt_oss_stay_in_mxfp4(tmp_path):
    (path,) = convert(gpt_oss(tmp_path / "kept", kept=True), tmp_path / "kept.gguf")
    (exact,) = convert(gpt_oss(tmp_path / "plain", kept=False), tmp_path / "plain.gguf", "f32")
    plain = {tensor.name: tensor for tensor in gguf.GGUFReader(exact).tensors}
    n_kept = 0
    for tensor in gguf.GGUFReader(path).tensors:
        if tensor.tensor_type == gguf.GGMLQuantizationType.MXFP4:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            np.testing.assert_array_equal(values, plain[tensor.name].data)
            n_kept += 1
    assert n_kept == 3
