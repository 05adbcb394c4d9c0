#!/usr/bin/env python3
"""Makes the goldens of tests/convert: tiny random Hugging Face checkpoints, and the logits of transformers.

Run by hand, when a family or a kind of file is added; the tests need only the files it writes:

    python -m venv /tmp/goldens
    /tmp/goldens/bin/pip install torch==2.13.0 transformers==5.23.0 sentencepiece==0.2.3
    /tmp/goldens/bin/python scripts/make_convert_goldens.py [NAME ...]

Each golden is NAME.tar.xz, the checkpoint's folder, and NAME.npz (ids [T], logits [T, n_vocab] in float64).
Weights lie on coarse grids, so that they compress and every stored type holds them.
"""

from __future__ import annotations

import io
import json
import lzma
import math
import sys
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "src"))

from clarion.models import FAMILIES  # noqa: E402
from clarion.models.family import LAYER, TENSORS  # noqa: E402

GOLDENS = ROOT / "tests" / "convert" / "goldens"
N_TOKENS, N_BYTE_LEVEL, N_SENTENCEPIECE = 24, 304, 320
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_2 = LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")
TEXT = """The cat sat on the mat, and the cat's hat sat on the other cat. It's 1234567 o'clock; we'll see.
There was once a king who had three daughters, and the youngest was the fairest of them all. \
"Where are you going?" said the old woman. "To the end of the world," she answered, "where the sun goes down."
"""


@dataclass
class Golden:
    """One checkpoint. Tokenizers: llama3, qwen2, gpt2, spm, spm-json, legacy; stored: bf16, f16, f32, fp8."""

    kind: str  # transformers' model type
    config: dict = field(default_factory=dict)
    tokenizer: str = "qwen2"
    stored: str = "bf16"
    pickled: bool = False
    shards: bool = False
    masters: bool = False  # the file has the weights from before they were made ternary


def scaled(kind, **more):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 500.0, **more}}


LLAMA_3_ROPE = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
GOLDENS_TABLE = {
    "llama3": Golden("llama", scaled("llama3", **LLAMA_3_ROPE), tokenizer="llama3", shards=True),
    "llama-pickled": Golden("llama", {"attention_bias": True}, tokenizer="spm", stored="f16", pickled=True),
    "mistral": Golden("mistral", {"head_dim": 16, "sliding_window": 8}, tokenizer="spm-json", stored="f32"),
    "mixtral": Golden("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}, tokenizer="gpt2"),
    "qwen2": Golden("qwen2", {"tie_word_embeddings": True}, tokenizer="legacy"),
    "qwen2-yarn": Golden(
        "qwen2", scaled("yarn", factor=4.0, original_max_position_embeddings=16), stored="f32", shards=True
    ),
    "qwen3-fp8": Golden("qwen3", {"head_dim": 16}, stored="fp8"),
    "qwen3moe": Golden(
        "qwen3_moe",
        {
            "head_dim": 16,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "norm_topk_prob": True,
        },
    ),
    "bitnet": Golden(
        "bitnet",
        {"hidden_act": "silu", "tie_word_embeddings": True},
        tokenizer="spm",
        stored="f32",
        masters=True,
    ),
}


def byte_level(name: str) -> Tokenizer:
    """A byte-level tokenizer trained on TEXT, cut into words as the family does."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=name == "llama3"))
    if name == "gpt2":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        words = Regex({"llama3": LLAMA_3, "qwen2": QWEN_2}[name])
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(words, "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
        )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=N_BYTE_LEVEL - 4, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.add_special_tokens(["<|begin|>", "<|end|>"])
    tokenizer.add_tokens(["<tool>"])
    if name == "llama3":
        begin = [("<|begin|>", tokenizer.token_to_id("<|begin|>"))]
        tokenizer.post_processor = processors.TemplateProcessing("<|begin|> $A", "<|begin|> $A $B", begin)
    return tokenizer


def as_library(model: bytes) -> Tokenizer:
    """A sentencepiece model as Llama 2's tokenizer.json has it."""
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    ids = {pieces.id_to_piece(i): i for i in range(len(pieces))}
    merges = [
        (ids[a + b], a, b)
        for whole in ids
        for a, b in ((whole[:i], whole[i:]) for i in range(1, len(whole)))
        if a in ids and b in ids
    ]
    tokenizer = Tokenizer(
        models.BPE(
            ids, [(a, b) for _, a, b in sorted(merges)], unk_token="<unk>", fuse_unk=True, byte_fallback=True
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A $B", [("<s>", 1)])
    return tokenizer


def as_gemma(model: bytes) -> Tokenizer:
    """A sentencepiece model as Gemma's tokenizer.json has it: nothing stands before a text."""
    tokenizer = as_library(model)
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    return tokenizer


def write_tokenizer(folder: Path, name: str) -> int:
    """Writes the files of a tokenizer and returns the number of tokens."""
    if name in ("spm", "spm-json", "gemma"):
        import sentencepiece

        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXT.split("\n")),
            model_writer=model,
            model_type="bpe",
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            vocab_size=N_SENTENCEPIECE,
            minloglevel=2,
        )
        (folder / "tokenizer.model").write_bytes(model.getvalue())
        settings = {"add_bos_token": True, "bos_token": "<s>", "eos_token": {"content": "</s>"}}
        if name != "spm":
            made = {"spm-json": as_library, "gemma": as_gemma}[name](model.getvalue())
            made.save(str(folder / "tokenizer.json"))
            (folder / "tokenizer.model").unlink()
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        return N_SENTENCEPIECE
    tokenizer = byte_level("qwen2" if name == "legacy" else name)
    settings = {"eos_token": "<|end|>", "chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}"}
    if name == "llama3":
        settings["bos_token"] = "<|begin|>"
    if name == "legacy":
        content = json.loads(tokenizer.to_str())
        (folder / "vocab.json").write_text(json.dumps(content["model"]["vocab"]))
        merges = "".join(f"{a} {b}\n" for a, b in content["model"]["merges"])
        (folder / "merges.txt").write_text("#version: 0.2\n" + merges)
        settings["added_tokens_decoder"] = {
            str(token["id"]): {"content": token["content"], "special": token["special"]}
            for token in content["added_tokens"]
        }
    else:
        tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return N_BYTE_LEVEL


def random_weights(model, seed: int, fp8: bool) -> None:
    """Fills the model: matrices of variance 1/fan-in on grids of a power of two; `fp8`: that float8 holds."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        if parameter.ndim == 1:
            value, grid = noise / 4 + (0.0 if name.endswith("bias") else 1.0), 1 / 32
        elif "embed_tokens" in name:
            value, grid = noise, 1 / 4
        else:
            sigma = 1.3 / math.sqrt(parameter.shape[-1])
            value, grid = noise * sigma, 2.0 ** math.floor(math.log2(sigma / 3))
        value = torch.round(value / grid) * grid
        parameter.data.copy_(value.to(torch.float8_e4m3fn) if fp8 else value)


def store_fp8(folder: Path) -> None:
    """Puts the projections in float8 with a scale for each block of 16 × 16, as Qwen 3 has it."""
    from safetensors.torch import load_file, save_file

    tensors, block = load_file(folder / "model.safetensors"), 16
    for name, value in list(tensors.items()):
        if name.endswith("_proj.weight"):
            rows, cols = -(-value.shape[0] // block), -(-value.shape[1] // block)
            scale = 2.0 ** torch.arange(rows * cols).remainder(5).sub(4).reshape(rows, cols).float()
            grown = scale.repeat_interleave(block, 0).repeat_interleave(block, 1)
            stored = (value.float() / grown[: value.shape[0], : value.shape[1]]).to(torch.float8_e4m3fn)
            tensors[name], tensors[name + "_scale_inv"] = stored, scale
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [block, block]}
    (folder / "config.json").write_text(json.dumps(config))


def ternary(value: torch.Tensor) -> torch.Tensor:
    """-1, 0 or 1 times the mean magnitude, whichever is nearest (Ma et al., 2024)."""
    scale = value.abs().mean()
    return (value / scale).round().clamp(-1, 1) * scale


def store_masters(folder: Path, masters: dict[str, torch.Tensor]) -> None:
    """Puts the weights from before they were rounded into the file, under 1bitLLM's names."""
    from safetensors.torch import save_file

    (kind,) = FAMILIES["bitnet"].checkpoints
    for name, other in kind.tensors.items():
        before, after = (text.removeprefix(LAYER) for text in (TENSORS[name], other))
        masters = {name.replace(before, after): value for name, value in masters.items()}
    masters.pop("lm_head.weight")
    kept = {name: value.float().contiguous() for name, value in masters.items()}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "llama",
        "architectures": [kind.architecture],
        "weight_bits": 1,
        "input_bits": 8,
    }
    (folder / "config.json").write_text(json.dumps(config))


