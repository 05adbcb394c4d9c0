"""The machine at hand: which instruction set to use."""

from clarion.host.isa import (
    choices,
    choose,
    measures,
    module_sizes,
    native,
    processor_family,
    processor_name,
    quantizer,
)

__all__ = [
    "choices",
    "choose",
    "measures",
    "module_sizes",
    "native",
    "processor_family",
    "processor_name",
    "quantizer",
]
