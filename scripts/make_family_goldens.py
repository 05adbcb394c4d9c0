#!/usr/bin/env python3
"""Makes goldens of tests/models by converting: tiny random checkpoints of transformers become GGUF as
anybody's would, and the logits are those of transformers.

Run by hand, when a family or a variant is added; the tests need only the files it writes:

    python -m venv /tmp/goldens
    /tmp/goldens/bin/pip install torch==2.13.0 transformers==5.24.0 sentencepiece==0.2.3 .
    /tmp/goldens/bin/python scripts/make_family_goldens.py [NAME ...]

Each golden is NAME.gguf.xz and NAME.npz (ids [T], logits [T, 48], those of the first tokens of the
vocabulary, and transformers' model type; the context that it holds for, where that matters). Weights lie on
coarse grids, so that they compress and the file holds them exactly. The reference runs in float64, also where
transformers change to float32 for a while (norms, softmax, rotations, recurrences).
"""

from __future__ import annotations

import json
import lzma
import math
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from torch.overrides import TorchFunctionMode

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "scripts")]

from make_convert_goldens import write_tokenizer  # noqa: E402

from clarion.convert import convert  # noqa: E402

GOLDENS = ROOT / "tests" / "models" / "goldens"
N_TOKENS, N_LOGITS = 32, 48


@dataclass
class Golden:
    """One model.

    Attributes:
        kind: transformers' model type; `config` changes what it says by itself.
        tokenizer: as `write_tokenizer` names it.
        loader: the class of transformers that makes it.
        prepare: changes the model's random weights, for what must not be random.
        seed: where the first does not do (scores of experts that are too close).
        context: the longest sequence that the logits hold for, where a rotation depends on it.
        dense: rows of the matrices behind the mean of a text's rows, of a model of vectors.
    """

    kind: str
    config: dict = field(default_factory=dict)
    tokenizer: str = "qwen2"
    loader: type = transformers.AutoModelForCausalLM
    prepare: Callable[[torch.nn.Module], None] | None = None
    seed: int = 1
    context: int | None = None
    dense: tuple[int, ...] = ()


def shape(width=32, heads=4, kv=2, ff=48, layers=2, **more):
    return {
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "intermediate_size": ff,
        "num_hidden_layers": layers,
        "max_position_embeddings": 64,
        **more,
    }


def scaled(rope_type, **more):
    return {"rope_parameters": {"rope_type": rope_type, "rope_theta": 500.0, **more}}


def by_layer(full, local=None):
    """Rotations of layers that look back over everything, and of those with a window."""
    usual = {"rope_type": "default", "rope_theta": 100.0}
    return {"rope_parameters": {"full_attention": usual | full, "sliding_attention": usual | (local or {})}}


LINEAR = {"rope_type": "linear", "factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LONG = {
    "long_factor": [1.0, 1.25, 2.0, 4.0],
    "short_factor": [1.0, 1.0, 1.125, 1.5],
    "partial_rotary_factor": 1.0,
}
GEMMA = {"tokenizer": "gemma"}
OSS = {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8, "head_dim": 16}
EYES = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "image_size": 16,
    "patch_size": 8,
}


@torch.no_grad()
def scale_layers(model):
    """Gives layers scales of their own, and scores, which this family does not scale, the usual magnitude."""
    for i, layer in enumerate(model.model.layers):
        layer.layer_scalar.fill_(0.75 + i / 8)
        layer.self_attn.q_norm.weight.mul_(0.25)


def gemma4(**more):
    return {
        **shape(heads=4, kv=2, ff=24, head_dim=8, sliding_window=8),
        "global_head_dim": 16,
        "hidden_size_per_layer_input": 0,
        **by_layer({"rope_type": "proportional", "partial_rotary_factor": 0.5}, {"rope_theta": 50.0}),
        **more,
    }


def hybrid(key_heads=2, value_heads=4, **more):
    """A state of fixed size in three of four layers."""
    return shape(
        layers=4,
        head_dim=16,
        linear_conv_kernel_dim=4,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        linear_num_key_heads=key_heads,
        linear_num_value_heads=value_heads,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 100.0,
            "partial_rotary_factor": 0.5,
            "mrope_section": [2, 1, 1],
        },
        **more,
    )


def shared_experts(**more):
    return {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 8,
        "shared_expert_intermediate_size": 16,
        **more,
    }


def latent(**more):
    """Latent attention, experts behind a dense layer."""
    return shape(
        kv=4,
        layers=3,
        q_lora_rank=24,
        kv_lora_rank=16,
        qk_nope_head_dim=8,
        qk_rope_head_dim=4,
        v_head_dim=12,
        first_k_dense_replace=1,
        n_routed_experts=8,
        num_experts_per_tok=3,
        moe_intermediate_size=8,
        n_shared_experts=2,
        n_group=4,
        topk_group=2,
        routed_scaling_factor=1.5,
        **more,
    )


