from __future__ import annotations

import pytest

from clarion import host


@pytest.fixture(scope="session", params=[choice.name for choice in host.choices() if choice.usable])
def native(request):
    """Every native module that this processor can run."""
    return host.native(request.param)
