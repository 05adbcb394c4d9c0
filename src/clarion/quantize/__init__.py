"""Making models smaller: weights in fewer bits, and what that costs."""

from clarion.quantize.tensor import TensorError, dequantize_tensor, quantize_tensor, tensor_error, writable

__all__ = ["TensorError", "dequantize_tensor", "quantize_tensor", "tensor_error", "writable"]