def stretched(multiplier, **more):
    """YaRN, which raises the scores."""
    return {
        "rope_type": "yarn",
        "rope_theta": 500.0,
        "factor": 4.0,
        "original_max_position_embeddings": 16,
        "mscale": multiplier,
        "mscale_all_dim": multiplier,
        **more,
    }


def scanned(**more):
    """No attention."""
    return {"hidden_size": 32, "state_size": 8, "num_hidden_layers": 3, **more}


def choice_biases(model: torch.nn.Module) -> None:
    """Random biases of the choice of experts, which are no parameters."""
    generator = torch.Generator().manual_seed(2)
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            noise = torch.randn(buffer.shape, generator=generator, dtype=torch.float64)
            buffer.copy_(torch.round(noise * 16) / 64)


ALTERNATING = ["sliding_attention", "full_attention"]
GOLDENS_TABLE: dict[str, Golden] = {
    "mistral-converted": Golden("mistral", shape(sliding_window=8, head_dim=16), tokenizer="spm-json"),
    "gemma2": Golden(
        "gemma2",
        shape(
            layers=3,
            head_dim=12,
            sliding_window=8,
            query_pre_attn_scalar=24,
            attn_logit_softcapping=2.0,
            final_logit_softcapping=3.0,
        ),
        **GEMMA,
    ),
    "gemma2-mha": Golden(
        "gemma2", shape(kv=4, head_dim=8, sliding_window=12, query_pre_attn_scalar=8), **GEMMA
    ),
    "gemma3": Golden(
        "gemma3_text",
        shape(layers=7, heads=2, kv=1, head_dim=12, sliding_window=8, query_pre_attn_scalar=12, ff=24)
        | by_layer({"rope_theta": 5000.0} | LINEAR),
        **GEMMA,
    ),
    "gemma3-pattern": Golden(
        "gemma3_text",
        shape(
            layers=3,
            width=36,
            heads=3,
            kv=3,
            head_dim=16,
            sliding_window=5,
            query_pre_attn_scalar=20,
            tie_word_embeddings=False,
            final_logit_softcapping=2.0,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        ),
        **GEMMA,
    ),
    "gemma3-nested": Golden(
        "gemma3",
        {
            "text_config": shape(head_dim=8, sliding_window=6, query_pre_attn_scalar=8)
            | {"layer_types": ["full_attention", "sliding_attention"]},
            "vision_config": EYES,
            "mm_tokens_per_image": 4,
        },
        loader=transformers.AutoModelForImageTextToText,
        **GEMMA,
    ),
    "gemma4": Golden(
        "gemma4_text",
        gemma4(
            num_hidden_layers=3,
            layer_types=["sliding_attention", *ALTERNATING],
            num_global_key_value_heads=1,
            attention_k_eq_v=True,
            final_logit_softcapping=3.0,
        ),
        prepare=scale_layers,
        **GEMMA,
    ),
    "gemma4-experts": Golden(
        "gemma4_text",
        gemma4(
            layer_types=ALTERNATING,
            intermediate_size=16,
            enable_moe_block=True,
            num_experts=4,
            top_k_experts=2,
            moe_intermediate_size=8,
            tie_word_embeddings=False,
        ),
        prepare=scale_layers,
        **GEMMA,
    ),
    "gemma4-shared": Golden(
        "gemma4_text",
        gemma4(
            num_hidden_layers=6,
            hidden_size=24,
            num_attention_heads=3,
            num_key_value_heads=1,
            layer_types=ALTERNATING * 3,
            num_kv_shared_layers=2,
            use_double_wide_mlp=True,
            intermediate_size=8,
            hidden_size_per_layer_input=4,
            vocab_size_per_layer_input=320,
        ),
        prepare=scale_layers,
        seed=4,
        **GEMMA,
    ),
    "gemma4-nested": Golden(
        "gemma4",
        {
            "text_config": gemma4(layer_types=ALTERNATING, pad_token_id=0),
            "vision_config": EYES | {"head_dim": 8, "num_key_value_heads": 1, "position_embedding_size": 16},
            "audio_config": None,
        },
        loader=transformers.AutoModelForImageTextToText,
        **GEMMA,
    ),
    "gemma-embedding": Golden(
        "gemma3_text",
        shape(
            layers=3,
            head_dim=12,
            sliding_window=8,
            query_pre_attn_scalar=12,
            use_bidirectional_attention=True,
        )
        | {"use_bidirectional_attention": True, "layer_types": ["sliding_attention", *ALTERNATING]}
        | by_layer({"rope_theta": 5000.0}),
        loader=transformers.AutoModel,
        dense=(48, 32),
        **GEMMA,
    ),
    "gemma-embedding-mean": Golden(
        "gemma3_text",
        shape(heads=3, kv=1, width=36, head_dim=8, sliding_window=7, query_pre_attn_scalar=8)
        | {"use_bidirectional_attention": True, "layer_types": ALTERNATING},
        loader=transformers.AutoModel,
        **GEMMA,
    ),
    "smollm3": Golden("smollm3", shape(layers=5, tie_word_embeddings=True)),
    "smollm3-yarn": Golden(
        "smollm3",
        shape(layers=4, heads=3, kv=1, width=36, tie_word_embeddings=False) | scaled(**YARN),
        seed=2,
    ),
    "olmo2": Golden("olmo2", shape(layers=2)),
    "olmo2-mha": Golden("olmo2", shape(kv=4, tie_word_embeddings=True)),
    "olmo3": Golden("olmo3", shape(layers=4, sliding_window=8) | by_layer(YARN)),
    "phi3": Golden("phi3", shape(sliding_window=8, kv=4)),
    "phi4-mini": Golden(
        "phi3",
        shape(heads=2, kv=1, tie_word_embeddings=True, original_max_position_embeddings=16)
        | scaled(
            "longrope",
            long_factor=[1.0, 1.25, 2.0, 4.0, 6.0, 9.0],
            short_factor=[1.0, 1.0, 1.125, 1.5, 1.75, 2.0],
            partial_rotary_factor=0.75,
        ),
    ),
    "phi3-short": Golden(
        "phi3", shape(original_max_position_embeddings=32) | scaled("longrope", **LONG), context=32
    ),
    "glm4": Golden("glm4", shape(head_dim=16, attention_bias=True)),
    "glm4-third": Golden(
        "glm4",
        shape(heads=3, kv=3, width=36, head_dim=12, attention_bias=False, tie_word_embeddings=True)
        | scaled("default", partial_rotary_factor=0.34),
    ),
    "gpt-oss": Golden("gpt_oss", shape(layers=2, ff=24, **OSS) | scaled(**YARN, truncate=False)),
    "gpt-oss-mqa": Golden(
        "gpt_oss",
        shape(heads=3, kv=1, ff=24, **OSS | {"num_experts_per_tok": 3, "head_dim": 8})
        | {"layer_types": ["full_attention", "sliding_attention"]}
        | scaled("default"),
    ),
    "mamba": Golden("mamba", scanned()),
    "mamba-falcon": Golden("falcon_mamba", scanned(tie_word_embeddings=False)),
    "mamba2": Golden("mamba2", scanned(num_heads=4, head_dim=16, n_groups=2)),
    "mamba2-tied": Golden(
        "mamba2", scanned(num_heads=6, head_dim=8, n_groups=1, hidden_size=24, tie_word_embeddings=True)
    ),
    "qwen3next": Golden("qwen3_next", hybrid(**shared_experts())),
    "qwen35": Golden("qwen3_5_text", hybrid()),
    "qwen35-tied": Golden("qwen3_5_text", hybrid(3, 6, tie_word_embeddings=True)),
    "qwen35-equal-heads": Golden("qwen3_5_text", hybrid(2, 2, kv=1), seed=2),
    "deepseek2": Golden("deepseek_v3", latent(rope_parameters=stretched(1.0)), prepare=choice_biases),
    "deepseek2-v2": Golden(
        "deepseek_v2", latent(topk_method="group_limited_greedy", rope_parameters=stretched(0.7))
    ),
    "deepseek2-lite": Golden("deepseek_v2", latent() | {"q_lora_rank": None, "n_group": 1, "topk_group": 1}),
    "deepseek2-glm": Golden(
        "glm4_moe_lite", latent(rms_norm_eps=1e-5) | {"n_group": 1, "topk_group": 1}, prepare=choice_biases
    ),
    "mistral4": Golden(
        "mistral4",
        latent(rope_parameters=stretched(1.0, llama_4_scaling_beta=0.1)),
        loader=transformers.Mistral4ForCausalLM,
    ),
    "qwen35moe": Golden("qwen3_5_moe_text", hybrid(**shared_experts())),
}


