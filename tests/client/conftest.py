from __future__ import annotations

from collections.abc import Iterator

import pytest

import clarion
from clarion.server.run import Running
from tests.server.conftest import chat_model, server  # noqa: F401


@pytest.fixture(scope="session")
def connection(server: Running) -> Iterator[clarion.Connection]:  # noqa: F811
    with clarion.connect(server.url) as found:
        yield found


@pytest.fixture(scope="session")
def model(server: Running) -> clarion.Model:  # noqa: F811
    """The model that the server has: what it gives is what the connection has to give."""
    found = server.server.pool.find("tale").model
    assert found is not None
    return found
