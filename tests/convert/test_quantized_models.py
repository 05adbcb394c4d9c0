"""Quantised checkpoints become files that compute what the dequantised ones compute."""

import json
import subprocess
import sys
from dataclasses import replace

import gguf
import numpy as np
import pytest

import clarion
from clarion.convert import convert, families, safetensors
from clarion.convert.source import Source
from clarion.errors import ModelError, UnsupportedError
from clarion.gguf import File
from clarion.models.family import LAYER, Part
from tests.convert import checkpoints, quantized
from tests.convert.files import nmse, write_safetensors

WIDTH, N_FF, N_EXPERT = 64, 96, 3
HEADS = {"hidden_size": WIDTH, "num_attention_heads": 4, "num_key_value_heads": 2}
LLAMA = HEADS | {"intermediate_size": N_FF}
QWEN = HEADS | {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "head_dim": 16}
QWEN |= {"intermediate_size": N_FF, "moe_intermediate_size": N_FF, "num_experts": N_EXPERT}
QWEN |= {"num_experts_per_tok": 2, "norm_topk_prob": True}
ATTENTION = {"q_proj": (WIDTH, WIDTH), "k_proj": (32, WIDTH), "v_proj": (32, WIDTH), "o_proj": (WIDTH, WIDTH)}
NETWORK = {"gate_proj": (N_FF, WIDTH), "up_proj": (N_FF, WIDTH), "down_proj": (WIDTH, N_FF)}
SHAPES = {f"self_attn.{name}": shape for name, shape in ATTENTION.items()}
SHAPES |= {f"mlp.{name}": shape for name, shape in NETWORK.items()}
IDS = [5, 9, 2, 77, 31, 8, 120, 64]


def others(n_vocab):
    """What no method quantises."""
    random = np.random.default_rng(9)
    tensors = {"model.embed_tokens.weight": random.normal(0, 1, (n_vocab, WIDTH)).astype(np.float16)}
    tensors |= {"lm_head.weight": random.normal(0, 0.2, (n_vocab, WIDTH)).astype(np.float16)}
    for name in ("input_layernorm", "post_attention_layernorm"):
        tensors[f"model.layers.0.{name}.weight"] = random.uniform(0.5, 1.5, WIDTH).astype(np.float32)
    return tensors | {"model.norm.weight": random.uniform(0.5, 1.5, WIDTH).astype(np.float32)}


def write(folder, tensors, **changes):
    """A checkpoint of these tensors and `others`."""
    tokenizer = checkpoints.bytes_tokenizer()
    checkpoints.write(folder, tokenizer, **changes)
    n_vocab = tokenizer.get_vocab_size() + 8
    write_safetensors(folder / "model.safetensors", others(n_vocab) | tensors)
    return folder


def llama(folder, make, change=lambda parts: None, **options):
    """A checkpoint with every linear layer quantised, and one of the numbers that these stand for.

    Args:
        change: is called with the first one's tensors before they are written.
    """
    random = np.random.default_rng(3)
    made = {f"model.layers.0.{name}.": make(random, *shape, **options) for name, shape in SHAPES.items()}
    parts = {base + end: part for base, one in made.items() for end, part in one.parts.items()}
    change(parts)
    config = next(iter(made.values())).config
    values = {f"{base}weight": one.values.astype(np.float32) for base, one in made.items()}
    return (
        write(folder / "quantized", parts, quantization_config=config, **LLAMA),
        write(folder / "plain", values, **LLAMA),
    )


def logits(path, activations="exact"):
    with clarion.load(path, activations=activations, threads=1) as model:
        return model.logits(IDS)


def tensors(path):
    """Formats and numbers by name, decoded by the gguf package."""
    with File.open(path) as file:
        return {
            name: (
                tensor.format.name,
                gguf.quants.dequantize(
                    np.frombuffer(tensor.view, np.uint8).reshape(
                        -1, tensor.format.n_bytes(tensor.shape[-1:])
                    ),
                    gguf.GGMLQuantizationType[tensor.format.name],
                ),
            )
            for name, tensor in file.tensors.items()
            if tensor.format.name not in ("F32", "F16", "BF16")
        }, {name: tensor.format.name for name, tensor in file.tensors.items()}


