"""Environment variables that W&B refuses or ignores, with real runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb

from rlwandb_callbacks.config import RunConfig
from rlwandb_callbacks.errors import ConfigError
from rlwandb_callbacks.testing import read_offline_run
from rlwandb_callbacks.tracking.variables import describe_ignored_switch
from rlwandb_callbacks.tracking.wandb_process import end_process
from rlwandb_callbacks.tracking.wandb_run import is_disabled, open_run, release_run

KEY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def _new_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lets W&B read its settings again, without a mode, and with a key and a server that does not exist."""
    wandb.teardown()
    for name in ("WANDB_MODE", "WANDB_SILENT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    yield
    if wandb.run is not None:
        wandb.finish()
    wandb.teardown()


def our_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if "rlwandb:" in line]


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("WANDB_MODE", "Offline", "'online', 'offline'"),
        ("WANDB_RESUME", "true", "'allow', 'must', 'never' or 'auto'"),
        ("WANDB_INIT_TIMEOUT", "soon", "a valid number"),
        ("WANDB_PROJECT", "a/b", "cannot contain characters"),
    ],
)
def test_a_variable_that_wandb_refuses_is_named_and_the_run_is_offline(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str, value: str, allowed: str
) -> None:
    monkeypatch.setenv(name, value)
    run = open_run(RunConfig())
    run.log({"a": 1.0})
    assert release_run(run) is None
    assert read_offline_run(Path(run.dir).parent).column("a") == [1.0]
    line, at_the_end = our_lines(capfd.readouterr().err)
    assert f"{name} is {value!r}, which W&B does not accept: " in line
    assert allowed in line
    assert "logging offline" in line
    assert "wandb sync" in at_the_end
    assert os.environ[name] == value


def test_several_refused_variables_are_all_named_once_and_a_new_process_of_wandb_starts_with_them(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    refused = {"WANDB_QUIET": "maybe", "WANDB_RESUME": "yes"}
    for name, value in refused.items():
        monkeypatch.setenv(name, value)
    for mode in (None, "offline"):
        run = open_run(RunConfig(mode=mode))
        assert run.offline
        release_run(run)
        end_process()
    text = " ".join(our_lines(capfd.readouterr().err))
    assert all(text.count(f"{name} is {value!r}") == 1 for name, value in refused.items())


def test_a_misspelled_disabled_mode_is_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "DISABLED")
    run = open_run(RunConfig())
    assert is_disabled(run)
    release_run(run)


def test_a_run_that_must_be_online_is_an_error_that_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RESUME", "true")
    with pytest.raises(ConfigError, match=r"run\.mode is 'online', but WANDB_RESUME is 'true', .*'allow'"):
        open_run(RunConfig(mode="online"))


@pytest.mark.parametrize("value", ["true", "True", "1", "YES"])
def test_wandb_disabled_is_a_disabled_run_and_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], value: str
) -> None:
    monkeypatch.setenv("WANDB_DISABLED", value)
    run = open_run(RunConfig())
    assert is_disabled(run)
    release_run(run)
    (line,) = our_lines(capfd.readouterr().err)
    assert "WANDB_MODE=disabled" in line


@pytest.mark.parametrize(("value", "mode"), [("false", None), ("0", None), ("", None), ("true", "offline")])
def test_wandb_disabled_has_no_effect_if_it_is_false_or_the_config_has_a_mode(
    monkeypatch: pytest.MonkeyPatch, value: str, mode: str | None
) -> None:
    monkeypatch.setenv("WANDB_DISABLED", value)
    run = open_run(RunConfig(mode=mode))
    assert not is_disabled(run)
    assert run.offline
    release_run(run)


@pytest.mark.parametrize(
    ("offline", "value", "is_told"), [(False, "true", True), (True, "true", False), (False, "", False)]
)
def test_a_run_of_the_user_that_is_uploaded_despite_wandb_disabled_is_told(
    monkeypatch: pytest.MonkeyPatch, offline: bool, value: str, is_told: bool
) -> None:
    monkeypatch.setenv("WANDB_DISABLED", value)
    run: Any = SimpleNamespace(id="r", offline=offline, settings=SimpleNamespace(base_url="https://user:pw@host"))
    message = describe_ignored_switch(run)
    assert (message is not None) == is_told
    assert "pw" not in str(message)
