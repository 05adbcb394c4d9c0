"""Making models smaller: weights in fewer bits, and what that costs."""

from clarion.gguf.file_types import RECIPES, Recipe
from clarion.quantize.model import Quantized, quantize, write_quantized
from clarion.quantize.recipes import Choice, choose_formats, recipe_named
from clarion.quantize.tensor import TensorError, dequantize_tensor, quantize_tensor, tensor_error, writable

__all__ = [
    "RECIPES",
    "Choice",
    "Quantized",
    "Recipe",
    "TensorError",
    "choose_formats",
    "dequantize_tensor",
    "quantize",
    "quantize_tensor",
    "recipe_named",
    "tensor_error",
    "writable",
    "write_quantized",
]
