from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clarion.server.pool import Served
from clarion.server.run import Running
from tests.server.servers import running, with_template


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model with a chat template."""
    return with_template(tmp_path_factory.mktemp("served") / "tale.gguf")


@pytest.fixture(scope="session")
def server(chat_model: Path) -> Iterator[Running]:
    """A server of the tiny model, which tests of ordinary requests share."""
    with running([Served("tale", chat_model, aliases=("gpt-x",))], context=512) as started:
        yield started
