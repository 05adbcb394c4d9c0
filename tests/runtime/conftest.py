"""What tests of the runtime share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.runtime.fakes import FakeMachine


@pytest.fixture
def machine() -> Iterator[FakeMachine]:
    """An engine on fakes, closed at the end."""
    machine = FakeMachine()
    yield machine
    machine.engine.close()
