"""A device that is not the processor: its tensors compute on the processor, but are kept apart as CUDA's are.

What CUDA refuses is refused: operations on tensors of two places (numbers without dimensions apart), and
arrays of numpy that share memory with a tensor. Products below `torch.autocast` take the lower type, and
softmax and losses float32, as CUDA's do. Kernels, speed, memory and rounding are not what this can check.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "elsewhere"
LOWER = ("linear", "matmul", "mm", "bmm", "scaled_dot_product_attention")
FLOAT32 = ("softmax.int", "cross_entropy_loss", "nll_loss")
MOVES = ("aten::_to_copy", "aten::copy_")


class Elsewhere(Tensor):
    """Wraps the tensor of the processor that has the values."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> Elsewhere:
        return Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=f"{NAME}:0",
        )

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.inner.tolist()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Files hold the values; `torch.load` is to say where they go."""
        return self.inner.__reduce_ex__(protocol)

    def __repr__(self, **_: Any) -> str:
        return f"Elsewhere({self.inner})"


class Creates(TorchDispatchMode):
    """New tensors and copies that are asked for there are made there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


def compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    leaves = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
    away = any(isinstance(leaf, Elsewhere) for leaf in leaves)
    name = func._schema.name
    if away and name not in MOVES and any(not isinstance(t, Elsewhere) and t.ndim > 0 for t in leaves):
        raise RuntimeError(f"{name}: expected all tensors on one device, found {NAME} and cpu")
    asked = kwargs.get("device")
    if asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    elif name == "aten::copy_":
        away = isinstance(args[0], Elsewhere)
    to_there = torch.device(asked).type == NAME if asked is not None else away

    def unwrap(value: Any) -> Any:
        return value.inner if isinstance(value, Elsewhere) else value

    def wrap(value: Any) -> Any:
        return Elsewhere(value) if isinstance(value, Tensor) and to_there else value

    result = func(*tree_map(unwrap, args), **tree_map(unwrap, kwargs))
    if not to_there:
        return result
    return return_and_correct_aliasing(func, args, kwargs, tree_map(wrap, result))


class _Module:
    """What `torch.autocast` and generators ask of a device."""

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def current_device() -> int:
        return 0

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    @staticmethod
    def _is_in_bad_fork() -> bool:
        return False

    @staticmethod
    def manual_seed_all(seed: int) -> None:
        """No generator of its own."""


_library = torch.library.Library("aten", "IMPL")
_others = torch.library.Library("_", "IMPL")


def _cast(name: str, lower: bool) -> None:
    packet, _, overload = name.partition(".")
    operation = getattr(getattr(torch.ops.aten, packet), overload or "default")

    def casting(*args: Any, **kwargs: Any) -> Any:
        dtype = torch.get_autocast_dtype(NAME) if lower else torch.float32

        def cast(value: Any) -> Any:
            return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

        with torch._C._ExcludeDispatchKeyGuard(
            torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)
        ):
            return operation(*tree_map(cast, args), **tree_map(cast, kwargs))

    _library.impl(name, casting, "AutocastPrivateUse1")


def register() -> None:
    """Once in a process, which has no other device of this kind from then on."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    _others.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    for name in LOWER:
        _cast(name, True)
    for name in FLOAT32:
        _cast(name, False)
