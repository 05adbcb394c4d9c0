"""How a checkpoint is quantised, as `quantization_config` in config.json says, and its weights by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from clarion.convert import awq, bitsandbytes, compressed, float8, gptq, mxfp4
from clarion.convert.awq import Awq
from clarion.convert.bitsandbytes import BitsAndBytes
from clarion.convert.compressed import CompressedTensors
from clarion.convert.config import Config
from clarion.convert.float8 import Float8
from clarion.convert.gptq import Gptq
from clarion.convert.matrix import Matrix
from clarion.convert.mxfp4 import Mxfp4
from clarion.convert.stored import Stored

# Float8 reads what is not quantised as well.
Method = Float8 | Gptq | Awq | CompressedTensors | BitsAndBytes | Mxfp4
_NAMES = ("fp8", "fbgemm_fp8", "gptq", "awq", "compressed-tensors", "bitsandbytes", "mxfp4")


def read(config: Config) -> Method:
    """The method and its figures.

    Args:
        config: all of config.json.

    Raises:
        UnsupportedError: a method or an option that is not implemented.
        ModelError: a figure is missing or out of range.
    """
    quantization, older = config.child("quantization_config"), config.child("compression_config")
    if older.keys():
        # What compressed-tensors called it at first.
        if older.get("quant_method") != "compressed-tensors":
            raise older.unsupported("quant_method", older.get("quant_method"), "compressed-tensors")
        if quantization.keys() and config.get("quantization_config") != config.get("compression_config"):
            raise config.unsupported(
                "compression_config", config.get("compression_config"), "that of quantization_config"
            )
        quantization = older
    match quantization.get("quant_method"):
        case None | "fp8" | "fbgemm_fp8":
            return float8.read(quantization)
        case "gptq":
            return gptq.read(quantization)
        case "awq":
            return awq.read(quantization)
        case "compressed-tensors":
            return compressed.read(quantization)
        case "bitsandbytes":
            return bitsandbytes.read(quantization)
        case "mxfp4":
            return mxfp4.read(quantization)
        case other:
            raise quantization.unsupported("quant_method", other, ", ".join(_NAMES))


def find(method: Method, tensors: Mapping[str, Stored], name: str) -> Matrix | None:
    """The weight that a checkpoint would call `name` if it were not quantised; None: there is none.

    Raises:
        ModelError: a part of it is missing, or of another type or shape.
        UnsupportedError: parts that are not understood.
    """
    match method:
        case Float8():
            found = None
        case Gptq():
            found = gptq.find(method, tensors, name)
        case Awq():
            found = awq.find(method, tensors, name)
        case CompressedTensors():
            found = compressed.find(method, tensors, name)
        case BitsAndBytes():
            found = bitsandbytes.find(tensors, name)
        case Mxfp4():
            found = mxfp4.find(tensors, name)
        case _:
            assert_never(method)
    if found is not None:
        return found
    # What a method leaves alone is stored plainly.
    return float8.find(method if isinstance(method, Float8) else Float8(), tensors, name)
