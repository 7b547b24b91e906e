"""Runs that cannot be opened online: offline under the same id with the reason, or an error before the first step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from wandb_server import WandbServer

from rlwandb_callbacks.config import RunConfig
from rlwandb_callbacks.errors import ConfigError
from rlwandb_callbacks.testing import read_offline_run
from rlwandb_callbacks.tracking import wandb_run

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def _online(server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    wandb.teardown()
    for name in ("WANDB_MODE", "WANDB_SILENT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in server.environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")  # whose requests would be recorded
    monkeypatch.chdir(tmp_path)
    yield
    server.behave("normal")
    wandb.finish()
    wandb.teardown()


def open_and_finish(**run: Any) -> tuple[Any, Path]:
    opened = wandb_run.open_run(RunConfig(project="p", **run))
    opened.log({"a": 1.0})
    wandb_run.release_run(opened)
    return opened, Path(opened.dir).parent


def our_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if "rlwandb:" in line]


@pytest.mark.parametrize(("resume", "run_id"), [("allow", "abc"), ("auto", "abc2"), ("auto", None), (None, "abc3")])
def test_a_run_that_the_server_fails_to_open_is_offline_under_the_same_id(
    server: WandbServer,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    resume: str | None,
    run_id: str | None,
) -> None:
    monkeypatch.setattr(wandb_run, "find_obstacle", lambda: None)  # the server fails after it was asked
    server.behave("status", status=403, of="graphql")
    run, folder = open_and_finish(resume=resume, id=run_id)
    assert folder.name.startswith("offline-run-")
    assert [path.name.rpartition("-")[2] for path in Path("wandb").glob("*run-*")] == [run.id] * 2
    assert run_id in (None, run.id)
    assert read_offline_run(folder).column("a") == [1.0]
    line, at_the_end = our_lines(capfd.readouterr().err)
    assert "W&B answered: " in line
    assert "injected" in line
    assert "wandb sync" not in line
    assert f"wandb sync {folder}" in at_the_end


@pytest.mark.parametrize("is_asked", [True, False])
def test_a_run_that_must_be_resumed_and_cannot_is_an_error_that_says_why(
    server: WandbServer, monkeypatch: pytest.MonkeyPatch, is_asked: bool
) -> None:
    if not is_asked:
        monkeypatch.setattr(wandb_run, "find_obstacle", lambda: None)
    server.behave("status", status=403, of="graphql")
    with pytest.raises(ConfigError, match=r"run\.resume is 'must', but .*403.*run\.resume='allow'"):
        open_and_finish(resume="must", id="abc4")


def test_a_run_that_does_not_exist_cannot_be_resumed() -> None:
    with pytest.raises(ConfigError, match=r"run\.resume is 'must', but .*does not exist"):
        open_and_finish(resume="must", id="nowhere")


def test_a_refused_key_is_told_in_one_line_with_what_to_do(
    server: WandbServer, capfd: pytest.CaptureFixture[str]
) -> None:
    server.behave("status", status=401)
    _, folder = open_and_finish()
    line, _ = our_lines(capfd.readouterr().err)
    assert f"{server.url} refuses the API key in WANDB_API_KEY (HTTP 401); logging offline." in line
    assert f"{server.url}/authorize" in line
    assert read_offline_run(folder).column("a") == [1.0]


@pytest.mark.parametrize("name", ["run.mode", "WANDB_MODE"])
def test_a_run_that_must_be_online_and_cannot_is_an_error(
    server: WandbServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    server.behave("status", status=403, of="graphql")
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(ConfigError, match=rf"{name} is 'online', but .* refuses the API key"):
        open_and_finish(mode="online" if name == "run.mode" else None)


def test_a_run_is_online_with_blanks_around_the_key(
    server: WandbServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", f"{'0123456789abcdef' * 3}"[:40] + " ")
    run, _ = open_and_finish()
    assert [row["a"] for row in server.rows(run.id)] == [1.0]
    assert "WANDB_API_KEY begins or ends with blanks" in capfd.readouterr().err
