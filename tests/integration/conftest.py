"""Fixtures of integration tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from wandb_server import WandbServer, wandb_server


@pytest.fixture(scope="session")
def running_server() -> Iterator[WandbServer]:
    """Starts a W&B-compatible server once for all tests of a process."""
    pytest.importorskip("openwandb")
    with wandb_server() as server:
        yield server


@pytest.fixture
def server(running_server: WandbServer) -> Iterator[WandbServer]:
    """Returns the server: answering normally, without records of earlier tests."""
    running_server.reset()
    yield running_server
    running_server.reset()