KEPT = [
    (quantized.gptq, {}, "Q4_0", "GPTQ, 4 bits, groups of 32"),
    (quantized.gptq, {"sym": False}, "Q5_0", "GPTQ, 4 bits, groups of 32"),
    (quantized.gptq, {"bits": 8, "group": -1}, "Q8_0", "GPTQ, 8 bits, one scale for each row"),
    (quantized.awq, {}, "Q5_0", "AWQ, 4 bits, groups of 32"),
    (quantized.compressed, {}, "Q4_0", "compressed-tensors, 4 bits, groups of 32"),
    (quantized.compressed_int8, {}, "Q8_0", "compressed-tensors, 8 bits, one scale for each row"),
    (quantized.compressed_float4, {}, "MXFP4", "MXFP4"),
]


@pytest.mark.parametrize(("make", "options", "format", "method"), KEPT)
def test_what_is_kept(tmp_path, make, options, format, method):
    checkpoint, plain = llama(tmp_path, make, **options)
    lines = []
    (path,) = convert(checkpoint, tmp_path / "kept.gguf", report=lines.append)
    assert lines == [f"{method}: 7 tensors kept as {format}, without loss"]
    (exact,) = convert(plain, tmp_path / "plain.gguf", "f32")
    blocks, formats = tensors(path)
    assert {formats[name] for name in blocks} == {format}
    assert len(blocks) == 7
    assert formats["token_embd.weight"] == "F16"
    with File.open(exact) as file:
        for name, (_, values) in blocks.items():
            assert (values.reshape(-1) == np.frombuffer(file.tensors[name].view, np.float32)).all()
    wanted = logits(exact)
    assert nmse(logits(path), wanted) < 1e-12
    assert nmse(logits(path, "high"), wanted) < 1e-6
    with File.open(path) as file:
        names = {"Q4_0": 2, "Q5_0": 8, "Q8_0": 7, "MXFP4": 38}
        assert file.metadata.int("general.file_type") == names[format]
        assert file.metadata.int("general.quantization_version") == 2


@pytest.mark.parametrize(
    ("make", "options", "method", "format"),
    [
        (quantized.gptq, {"order": "any"}, "GPTQ, 4 bits, groups of 32", "F16"),
        (quantized.compressed_float8, {}, "float8", "BF16"),
        (quantized.compressed_float4, {"nv": True}, "compressed-tensors, NVFP4", "BF16"),
        (quantized.bnb4, {}, "bitsandbytes, nf4", "BF16"),
        (quantized.bnb8, {}, "bitsandbytes, 8 bits, one scale for each row", "F16"),
    ],
)
def test_what_is_dequantized(tmp_path, make, options, method, format):
    checkpoint, plain = llama(tmp_path, make, **options)
    lines = []
    (path,) = convert(checkpoint, tmp_path / "a.gguf", report=lines.append)
    # The embedding and the output are the larger part of so small a model.
    common = tensors(path)[1]["token_embd.weight"]
    assert lines == [f"{method}: 7 tensors dequantized, written as {common}"]
    (ours,) = convert(checkpoint, tmp_path / "b.gguf", "f32")
    (theirs,) = convert(plain, tmp_path / "c.gguf", "f32")
    assert (logits(ours) == logits(theirs)).all()
    assert nmse(logits(path), logits(theirs)) < 1e-4


