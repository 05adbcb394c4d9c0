from __future__ import annotations

import importlib

import pytest

from clarion.host import choices


@pytest.fixture(scope="session", params=[choice.name for choice in choices() if choice.usable])
def native(request):
    """Every native module that this processor can run."""
    return importlib.import_module(f"clarion._native.{request.param}")
