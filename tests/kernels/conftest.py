from __future__ import annotations

from types import ModuleType

import pytest

from clarion import host

USABLE = [choice.name for choice in host.choices() if choice.usable]


@pytest.fixture(params=USABLE)
def native(request: pytest.FixtureRequest) -> ModuleType:
    """Every native module that this processor can run."""
    return host.native(request.param)
