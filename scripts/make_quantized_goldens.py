#!/usr/bin/env python3
"""Makes the goldens of tests/convert/quantized_goldens: weights as libraries store them and read them again.

Run by hand, when a method is added; the tests need only the files it writes:

    python -m venv /tmp/goldens
    /tmp/goldens/bin/pip install torch==2.13.0 transformers==5.24.0
    /tmp/goldens/bin/pip install compressed-tensors==0.20.1 bitsandbytes==0.50.2
    /tmp/goldens/bin/python scripts/make_quantized_goldens.py

Each golden is NAME.safetensors: the parts of one weight, `expected`, which the library makes of them, and
`quantization_config` in the header.
"""

from __future__ import annotations

import json
from pathlib import Path

import bitsandbytes.functional as bnb
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
from safetensors.torch import save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

FOLDER = Path(__file__).parent.parent / "tests" / "convert" / "quantized_goldens"
ROWS, COLS = 32, 64


def save(name: str, parts: dict, expected: torch.Tensor, config: dict, base: str = "a.") -> None:
    tensors = {base + end: part.contiguous() for end, part in parts.items()}
    tensors["expected"] = expected.contiguous()
    save_file(tensors, FOLDER / f"{name}.safetensors", {"quantization_config": json.dumps(config)})


def compressed(name: str, format: str, dtype: torch.dtype, **arguments: object) -> None:
    """A scheme of compressed-tensors: scales by its own rule, packed and unpacked by its compressor."""
    weights = QuantizationArgs(**arguments)
    scheme = QuantizationScheme(targets=["Linear"], weights=weights, format=format)
    torch.manual_seed(0)
    weight = torch.randn(ROWS, COLS, dtype=dtype) * 0.05
    size = weights.group_size or COLS
    state = {"weight": weight}
    if weights.strategy == "block":
        rows, cols = weights.block_structure
        tiles = weight.reshape(ROWS // rows, rows, COLS // cols, cols).transpose(1, 2).flatten(2)
    else:
        tiles = weight.reshape(ROWS, -1, size)
    options = {}
    if weights.strategy == "tensor_group":
        options["global_scale"] = generate_gparam(weight.amin(), weight.amax())
        state["weight_global_scale"] = options["global_scale"].float()
    scale, zero = calculate_qparams(tiles.amin(-1), tiles.amax(-1), weights, **options)
    state |= {"weight_scale": scale, "weight_zero_point": zero}
    compressor = BaseCompressor.get_value_from_registry(format)
    parts = compressor.compress(state, scheme)
    found = compressor.decompress(parts, scheme)["weight"]
    config = {"quant_method": "compressed-tensors", "format": format, "quantization_status": "compressed"}
    config["config_groups"] = {"group_0": json.loads(scheme.model_dump_json())}
    save(name, {end: part for end, part in parts.items() if part is not None}, found, config)


def four_bits(name: str, kind: str, nested: bool) -> None:
    torch.manual_seed(1)
    weight = torch.randn(ROWS, COLS, dtype=torch.float32) * 0.05
    packed, state = bnb.quantize_4bit(weight, quant_type=kind, compress_statistics=nested)
    parts = {"weight": packed} | {f"weight.{end}": part for end, part in state.as_dict(packed=True).items()}
    config = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": kind}
    save(name, parts, bnb.dequantize_4bit(packed, state), config)


def eight_bits(name: str) -> None:
    torch.manual_seed(2)
    weight = torch.randn(ROWS, COLS, dtype=torch.float16) * 0.05
    codes, factors, _ = bnb.int8_vectorwise_quant(weight)
    parts = {"weight": codes, "SCB": factors, "weight_format": torch.tensor(0, dtype=torch.uint8)}
    save(
        name,
        parts,
        bnb.int8_vectorwise_dequant(codes, factors),
        {"quant_method": "bitsandbytes", "load_in_8bit": True},
    )


def experts(name: str) -> None:
    torch.manual_seed(3)
    blocks = torch.randint(0, 256, (2, ROWS, COLS // 32, 16), dtype=torch.uint8)
    scales = torch.randint(110, 130, (2, ROWS, COLS // 32), dtype=torch.uint8)
    found = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)  # [E, columns, rows]
    parts = {"_blocks": blocks, "_scales": scales}
    save(name, parts, found.transpose(1, 2), {"quant_method": "mxfp4"}, base="a")


FOLDER.mkdir(exist_ok=True)
HALF, BRAIN = torch.float16, torch.bfloat16
GROUP = {"num_bits": 4, "strategy": "group", "group_size": 32}
compressed("w4", "pack-quantized", HALF, **GROUP, symmetric=True)
compressed("w4-zeros", "pack-quantized", BRAIN, **GROUP, symmetric=False)
compressed("w3-rows", "pack-quantized", HALF, num_bits=3, strategy="channel", symmetric=True)
compressed("w8", "int-quantized", BRAIN, num_bits=8, strategy="channel", symmetric=True)
compressed("w8-zeros", "int-quantized", HALF, num_bits=8, strategy="channel", symmetric=False)
FLOAT = {"type": "float", "symmetric": True}
compressed("f8", "float-quantized", HALF, num_bits=8, strategy="block", block_structure=[16, 32], **FLOAT)
compressed(
    "nvfp4", "nvfp4-pack-quantized", BRAIN, num_bits=4, strategy="tensor_group", group_size=16, **FLOAT
)
compressed(
    "mxfp4", "mxfp4-pack-quantized", BRAIN, num_bits=4, strategy="group", group_size=32, **FLOAT,
    scale_dtype=torch.uint8,
)  # fmt: skip
four_bits("nf4", "nf4", nested=True)
four_bits("fp4", "fp4", nested=False)
eight_bits("int8")
experts("experts")
for path in FOLDER.iterdir():
    path.chmod(0o644)  # the library writes for the owner alone
