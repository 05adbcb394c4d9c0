"""The device of these tests: PyTorch counts devices when it first computes gradients, so it comes before."""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("torch") is not None:
    from tests.zoo import elsewhere

    elsewhere.register()
