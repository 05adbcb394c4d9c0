"""Weights as each method stores them, made of random codes, and the numbers that they stand for.

Packing is done number by number with Python's integers, in no way as the readers unpack.
"""

import json
from dataclasses import dataclass

import numpy as np

E2M1 = (0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6)


@dataclass
class Made:
    """One weight: its parts by the ends of their names, its numbers in float64, and config.json's part."""

    parts: dict
    values: np.ndarray
    config: dict


def packed(codes, bits):
    """Codes [n, m] as int32 words [n, words], along the rows."""
    rows = []
    for row in codes.tolist():
        number = sum(int(code) << (bits * i) for i, code in enumerate(row))
        n_words = -(-len(row) * bits // 32)
        rows.append(np.frombuffer(number.to_bytes(4 * n_words, "little"), "<i4"))
    return np.array(rows, np.int32).reshape(len(rows), -1)


def bf16(values):
    """Rounded towards zero, as raw bits, and as numbers."""
    bits = (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return bits, (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def scales(random, shape, dtype="F16"):
    """Random scales as they are stored, and as numbers."""
    values = random.uniform(0.005, 0.05, shape)
    if dtype == "BF16":
        return bf16(values)
    stored = values.astype({"F16": np.float16, "F32": np.float32}[dtype])
    return stored, stored.astype(np.float64)


def gptq(random, rows, cols, bits=4, group=32, sym=True, order=None, v2=False, dtype="F16"):
    size = cols if group == -1 else group
    n_groups = -(-cols // size)
    codes = random.integers(0, 1 << bits, (rows, cols))
    zeros = np.full((rows, n_groups), 1 << (bits - 1))
    if not sym:
        zeros = random.integers(0, 1 << bits, (rows, n_groups))
    stored, numbers = scales(random, (n_groups, rows), dtype)
    group_of = {None: np.arange(cols) // size, "none": np.arange(cols) // size}.get(order)
    if order == "any":
        group_of = random.permutation(np.arange(cols) // size)
    if order == "blocks":  # the groups are out of order, the columns of each are together
        group_of = random.permutation(n_groups)[np.arange(cols) // size]
    zeros_stored = zeros if v2 else (zeros - 1) % (1 << bits)
    parts = {
        "qweight": packed(codes, bits).T.copy(),
        "qzeros": packed(zeros_stored.T, bits),
        "scales": stored,
        "g_idx": group_of.astype(np.int32),
    }
    if order == "none":
        del parts["g_idx"]
    config = {
        "quant_method": "gptq",
        "bits": bits,
        "group_size": group,
        "sym": sym,
        "desc_act": order == "any",
    }
    config |= {"checkpoint_format": "gptq_v2"} if v2 else {}
    values = (codes - zeros[:, group_of]) * numbers.T[:, group_of]
    return Made(parts, values, config)


def awq(random, rows, cols, group=32):
    codes = random.integers(0, 16, (rows, cols))
    size = cols if group == -1 else group
    zeros = random.integers(0, 16, (rows, cols // size))
    stored, numbers = scales(random, (cols // size, rows))

    def words(along):
        """[n, rows] in words of eight rows, which lie in this order."""
        return packed(along.reshape(-1, 8)[:, [0, 2, 4, 6, 1, 3, 5, 7]], 4).reshape(len(along), -1)

    group_of = np.arange(cols) // size
    config = {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemm"}
    parts = {"qweight": words(codes.T), "qzeros": words(zeros.T), "scales": stored}
    return Made(parts, (codes - zeros[:, group_of]) * numbers.T[:, group_of], config)


def scheme(bits, group=None, symmetric=True, kind="int", strategy=None, format="pack-quantized", **more):
    strategy = strategy or ("group" if group else "channel")
    weights = {"num_bits": bits, "type": kind, "symmetric": symmetric, "strategy": strategy}
    weights |= {"group_size": group, "dynamic": False, "actorder": None} | more
    groups = {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None}}
    return {
        "quant_method": "compressed-tensors",
        "format": format,
        "config_groups": groups,
        "ignore": ["lm_head"],
        "quantization_status": "compressed",
    }


def compressed(random, rows, cols, bits=4, group=32, symmetric=True, dtype="BF16", order=False):
    n_groups = cols // group if group else 1
    codes = random.integers(0, 1 << bits, (rows, cols))
    stored, numbers = scales(random, (rows, n_groups), dtype)
    zeros = np.full((rows, n_groups), 1 << (bits - 1))
    parts = {"weight_packed": packed(codes, bits), "weight_scale": stored}
    parts["weight_shape"] = np.array([rows, cols])
    group_of = np.arange(cols) // (group or cols)
    if order:
        group_of = random.permutation(group_of)
        parts["weight_g_idx"] = group_of.astype(np.int32)
    if not symmetric:
        zeros = random.integers(0, 1 << bits, (rows, n_groups))
        parts["weight_zero_point"] = packed(zeros.T, bits).T.copy()
    values = (codes - zeros[:, group_of]) * numbers[:, group_of]
    return Made(parts, values, scheme(bits, group, symmetric))


def compressed_int8(random, rows, cols, strategy="channel", symmetric=True, dtype="F16", group=None):
    codes = random.integers(-128, 128, (rows, cols))
    n_groups = cols // group if group else 1
    shape = (1,) if strategy == "tensor" else (rows, n_groups)
    stored, numbers = scales(random, shape, dtype)
    zeros = random.integers(-128, 128, shape) if not symmetric else np.zeros(shape, int)
    parts = {"weight": codes.astype(np.int8), "weight_scale": stored}
    if not symmetric:
        parts["weight_zero_point"] = zeros.astype(np.int8)
    numbers, zeros = (x.reshape(-1, n_groups).repeat(cols // n_groups, axis=1) for x in (numbers, zeros))
    config = scheme(8, group, symmetric, strategy=strategy, format="int-quantized")
    return Made(parts, (codes - zeros) * numbers, config)


def e4m3(codes):
    exponent, fraction = codes >> 3 & 15, codes & 7
    value = np.where(exponent > 0, (1 + fraction / 8) * 2.0 ** (exponent - 7), fraction / 8 * 2.0**-6)
    return np.where(codes & 128, -value, value)


def compressed_float8(random, rows, cols, block=(8, 32)):
    codes = random.integers(0, 0x70, (rows, cols)) | random.integers(0, 2, (rows, cols)) << 7
    shape = (rows // block[0], cols // block[1])
    stored, numbers = scales(random, shape, "F32")
    numbers = numbers.repeat(block[0], axis=0).repeat(block[1], axis=1)
    config = scheme(
        8, None, kind="float", strategy="block", format="float-quantized", block_structure=[*block]
    )
    parts = {"weight": codes.astype(np.uint8), "weight_scale": stored}
    return Made(parts, e4m3(codes) * numbers, config)


def compressed_float4(random, rows, cols, nv=False):
    codes = random.integers(0, 16, (rows, cols))
    size = 16 if nv else 32
    bytes_ = codes[:, ::2] | codes[:, 1::2] << 4
    parts = {"weight_packed": ("U8", bytes_.astype(np.uint8))}
    if nv:
        exponents = random.integers(0x20, 0x50, (rows, cols // 16))
        total = np.array([37.5], np.float32)
        parts |= {"weight_scale": exponents.astype(np.uint8), "weight_global_scale": total}
        numbers = e4m3(exponents) / float(total[0])
    else:
        exponents = random.integers(115, 125, (rows, cols // 32))
        parts["weight_scale"] = ("U8", exponents.astype(np.uint8))
        numbers = 2.0 ** (exponents - 127)
    values = np.array(E2M1)[codes] * numbers.repeat(size, axis=1)
    format = ("nv" if nv else "mx") + "fp4-pack-quantized"
    strategy = "tensor_group" if nv else "group"
    return Made(parts, values, scheme(4, size, kind="float", strategy=strategy, format=format))


def mxfp4(random, *shape, low=115, high=125):
    """Parts of a weight that is a parameter: [..., rows, cols]."""
    codes = random.integers(0, 16, shape)
    bytes_ = (codes[..., ::2] | codes[..., 1::2] << 4).reshape(*shape[:-1], -1, 16)
    exponents = random.integers(low, high, (*shape[:-1], shape[-1] // 32))
    parts = {"_blocks": ("U8", bytes_.astype(np.uint8)), "_scales": ("U8", exponents.astype(np.uint8))}
    values = np.array(E2M1)[codes] * 2.0 ** (exponents.repeat(32, axis=-1) - 127)
    return Made(parts, values, {"quant_method": "mxfp4", "modules_to_not_convert": ["model.norm"]})


def bnb4(random, rows, cols, kind="nf4", block=64, nested=True):
    codes = random.integers(0, 16, rows * cols)
    even = np.append(codes, 0) if codes.size % 2 else codes
    codebook = np.sort(random.uniform(-1, 1, 16)).astype(np.float32)
    n_blocks = -(-rows * cols // block)
    state = {"quant_type": kind, "blocksize": block, "dtype": "bfloat16", "shape": [rows, cols]}
    parts = {"weight": ("U8", (even[::2] << 4 | even[1::2]).astype(np.uint8)[:, None])}
    if nested:
        absmax = random.integers(0, 256, n_blocks)
        map_ = np.sort(random.uniform(-1, 1, 256)).astype(np.float32)
        factors = random.uniform(0.005, 0.02, -(-n_blocks // 8)).astype(np.float32)
        state |= {"nested_blocksize": 8, "nested_dtype": "float32", "nested_offset": 0.03125}
        parts |= {"weight.absmax": ("U8", absmax.astype(np.uint8)), "weight.nested_quant_map": map_}
        parts |= {"weight.nested_absmax": factors}
        numbers = map_[absmax] * factors.repeat(8)[:n_blocks] + np.float32(0.03125)
    else:
        numbers = random.uniform(0.05, 0.1, n_blocks).astype(np.float32)
        parts["weight.absmax"] = numbers
    raw = np.frombuffer(json.dumps(state).encode(), np.uint8)
    parts |= {"weight.quant_map": codebook, f"weight.quant_state.bitsandbytes__{kind}": ("U8", raw)}
    values = codebook[codes] * numbers.repeat(block)[: rows * cols]  # the library's floats, to the bit
    config = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": kind}
    return Made(parts, values.reshape(rows, cols).astype(np.float64), config)


def bnb8(random, rows, cols):
    codes = random.integers(-127, 128, (rows, cols))
    factors = random.uniform(0.5, 3, rows).astype(np.float32)
    parts = {"weight": codes.astype(np.int8), "SCB": factors, "weight_format": ("U8", np.array(0, np.uint8))}
    values = codes * (factors.astype(np.float64)[:, None] / 127)
    return Made(parts, values, {"quant_method": "bitsandbytes", "load_in_8bit": True})
