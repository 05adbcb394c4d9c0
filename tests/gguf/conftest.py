"""TEMPORARY until the native core lists its formats."""

from clarion.devices import native

if not hasattr(native(), "formats"):
    native().formats = lambda: [
        (0, "F32", 1, 4), (1, "F16", 1, 2), (30, "BF16", 1, 2), (8, "Q8_0", 32, 34), (2, "Q4_0", 32, 18),
        (12, "Q4_K", 256, 144), (13, "Q5_K", 256, 176), (14, "Q6_K", 256, 210),
    ]  # fmt: skip