@pytest.mark.parametrize("type", ["f16", "bf16", "f32", "q8_0"])
def test_a_type_that_is_asked_for(tmp_path, type):
    """Numbers are dequantised and written so; Q8_0 holds those of four bits exactly, and does."""
    checkpoint, plain = llama(tmp_path, quantized.gptq)
    lines = []
    (ours,) = convert(checkpoint, tmp_path / "a.gguf", type, report=lines.append)
    (theirs,) = convert(plain, tmp_path / "b.gguf", type)
    with File.open(ours) as a, File.open(theirs) as b:
        assert {n: t.format.name for n, t in a.tensors.items()} == {
            n: t.format.name for n, t in b.tensors.items()
        }
        if type != "q8_0":
            assert all(bytes(t.view) == bytes(b.tensors[n].view) for n, t in a.tensors.items())
    if type == "q8_0":
        assert lines == ["GPTQ, 4 bits, groups of 32: 7 tensors kept as Q8_0, without loss"]
        (exact,) = convert(plain, tmp_path / "c.gguf", "f32")
        for name, (_, values) in tensors(ours)[0].items():
            with File.open(exact) as file:
                numbers = np.frombuffer(file.tensors[name].view, np.float32)
            assert "blk" not in name or (values.reshape(-1) == numbers).all()
    else:
        assert lines == [f"GPTQ, 4 bits, groups of 32: 7 tensors dequantized, written as {type.upper()}"]


def test_some_are_kept_and_others_are_not(tmp_path):
    """One layer's columns are out of order; another is not quantised at all."""
    up, down = "model.layers.0.mlp.up_proj.", "model.layers.0.mlp.down_proj."

    def change(parts):
        random = np.random.default_rng(4)
        shuffled = quantized.gptq(random, N_FF, WIDTH, order="any")
        parts |= {up + end: part for end, part in shuffled.parts.items()}
        for end in shuffled.parts:
            del parts[down + end]
        parts[down + "weight"] = random.normal(0, 0.1, (WIDTH, N_FF)).astype(np.float16)

    checkpoint, _ = llama(tmp_path, quantized.gptq, change)
    lines = []
    (path,) = convert(checkpoint, tmp_path / "a.gguf", report=lines.append)
    formats = tensors(path)[1]
    assert lines == [
        "GPTQ, 4 bits, groups of 32: 5 tensors kept as Q4_0, without loss",
        "GPTQ, 4 bits, groups of 32: 1 tensor dequantized, written as F16",
    ]
    assert formats["blk.0.ffn_up.weight"] == formats["blk.0.ffn_down.weight"] == "F16"
    assert formats["blk.0.ffn_gate.weight"] == "Q4_0"


def test_the_command_says_what_becomes_of_it(tmp_path):
    checkpoint, _ = llama(tmp_path, quantized.awq)
    command = [sys.executable, "-m", "clarion", "convert", str(checkpoint), str(tmp_path / "a.gguf")]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert found.stderr == "AWQ, 4 bits, groups of 32: 7 tensors kept as Q5_0, without loss\n"
    assert found.stdout == f"{tmp_path / 'a.gguf'}\n"


def test_quantized_weights_without_a_configuration(tmp_path):
    checkpoint, _ = llama(tmp_path, quantized.gptq)
    values = json.loads((checkpoint / "config.json").read_text())
    del values["quantization_config"]
    (checkpoint / "config.json").write_text(json.dumps(values))
    with pytest.raises(
        ModelError, match=r"weight' is missing, but '.*qweight' is there: quantization_config"
    ):
        convert(checkpoint, tmp_path / "a.gguf")


# ---- experts -------------------------------------------------------------------------------------------

EXPERTS = LAYER + "mlp.experts."
ROUTER = {"model.layers.0.mlp.gate.weight": (N_EXPERT, WIDTH)}
FIGURES = {"block_count": 5}


def attention_of_qwen(random):
    shapes = {f"model.layers.0.self_attn.{name}.weight": shape for name, shape in ATTENTION.items()} | ROUTER
    found = {name: random.normal(0, 0.2, shape).astype(np.float16) for name, shape in shapes.items()}
    norms = ("self_attn.q_norm", "self_attn.k_norm")
    return found | {f"model.layers.0.{name}.weight": np.ones(16, np.float32) for name in norms}


