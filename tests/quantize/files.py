"""Small models of several shapes, for recipes: only names, widths and hyperparameters count."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from clarion.gguf import Writer

GOLDENS = Path(__file__).parent / "goldens"


def _model(arch, n_layer, heads, kv, width=256, experts=0, shared=False, tied=False, down=256):
    metadata = {
        "general.architecture": arch,
        f"{arch}.block_count": n_layer,
        f"{arch}.context_length": 64,
        f"{arch}.embedding_length": width,
        f"{arch}.feed_forward_length": down,
        f"{arch}.attention.head_count": heads,
        f"{arch}.attention.head_count_kv": kv,
        f"{arch}.attention.layer_norm_rms_epsilon": 1e-5,
    }
    if experts:
        metadata |= {f"{arch}.expert_count": experts, f"{arch}.expert_used_count": 2}
        if arch == "qwen3moe":
            metadata[f"{arch}.expert_feed_forward_length"] = down
    shapes = {"token_embd.weight": (2, width), "output_norm.weight": (width,)}
    if not tied:
        shapes["output.weight"] = (2, width)
    for i in range(n_layer):
        block = {
            "attn_norm": (width,),
            "attn_q": (2, width),
            "attn_k": (2, width),
            "attn_v": (2, width),
            "attn_output": (2, width),
            "ffn_norm": (width,),
        }
        if experts:
            block |= {"ffn_gate_inp": (experts, width)}
            block |= {f"ffn_{name}_exps": (experts, 2, width) for name in ("gate", "up")}
            block |= {"ffn_down_exps": (experts, 2, down)}
        else:
            block |= {"ffn_gate": (2, width), "ffn_up": (2, width), "ffn_down": (2, down)}
        shapes |= {f"blk.{i}.{name}.weight": shape for name, shape in block.items()}
    return metadata, shapes


MODELS = {
    "llama": _model("llama", 17, 32, 8),
    "llama-one-kv-head-each": _model("llama", 16, 4, 4),
    "llama-70b": _model("llama", 80, 64, 8),
    "mixtral": _model("llama", 16, 32, 8, experts=8),
    "qwen3moe": _model("qwen3moe", 24, 32, 4, experts=16),
    "qwen2-tied": _model("qwen2", 24, 14, 2, tied=True),
    "odd": _model("llama", 8, 4, 2, width=288, down=96),
    "odder": _model("llama", 3, 4, 2, width=256, down=40),
}


def write_model(name, path, seed=0):
    """The model `name` in float16, of random weights."""
    metadata, shapes = MODELS[name]
    rng = np.random.default_rng(seed)
    with Writer(path, metadata) as writer:
        for tensor, shape in shapes.items():
            kind = "F32" if len(shape) == 1 else "F16"
            values = rng.standard_normal(shape, np.float32)
            writer.add(tensor, shape, kind, values.astype(np.float32 if kind == "F32" else np.float16))
    return Path(path)


def awkward_rows(cols=1024):
    """Rows of several kinds, the same on every machine: [8, cols] float32."""
    rng = np.random.default_rng(20261121)
    rows = rng.standard_normal((8, cols)) * 0.05
    rows[1] = rng.standard_t(3, cols) * 0.02
    rows[2, ::7] = 0
    rows[3] = np.round(rows[3] * 40) / 64  # ties
    rows[4] = np.abs(rows[4]) + 1
    rows[5] *= 1e-6
    rows[6, :512] = 0
    rows[7] *= 500
    return rows.astype(np.float32)
