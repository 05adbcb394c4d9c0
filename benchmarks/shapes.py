"""The shapes of published models, as files state them; `random_family.py` fills them with random weights.

A shape is the metadata of a file, below its architecture's name. Which tensors the file holds, and in which
shapes, says the family's graph; only what a family leaves open stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's shape.

    Attributes:
        architecture: its family's name in files.
        recipe: which tensor gets which format, by the name of `clarion quantize`.
        vocabulary: tokens.
        keys: the metadata below the architecture's name.
        optional: a regular expression of the tensors, named without their layer, that the family reads where
            a file has them, and that this file has.
        heights: rows of the tables whose height only a file knows, beside that of tokens.
        others: metadata of other names.
    """

    architecture: str
    recipe: str
    vocabulary: int
    keys: Mapping[str, Any]
    optional: str
    heights: Mapping[str, int] = field(default_factory=dict)
    others: Mapping[str, Any] = field(default_factory=dict)


SHAPES = {
    "gemma3-1b": Shape(
        "gemma3",
        "Q4_K_M",
        262144,
        {
            "block_count": 26,
            "context_length": 32768,
            "embedding_length": 1152,
            "feed_forward_length": 6912,
            "attention.head_count": 4,
            "attention.head_count_kv": 1,
            "attention.key_length": 256,
            "attention.value_length": 256,
            "attention.layer_norm_rms_epsilon": 1e-6,
            "attention.sliding_window": 512,
            "rope.freq_base": 1e6,
        },
        r"ffn_gate\.weight",
    ),
    "qwen3.5-0.8b": Shape(
        "qwen35",
        "Q4_K_M",
        248320,
        {
            "block_count": 24,
            "context_length": 262144,
            "embedding_length": 1024,
            "feed_forward_length": 3584,
            "attention.head_count": 8,
            "attention.head_count_kv": 2,
            "attention.key_length": 256,
            "attention.value_length": 256,
            "attention.layer_norm_rms_epsilon": 1e-6,
            "rope.dimension_count": 64,
            "rope.dimension_sections": [11, 11, 10, 0],
            "rope.freq_base": 1e7,
            "full_attention_interval": 4,
            "ssm.conv_kernel": 4,
            "ssm.group_count": 16,
            "ssm.inner_size": 2048,
            "ssm.state_size": 128,
            "ssm.time_step_rank": 16,
        },
        r"ffn_gate\.weight",
    ),
    "gpt-oss-20b-4-layers": Shape(
        "gpt-oss",
        "MXFP4_MOE",
        201088,
        {
            "block_count": 4,  # of 24
            "context_length": 131072,
            "embedding_length": 2880,
            "feed_forward_length": 2880,
            "attention.head_count": 64,
            "attention.head_count_kv": 8,
            "attention.key_length": 64,
            "attention.value_length": 64,
            "attention.layer_norm_rms_epsilon": 1e-5,
            "attention.sliding_window": 128,
            "expert_count": 32,
            "expert_used_count": 4,
            "expert_feed_forward_length": 2880,
            "rope.freq_base": 150000.0,
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 32.0,
            "rope.scaling.original_context_length": 4096,
        },
        r"attn_(q|k|v|output)\.bias|ffn_gate_inp\.bias|ffn_(gate|up|down)_exps\.bias|output\.weight",
    ),
    "deepseek2-lite-4-layers": Shape(
        "deepseek2",
        "Q4_K_M",
        102400,
        {
            "block_count": 4,  # of 27, the first of them without experts
            "context_length": 163840,
            "embedding_length": 2048,
            "feed_forward_length": 10944,
            "leading_dense_block_count": 1,
            "attention.head_count": 16,
            "attention.head_count_kv": 1,
            "attention.key_length": 576,
            "attention.value_length": 512,
            "attention.key_length_mla": 192,
            "attention.value_length_mla": 128,
            "attention.kv_lora_rank": 512,
            "attention.q_lora_rank": 0,  # llama.cpp wants the key where there are not 27 layers
            "attention.layer_norm_rms_epsilon": 1e-6,
            "expert_count": 64,
            "expert_used_count": 6,
            "expert_feed_forward_length": 1408,
            "expert_shared_count": 2,
            "expert_gating_func": 1,
            "expert_weights_scale": 1.0,
            "rope.dimension_count": 64,
            "rope.freq_base": 10000.0,
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 40.0,
            "rope.scaling.original_context_length": 4096,
            "rope.scaling.yarn_log_multiplier": 0.0707,
        },
        r"attn_k_b\.weight|ffn_gate(_shexp)?\.weight|output\.weight",
    ),
    "bert-base": Shape(
        "bert",
        "Q8_0",
        30522,
        {
            "block_count": 12,
            "context_length": 512,
            "embedding_length": 768,
            "feed_forward_length": 3072,
            "attention.head_count": 12,
            "attention.layer_norm_epsilon": 1e-12,
            "attention.causal": False,
            "pooling_type": 1,
        },
        r"\w+\.bias|token_types\.weight",
        {"position_embd": 512, "token_types": 2},
        {"tokenizer.ggml.token_type_count": 2},
    ),
}
