"""Numbers that macOS tells of the machine."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

# What macOS says with a 1, in Linux's names. It tells nothing of AVX-512 VNNI, and lets no program use SVE.
_FEATURES = {
    "hw.optional.AdvSIMD": "asimd",
    "hw.optional.arm.FEAT_DotProd": "asimddp",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.supplementalsse3": "ssse3",
    "hw.optional.sse4_1": "sse4_1",
    "hw.optional.sse4_2": "sse4_2",
    "hw.optional.avx2_0": "avx2",
    "hw.optional.fma": "fma",
    "hw.optional.f16c": "f16c",
    "hw.optional.bmi2": "bmi2",
}


def sysctl(name: str) -> int | None:
    """The integer of this name, None where there is none."""
    value, length = ctypes.c_int64(0), ctypes.c_size_t(8)
    call = ctypes.CDLL(None).sysctlbyname
    if call(name.encode(), ctypes.byref(value), ctypes.byref(length), None, ctypes.c_size_t(0)) != 0:
        return None
    return value.value if value.value >= 0 else None


def features(sysctl: Callable[[str], int | None] = sysctl) -> frozenset[str]:
    """What the processor has of that which the native modules need, in the names of Linux."""
    return frozenset(feature for name, feature in _FEATURES.items() if sysctl(name) == 1)