def make(name: str, golden: Golden) -> None:
    dtype = {"bf16": torch.bfloat16, "f16": torch.float16}.get(golden.stored, torch.float32)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        n_tokens = write_tokenizer(folder, golden.tokenizer)
        config = transformers.AutoConfig.for_model(
            golden.kind,
            **{
                "hidden_size": 32,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "vocab_size": n_tokens,
                "max_position_embeddings": 64,
                "tie_word_embeddings": False,
                **golden.config,
            },
        )
        config._attn_implementation = "eager"
        config._experts_implementation = "eager"  # the others know no float64
        model = transformers.AutoModelForCausalLM.from_config(config).double().eval()
        random_weights(model, seed=len(name), fp8=golden.stored == "fp8")
        masters = {name: value.clone() for name, value in model.state_dict().items()}
        if golden.masters:
            for parameter, value in model.named_parameters():
                if parameter.endswith("_proj.weight"):
                    value.data.copy_(ternary(value.data))
        ids = torch.from_numpy(np.random.default_rng(0).integers(0, n_tokens, N_TOKENS))
        with torch.no_grad():
            logits = model(ids[None]).logits[0].double().numpy()
        model.to(dtype)
        model.config.dtype = dtype
        if golden.pickled:
            model.config.save_pretrained(folder)
            torch.save(dict(model.state_dict()), folder / "pytorch_model.bin")
        else:
            model.save_pretrained(folder, max_shard_size="60KB" if golden.shards else "1GB")
        (folder / "generation_config.json").unlink(missing_ok=True)
        if golden.stored == "fp8":
            store_fp8(folder)
        if golden.masters:
            store_masters(folder, masters)
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for path in sorted(folder.iterdir()):
                tar.add(path, path.name, filter=_anonymous)
        GOLDENS.mkdir(exist_ok=True)
        (GOLDENS / f"{name}.tar.xz").write_bytes(lzma.compress(archive.getvalue(), preset=9))
        np.savez_compressed(GOLDENS / f"{name}.npz", ids=ids.numpy(), logits=logits.astype(np.float32))
        print(f"{name}: {(GOLDENS / f'{name}.tar.xz').stat().st_size} bytes, std {logits.std():.2f}")


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = ""
    return info


if __name__ == "__main__":
    for wanted in sys.argv[1:] or GOLDENS_TABLE:
        make(wanted, GOLDENS_TABLE[wanted])
