"""Fixtures of integration tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import wandb
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


@pytest.fixture
def go_online(server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Returns a function after whose call the runs of this process are online."""

    def go() -> None:
        wandb.teardown()  # settings are read once
        monkeypatch.delenv("WANDB_MODE")
        for name, value in server.environment(tmp_path).items():
            monkeypatch.setenv(name, value)

    yield go
    server.behave("normal")
    wandb.teardown()


@pytest.fixture
def online(server: WandbServer, go_online: Callable[[], None]) -> WandbServer:
    """Returns the server; runs of this process are online."""
    go_online()
    return server
