"""The names of parameters, which are those of GGUF's tensors but for the modules around them."""

from __future__ import annotations

import re
from collections.abc import Iterable

_MODULES = re.compile(r"\.(attention|feed_forward)\.")


def tensor_names(parameters: Iterable[str]) -> dict[str, str]:
    """GGUF's name for each parameter: `blk.0.attention.attn_q.weight` is `blk.0.attn_q.weight`."""
    names = {}
    for name in parameters:
        short = _MODULES.sub(".", name)
        names[name] = short if short.endswith(".weight") else f"{short}.weight"
    return names
