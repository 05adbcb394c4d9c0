#!/usr/bin/env python3
"""Makes the goldens of tests/models: tiny random models as GGUF, and the logits that Hugging Face
transformers gives.

Run by hand, when a family or a variant is added; the tests need only the files it writes:

    python -m venv /tmp/goldens && /tmp/goldens/bin/pip install torch==2.13.0 transformers==5.23.0
    gguf==0.19.0 /tmp/goldens/bin/python scripts/make_goldens.py [NAME ...]

Each golden is NAME.gguf.xz and NAME.npz (ids [T], logits [T, n_vocab]). Weights lie on coarse grids, so that
they compress. The reference runs in float64 (transformers keeps its norms, softmax and rotations in float32:
1e-7 of the result). Weights in quantised formats are put into the reference with the values that they have in
the file.
"""

from __future__ import annotations

import lzma
import math
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "src"))

from clarion.models import FAMILIES  # noqa: E402
from clarion.models.family import TENSORS, HuggingFace  # noqa: E402

GOLDENS = ROOT / "tests" / "models" / "goldens"
N_TOKENS, N_VOCAB = 32, 80
MIN_ROUTER_MARGIN = 3e-3  # between the last expert chosen and the next, so that rounding cannot swap them


@dataclass
class Golden:
    """One model. `formats` maps a part of a tensor's name to its format; matrices else are F32."""

    kind: str  # transformers' model type
    config: dict
    formats: dict[str, str] = field(default_factory=dict)
    metadata: dict = field(default_factory=dict)  # keys below the architecture, beside those from the config
    n_rot: int = 0  # elements of a head that are rotated, where not all


def shape(width=48, heads=4, kv=2, ff=72, layers=2, **more):
    return {
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "intermediate_size": ff,
        "num_hidden_layers": layers,
        "vocab_size": N_VOCAB,
        "max_position_embeddings": 64,
        "tie_word_embeddings": False,
        **more,
    }


def scaled(kind, **more):
    return {"rope_type": kind, "rope_theta": 500.0, **more}


K_QUANTS = {
    "attn_q": "Q4_K",
    "attn_k": "Q5_K",
    "attn_v": "Q6_K",
    "ffn_gate": "Q4_K",
    "ffn_up": "Q5_K",
    "attn_output": "Q8_0",
    "output": "Q6_K",
    "token_embd": "Q4_K",
    "ffn_down": "Q4_0",
}

GOLDENS_TABLE = {
    "llama-mha": Golden("llama", shape(kv=4)),
    "llama-gqa-tied": Golden("llama", shape(heads=6, kv=2, tie_word_embeddings=True)),
    "llama-mqa-head20": Golden("llama", shape(heads=3, kv=1, head_dim=20, layers=3)),
    "llama-bias": Golden("llama", shape(attention_bias=True, mlp_bias=True, rms_norm_eps=1e-4)),
    "llama-linear": Golden("llama", shape(rope_parameters=scaled("linear", factor=4.0))),
    "llama-yarn": Golden(
        "llama", shape(rope_parameters=scaled("yarn", factor=4.0, original_max_position_embeddings=16))
    ),
    "llama-llama3": Golden(
        "llama",
        shape(
            rope_parameters=scaled(
                "llama3",
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=32,
            )
        ),
    ),
    "llama-f16": Golden("llama", shape(width=64), {"": "F16"}),
    "llama-bf16": Golden("llama", shape(width=64), {"": "BF16"}),
    "llama-q8_0": Golden("llama", shape(width=64, ff=96, tie_word_embeddings=True), {"": "Q8_0"}),
    "llama-q4_0": Golden("llama", shape(width=64, ff=96), {"": "Q4_0"}),
    "llama-split": Golden("llama", shape(width=64, ff=96), {"attn_k": "F16", "ffn_up": "F32", "": "Q8_0"}),
    "llama-k-quants": Golden(
        "llama", shape(width=256, heads=4, kv=2, head_dim=16, ff=64, layers=1), K_QUANTS
    ),
    "mistral-window": Golden("mistral", shape(sliding_window=8, head_dim=16)),
    "mixtral": Golden("mixtral", shape(ff=32, num_local_experts=5, num_experts_per_tok=2)),
    "mixtral-q8_0": Golden(
        "mixtral",
        shape(width=64, ff=32, num_local_experts=4, num_experts_per_tok=2, layers=1),
        {"ffn_gate_inp": "F32", "": "Q8_0"},
    ),
    "qwen2-tied": Golden("qwen2", shape(tie_word_embeddings=True)),
    "qwen2-yarn": Golden(
        "qwen2",
        shape(
            rope_parameters=scaled(
                "yarn",
                factor=3.0,
                original_max_position_embeddings=40,
                beta_fast=1.0,
                beta_slow=0.1,
                attention_factor=1.3,
            ),
            max_position_embeddings=120,
        ),
    ),
    "qwen2-partial": Golden("qwen2", shape(), n_rot=8),
    "qwen3": Golden("qwen3", shape(head_dim=20, tie_word_embeddings=True)),
    "qwen3moe": Golden(
        "qwen3_moe",
        shape(
            head_dim=16,
            num_experts=6,
            num_experts_per_tok=3,
            moe_intermediate_size=24,
            norm_topk_prob=True,
        ),
    ),
    "qwen3moe-raw": Golden(
        "qwen3_moe",
        shape(
            head_dim=16,
            num_experts=6,
            num_experts_per_tok=2,
            moe_intermediate_size=24,
            norm_topk_prob=False,
        ),
        metadata={"expert_weights_norm": False},
    ),
    "bitnet": Golden("bitnet", shape(tie_word_embeddings=True, hidden_act="silu")),
    "bitnet-tq2_0": Golden(
        "bitnet",
        shape(width=256, heads=4, kv=2, ff=256, layers=1, tie_word_embeddings=True, hidden_act="silu"),
        {"blk": "TQ2_0"},
    ),
}