def experts(folder, monkeypatch, interleaved, transposed=False):
    """A checkpoint whose experts are two tensors, of MXFP4 or transposed, and one with a tensor for each."""
    gate_up, down = EXPERTS + "gate_up_proj", EXPERTS + "down_proj"
    options = {"interleaved": interleaved, "parameter": True, "transposed": transposed}
    names = {
        "ffn_gate_exps": Part(gate_up, 0, 2, **options),
        "ffn_up_exps": Part(gate_up, 1, 2, **options),
        "ffn_down_exps": Part(down, parameter=True, transposed=transposed),
    }
    family = families.FAMILIES["qwen3moe"]
    kind = replace(family.checkpoints[0], tensors=names, model_type="fused")
    others = replace(family, checkpoints=(kind, *family.checkpoints))
    monkeypatch.setattr(families, "FAMILIES", {**families.FAMILIES, "qwen3moe": others})
    random = np.random.default_rng(6)
    both = quantized.mxfp4(random, N_EXPERT, 2 * N_FF, WIDTH)
    last = quantized.mxfp4(random, N_EXPERT, WIDTH, N_FF)
    base = "model.layers.0.mlp.experts."
    plain = attention_of_qwen(random)
    fused = dict(plain)
    for name, made in (("gate_up_proj", both), ("down_proj", last)):
        if transposed:
            fused[base + name] = made.values.swapaxes(1, 2).astype(np.float32)
        else:
            fused |= {f"{base}{name}{end}": part for end, part in made.parts.items()}
    for expert in range(N_EXPERT):
        rows = both.values[expert]
        halves = (rows[0::2], rows[1::2]) if interleaved else (rows[:N_FF], rows[N_FF:])
        values = {"gate_proj": halves[0], "up_proj": halves[1], "down_proj": last.values[expert]}
        plain |= {f"{base}{expert}.{name}.weight": x.astype(np.float32) for name, x in values.items()}
    quantization = {} if transposed else {"quantization_config": both.config}
    return (
        write(
            folder / "fused", fused, **{**QWEN, "model_type": "fused", "architectures": None}, **quantization
        ),
        write(folder / "plain", plain, **QWEN),
    )


@pytest.mark.parametrize("interleaved", [True, False])
def test_experts_of_one_tensor_are_kept(tmp_path, monkeypatch, interleaved):
    monkeypatch.setattr("clarion.convert.pieces.CHUNK_BYTES", 4 * WIDTH * 77)  # chunks end within experts
    checkpoint, plain = experts(tmp_path, monkeypatch, interleaved)
    lines = []
    (path,) = convert(checkpoint, tmp_path / "a.gguf", report=lines.append)
    assert lines == ["MXFP4: 3 tensors kept as MXFP4, without loss"]
    (exact,) = convert(plain, tmp_path / "b.gguf", "f32")
    blocks, _ = tensors(path)
    assert sorted(blocks) == [f"blk.0.ffn_{name}_exps.weight" for name in ("down", "gate", "up")]
    with File.open(exact) as file:
        for name, (_, values) in blocks.items():
            assert (values.reshape(-1) == np.frombuffer(file.tensors[name].view, np.float32)).all()
    assert nmse(logits(path), logits(exact)) < 1e-6  # attention is float16
    (ours,) = convert(checkpoint, tmp_path / "c.gguf", "f32")
    assert (logits(ours) == logits(exact)).all()


def test_experts_of_one_tensor_transposed(tmp_path, monkeypatch):
    monkeypatch.setattr("clarion.convert.pieces.CHUNK_BYTES", 4 * WIDTH * 77)
    checkpoint, plain = experts(tmp_path, monkeypatch, interleaved=True, transposed=True)
    paths = [
        convert(folder, tmp_path / f"{i}.gguf", "f32")[0] for i, folder in enumerate((checkpoint, plain))
    ]
    with File.open(paths[0]) as ours, File.open(paths[1]) as theirs:
        for name, tensor in theirs.tensors.items():
            assert bytes(ours.tensors[name].view) == bytes(tensor.view)


