"""What this machine can do at most, measured: the figures that speeds are held against."""

from __future__ import annotations

from clarion.devices.isa import native


def bandwidth(threads: int, isa: str | None = None, seconds: float = 0.25) -> float:
    """Bytes that `threads` threads read from memory, far beyond the caches, in a second."""
    return float(native(isa).measure_bandwidth(threads, seconds))


def multiply_peak(threads: int, isa: str | None = None, seconds: float = 0.25) -> float:
    """Products of bytes that `threads` threads compute and add up within registers in a second."""
    return float(native(isa).measure_multiply(threads, seconds))