KINDS = {kind.model_type: kind for family in FAMILIES.values() for kind in family.checkpoints}
ARCHITECTURES = {
    kind.model_type: family.architecture for family in FAMILIES.values() for kind in family.checkpoints
}


def random_weights(model, seed: int) -> None:
    """Fills the model: matrices of variance 1/fan-in, so that activations and attention scores stay near
    1."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        if parameter.ndim == 1:
            value = noise / 4 + (0.0 if name.endswith("bias") else 1.0)
            grid = 1 / 64
        elif "embed_tokens" in name:
            value, grid = noise, 1 / 16
        else:
            sigma = 1.3 / math.sqrt(parameter.shape[-1])
            value, grid = noise * sigma, 2.0 ** math.floor(math.log2(sigma / 12))
        parameter.data.copy_(torch.round(value / grid) * grid)


def gguf_tensors(model, kind: str) -> dict[str, tuple[torch.Tensor, tuple[int, ...]]]:
    """Each tensor of the file: a view of the model's parameter in the file's order, and its shape in the
    file."""
    tensors = {}
    head_dim = model.model.layers[0].self_attn.head_dim
    family = KINDS.get(kind, HuggingFace(kind))
    names = {
        theirs.removeprefix("model."): ours for ours, theirs in (*TENSORS.items(), *family.tensors.items())
    }
    for name, parameter in model.named_parameters():
        module, _, leaf = name.removeprefix("model.").rpartition(".")
        value = parameter.data
        if module in names:
            tensors[f"{names[module]}.{leaf}"] = (value, value.shape)
            continue
        _, layer, inner = module.split(".", 2)
        if leaf == "gate_up_proj":
            gate, up = value.chunk(2, dim=1)
            tensors[f"blk.{layer}.ffn_gate_exps.weight"] = (gate, gate.shape)
            tensors[f"blk.{layer}.ffn_up_exps.weight"] = (up, up.shape)
        elif leaf == "down_proj":
            tensors[f"blk.{layer}.ffn_down_exps.weight"] = (value, value.shape)
        else:
            shape = value.shape
            ours = names[f"layers.{{layer}}.{inner}"]
            if ours in family.interleaved:
                # Halves (i, i + n/2) become neighbours (2i, 2i + 1).
                value = value.view(-1, 2, head_dim // 2, *shape[1:]).transpose(1, 2)
            tensors[f"blk.{layer}.{ours}.{leaf}"] = (value, shape)
    return tensors


def quantize(values: np.ndarray, name: str, rng: np.random.Generator) -> np.ndarray:
    """Rows in a format; the K formats, which the gguf package only reads, as random blocks of the right
    scale."""
    kind = gguf.GGMLQuantizationType[name]
    if name not in ("Q4_K", "Q5_K", "Q6_K"):
        return gguf.quants.quantize(values, kind)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (*values.shape[:-1], values.shape[-1] // block, size), dtype=np.uint8)
    sigma = values.std()
    if name == "Q6_K":  # d · scale · (q - 32), d last
        blocks[..., -2:] = np.float16([sigma / 1360]).view(np.uint8)
    else:  # d · scale · q - d_min · minimum, d and d_min first
        middle = {"Q4_K": 7.5, "Q5_K": 15.5}[name]
        d = sigma / (25 * middle)
        blocks[..., :4] = np.float16([d, d * middle]).view(np.uint8)
    return blocks.reshape(*values.shape[:-1], -1)


def write_gguf(path: Path, golden: Golden, config, tensors, rng) -> None:
    # A family that converts none of transformers' checkpoints has the name of its model type.
    architecture = ARCHITECTURES.get(golden.kind, golden.kind)
    writer = gguf.GGUFWriter(path, architecture)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if head_dim * config.num_attention_heads != config.hidden_size:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if architecture == "llama":
        writer.add_vocab_size(config.vocab_size)
        writer.add_rope_dimension_count(head_dim)
    if golden.n_rot:
        writer.add_rope_dimension_count(golden.n_rot)
    if window := getattr(config, "sliding_window", None):
        writer.add_sliding_window(window)
    if hasattr(config, "num_experts_per_tok"):
        writer.add_expert_count(config.num_local_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
    if ff := getattr(config, "moe_intermediate_size", None):
        writer.add_expert_feed_forward_length(ff)
    add_scaling(writer, config.rope_parameters, head_dim)
    for key, value in golden.metadata.items():
        writer.add_key_value(f"{architecture}.{key}", value, gguf.GGUFValueType.BOOL)
    for name, (view, shape) in tensors.items():
        values = view.numpy().astype(np.float32).reshape(shape)
        fmt = next((fmt for part, fmt in golden.formats.items() if part in name), "F32")
        if values.ndim == 1 or fmt == "F32":
            writer.add_tensor(name, values)
            continue
        data, kind = quantize(values, fmt, rng), gguf.GGMLQuantizationType[fmt]
        view.copy_(torch.from_numpy(gguf.quants.dequantize(data, kind)).reshape(view.shape))
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_scaling(writer, rope: dict, head_dim: int) -> None:
    kind = rope["rope_type"]
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(rope["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        if "beta_fast" in rope:
            writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
            writer.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])
        if "attention_factor" in rope:  # the file states it relative to YaRN's own
            own = 1.0 + 0.1 * math.log(rope["factor"])
            writer.add_rope_scaling_attn_factors(rope["attention_factor"] / own)
    if kind == "llama3":
        turns = [
            rope["original_max_position_embeddings"] * rope["rope_theta"] ** (-i / head_dim) / (2 * math.pi)
            for i in range(0, head_dim, 2)
        ]
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        smooth = [min(max((t - low) / (high - low), 0.0), 1.0) for t in turns]
        factors = [1 / ((1 - s) / rope["factor"] + s) for s in smooth]
        writer.add_tensor("rope_freqs.weight", np.array(factors, np.float32))


def rotate_partly(model, n_rot: int) -> None:
    """Makes the model rotate the first n_rot elements of each head, which this family in transformers
    cannot."""
    from transformers.models.qwen2 import modeling_qwen2
    from transformers.models.qwen3_next.modeling_qwen3_next import apply_rotary_pos_emb

    modeling_qwen2.apply_rotary_pos_emb = apply_rotary_pos_emb
    base = model.config.rope_parameters["rope_theta"]
    model.model.rotary_emb.inv_freq = base ** (-torch.arange(0, n_rot, 2, dtype=torch.float64) / n_rot)


def router_margin(model, ids: torch.Tensor, k: int) -> float:
    """The smallest distance, over layers and tokens, from the last expert chosen to the next."""
    margins = []

    def watch(module, inputs, output):
        scores = output[0].sort(dim=-1, descending=True).values
        margins.append((scores[:, k - 1] - scores[:, k]).min().item())

    hooks = [layer.mlp.gate.register_forward_hook(watch) for layer in model.model.layers]
    model(ids)
    for hook in hooks:
        hook.remove()
    return min(margins)


@torch.no_grad()
def make(name: str, golden: Golden) -> None:
    config = transformers.AutoConfig.for_model(golden.kind, **golden.config)
    for seed in range(1, 1000):
        rng = np.random.default_rng(seed)
        model = transformers.AutoModelForCausalLM.from_config(
            config, attn_implementation="eager", experts_implementation="eager"
        )
        model = model.double().eval()
        random_weights(model, seed)
        if golden.n_rot:
            rotate_partly(model, golden.n_rot)
        ids = torch.from_numpy(rng.integers(0, N_VOCAB, (1, N_TOKENS)))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.gguf"
            tensors = gguf_tensors(model, golden.kind)
            write_gguf(path, golden, config, tensors, rng)
            data = path.read_bytes()
        k = getattr(config, "num_experts_per_tok", 0)
        if not k or router_margin(model, ids, k) > MIN_ROUTER_MARGIN:
            break
    logits = model(ids).logits[0].numpy()
    GOLDENS.mkdir(parents=True, exist_ok=True)
    (GOLDENS / f"{name}.gguf.xz").write_bytes(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
    np.savez_compressed(
        GOLDENS / f"{name}.npz", ids=ids[0].numpy().astype(np.int32), logits=logits.astype(np.float32)
    )
    size = sum(path.stat().st_size for path in GOLDENS.glob(f"{name}.*"))
    print(f"{name:20} seed {seed:3}  logits {logits.std():.2f}  {size:7} bytes", flush=True)


def main() -> None:
    for name in sys.argv[1:] or GOLDENS_TABLE:
        make(name, GOLDENS_TABLE[name])


if __name__ == "__main__":
    main()
