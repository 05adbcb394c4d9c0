"""Numbers that macOS tells of the machine."""

from __future__ import annotations

import ctypes


def sysctl(name: str) -> int | None:
    """The integer of this name, None where there is none."""
    value, length = ctypes.c_int64(0), ctypes.c_size_t(8)
    call = ctypes.CDLL(None).sysctlbyname
    if call(name.encode(), ctypes.byref(value), ctypes.byref(length), None, ctypes.c_size_t(0)) != 0:
        return None
    return value.value if value.value >= 0 else None
