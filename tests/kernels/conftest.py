from __future__ import annotations

import importlib
from types import ModuleType

import pytest

from clarion.host import choices

USABLE = [choice.name for choice in choices() if choice.usable]


@pytest.fixture(params=USABLE)
def native(request: pytest.FixtureRequest) -> ModuleType:
    """Every native module that this processor can run."""
    return importlib.import_module(f"clarion._native.{request.param}")