@pytest.mark.parametrize("interleaved", [True, False])
def test_biases_of_experts(tmp_path, interleaved):
    values = np.arange(N_EXPERT * 2 * N_FF, dtype=np.float32).reshape(N_EXPERT, -1)
    write_safetensors(tmp_path / "w.safetensors", {"model.layers.4.mlp.experts.gate_up_proj_bias": values})
    kind = families.FAMILIES["qwen3moe"].checkpoints[0]
    part = Part(EXPERTS + "gate_up_proj", 1, 2, interleaved=interleaved, parameter=True)
    kind = replace(kind, tensors={"ffn_up_exps": part})
    source = Source(
        safetensors.read(tmp_path / "w.safetensors"), kind, FIGURES, families.quantization.Mxfp4()
    )
    assert source["blk.4.ffn_up_exps.bias"].shape == (N_EXPERT, N_FF)
    source.refuse_unused()
    (target,) = source.in_order()
    found = np.concatenate(list(target.encode("F32", lambda n: None))).view(np.float32).reshape(N_EXPERT, -1)
    assert (found == (values[:, 1::2] if interleaved else values[:, N_FF:])).all()


def test_rows_that_cannot_be_shared_out(tmp_path):
    made = quantized.mxfp4(np.random.default_rng(0), N_EXPERT, 7, WIDTH)
    base = "model.layers.0.mlp.experts.gate_up_proj"
    write_safetensors(tmp_path / "w.safetensors", {base + end: part for end, part in made.parts.items()})
    part = Part(EXPERTS + "gate_up_proj", 0, 2, interleaved=True, parameter=True)
    kind = replace(families.FAMILIES["qwen3moe"].checkpoints[0], tensors={"ffn_gate_exps": part})
    source = Source(
        safetensors.read(tmp_path / "w.safetensors"), kind, FIGURES, families.quantization.Mxfp4()
    )
    with pytest.raises(
        ModelError, match=r"gate_up_proj_blocks' has shape \[3, 7, 64\], expected a size that 2"
    ):
        source["blk.0.ffn_gate_exps.weight"]


@pytest.mark.parametrize("make", [quantized.gptq, quantized.compressed, quantized.awq])
@pytest.mark.parametrize("stated", [None, {}, {"quant_method": "fp8"}, {"quant_method": "bitsandbytes"}])
def test_a_configuration_that_does_not_speak_of_the_weights(tmp_path, make, stated):
    folder, _ = llama(tmp_path, make)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": stated}))
    with pytest.raises(ModelError) as error:
        convert(folder, tmp_path / "out.gguf")
    end = "qweight" if make is not quantized.compressed else "weight_packed"
    first = "model.layers.0.self_attn.q_proj."
    assert str(error.value) == (
        f"{folder}: tensor '{first}weight' is missing, but '{first}{end}' is there: "
        "quantization_config does not say so"
    )


def test_the_first_name_of_what_compressed_tensors_says(tmp_path):
    folder, _ = llama(tmp_path, quantized.compressed)
    paths = [tmp_path / f"{i}.gguf" for i in range(3)]
    convert(folder, paths[0])
    config = json.loads((folder / "config.json").read_text())
    stated = config["quantization_config"]
    for path, changed in ((paths[1], {}), (paths[2], {"quantization_config": stated})):
        values = {key: value for key, value in config.items() if key != "quantization_config"}
        (folder / "config.json").write_text(json.dumps({**values, "compression_config": stated, **changed}))
        convert(folder, path)
        assert path.read_bytes() == paths[0].read_bytes()
    other = {"quantization_config": stated | {"ignore": []}, "compression_config": stated}
    (folder / "config.json").write_text(json.dumps(config | other))
    with pytest.raises(UnsupportedError, match=r"compression_config is .*, supported: that of quant"):
        convert(folder, paths[0])


def test_a_message_names_the_place_once(tmp_path):
    def cut(parts):
        name = "model.layers.0.mlp.up_proj.scales"
        parts[name] = parts[name][:-1]

    folder, _ = llama(tmp_path, quantized.gptq, cut)
    with pytest.raises(ModelError) as error:
        convert(folder, tmp_path / "out.gguf")
    assert str(error.value).startswith(
        f"{folder}/model.safetensors: tensor 'model.layers.0.mlp.up_proj.scales' has"
    )
    assert str(error.value).count(str(folder)) == 1