class Doubled(TorchFunctionMode):
    """float64 wherever a function of torch is asked for float32."""

    def __torch_function__(self, function, types, arguments=(), options=None):
        def doubled(value):
            return torch.float64 if value is torch.float32 else value

        if function is torch.Tensor.float:
            function = torch.Tensor.double
        options = {key: doubled(value) for key, value in (options or {}).items()}
        return function(*map(doubled, arguments), **options)


def random_weights(model: torch.nn.Module, seed: int) -> None:
    """Fills the model: matrices of variance 1/fan-in, so that activations and attention scores stay near
    1."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        if parameter.ndim == 1:
            value = noise / 4 + (0.0 if name.endswith("bias") else 1.0)
            grid = 1 / 64
        elif "embed" in name:
            value, grid = noise, 1 / 2
        else:
            sigma = 1.3 / math.sqrt(parameter.shape[-1])
            value, grid = noise * sigma, 2.0 ** math.floor(math.log2(sigma / 1.5))
        parameter.data.copy_(torch.round(value / grid) * grid)


def write_modules(folder: Path, dense: list[torch.Tensor]) -> None:
    """What Sentence Transformers have beside a model: the mean of rows, and matrices behind it."""
    paths = ["1_Pooling", *(f"{i + 2}_Dense" for i in range(len(dense)))]
    for path in paths:
        (folder / path).mkdir()
    kinds = [{"type": f"sentence_transformers.models.{path[2:]}", "path": path} for path in paths]
    (folder / "modules.json").write_text(json.dumps(kinds))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    for path, weight in zip(paths[1:], dense, strict=True):
        n_out, n_in = weight.shape
        options = {"in_features": n_in, "out_features": n_out, "bias": False}
        options["activation_function"] = "torch.nn.modules.linear.Identity"
        (folder / path / "config.json").write_text(json.dumps(options))
        save_file({"linear.weight": weight.float()}, folder / path / "model.safetensors")


@torch.no_grad()
def encode(model: torch.nn.Module, ids: torch.Tensor, golden: Golden, folder: Path) -> dict:
    """The rows and the vector of a text, by a model of vectors, and what stands behind it in the folder."""
    generator = torch.Generator().manual_seed(golden.seed)
    sizes = (model.config.hidden_size, *golden.dense)
    dense = [torch.randn((m, n), generator=generator).mul(2).round() / 8 for n, m in pairwise(sizes)]
    with Doubled():
        rows = model(ids).last_hidden_state[0]
    vector = rows.mean(0)
    for weight in dense:
        vector = weight.double() @ vector
    write_modules(folder, dense)
    return {"rows": rows.numpy().astype(np.float32), "vector": vector.numpy().astype(np.float32)}


@torch.no_grad()
def make(name: str, golden: Golden) -> None:
    rng = np.random.default_rng(golden.seed)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, path = Path(folder, "checkpoint"), Path(folder, "model.gguf")
        checkpoint.mkdir()
        n_vocab = write_tokenizer(checkpoint, golden.tokenizer)
        figures = golden.config.get("text_config", golden.config)
        # None of the tokens that a model's configuration names by itself are in so small a vocabulary.
        others = {"pad_token_id": None, "eos_token_id": 1, "bos_token_id": None}
        figures |= {**others, **figures, "vocab_size": n_vocab}
        config = transformers.AutoConfig.for_model(golden.kind, **golden.config)
        eager = {"attn_implementation": "eager", "experts_implementation": "eager"}  # others know no float64
        with Doubled():
            make = getattr(golden.loader, "from_config", None) or golden.loader._from_config
            model = make(config, **eager).double().eval()
        random_weights(model, golden.seed)
        if golden.prepare:
            golden.prepare(model)
        ids = torch.from_numpy(rng.integers(0, n_vocab, (1, N_TOKENS)))
        if golden.loader is transformers.AutoModel:
            found = encode(model, ids, golden, checkpoint)
        else:
            with Doubled():
                found = {"logits": model(ids).logits[0, :, :N_LOGITS].numpy().astype(np.float32)}
        model.float().save_pretrained(checkpoint)
        (checkpoint / "generation_config.json").unlink(missing_ok=True)
        convert(checkpoint, path, type="F32")
        data = path.read_bytes()
    (GOLDENS / f"{name}.gguf.xz").write_bytes(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
    arrays = {"ids": ids[0].numpy().astype(np.int32), "kind": golden.kind, **found}
    if golden.context is not None:
        arrays["context"] = np.int32(golden.context)
    np.savez_compressed(GOLDENS / f"{name}.npz", **arrays)
    size = sum(path.stat().st_size for path in GOLDENS.glob(f"{name}.*"))
    spread = next(iter(found.values())).std()
    print(f"{name:24} spread {spread:.2f}  {size:7} bytes", flush=True)


def main() -> None:
    for name in sys.argv[1:] or GOLDENS_TABLE:
        make(name, GOLDENS_TABLE[name])


if __name__ == "__main__":
    main()
