"""Secrets in settings, arguments and hyper-parameters reach no file, no output and no message."""

from __future__ import annotations

import os
import re
import traceback
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rlwandb_callbacks import WandbRLCallback, open_dataset
from rlwandb_callbacks.environments.factory import EnvFactory
from rlwandb_callbacks.errors import DatasetError, EnvError
from rlwandb_callbacks.testing import CorridorEnv, TinyValidatedQ, read_offline_run

PASSWORD = "hunter2-planted"
NAMES = ["auth", "bearer", "Authorization", "aws_access_key_id", "pwd", "passphrase", "key", "cookie", "dbPassword"]
PLANTED = {name: f"{PASSWORD}-{name}" for name in NAMES}
URL = f"s3://me:{PASSWORD}@host/data"


class GuardedEnv(CorridorEnv):
    """Environment that needs a login, and fails at the second episode with what it knows."""

    def __init__(self, url: str, render_mode: str | None = None, **login: str) -> None:
        super().__init__(render_mode=render_mode)
        self.login, self.episodes = {**login, "url": url}, 0

    def reset(self, **options: Any) -> Any:
        self.episodes += 1
        if self.episodes > 1:
            raise ConnectionError(f"{self.login['url']} refused {self.login['pwd']} ({self.login})")
        return super().reset(**options)


class LoggedInQ(TinyValidatedQ):
    def __init__(self, url: str, **login: str) -> None:
        super().__init__()
        self.save_hyperparameters()


def texts_with_the_secret(folder: Path) -> list[str]:
    files = [Path(where) / name for where, _, names in os.walk(folder) for name in names]
    return [str(file) for file in files if PASSWORD.encode() in file.read_bytes() or PASSWORD in file.name]


def test_secrets_planted_in_a_training_reach_no_file_and_no_output(
    fit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WANDB_SILENT", raising=False)
    callback = WandbRLCallback(
        executor="thread",
        evaluation={
            "env": GuardedEnv,
            "env_kwargs": {"url": URL, **PLANTED},
            "policy": "q_network",
            "episodes": 2,
            "num_envs": 1,
        },
        run={"config": {**PLANTED, "data": URL, "make": partial(dict, token=PASSWORD), "seed": 3}, "notes": "n"},
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(LoggedInQ(URL, **PLANTED), callback)
    messages = [str(each.message) for each in caught if "rlwandb" in str(each.message)]
    assert any("ConnectionError" in message and "***" in message for message in messages), messages
    assert PASSWORD not in "".join(str(each.message) for each in caught)
    assert PASSWORD not in "".join(capfd.readouterr())
    assert texts_with_the_secret(tmp_path) == []
    run = read_offline_run(callback.run_folder)
    assert (run.config["seed"], run.config["data"], run.config["url"]) == (
        3,
        "s3://***@host/data",
        "s3://***@host/data",
    )


@pytest.mark.parametrize("name", [*NAMES, "url"])
def test_an_environment_that_fails_with_its_arguments_shows_no_secret(name: str) -> None:
    def make(**kwargs: str) -> None:
        raise RuntimeError(f"cannot log in with {kwargs[name]} of {kwargs}")

    with pytest.raises(EnvError, match=rf"env_kwargs.*{name}.*cannot log in with .*\*\*\*") as caught:
        EnvFactory(make, {"url": URL, **PLANTED}).open()
    shown = "".join(traceback.format_exception(caught.value))
    assert PASSWORD not in shown
    assert "RuntimeError" in shown


def test_an_environment_that_fails_without_secrets_keeps_its_cause() -> None:
    def make(path: str) -> None:
        raise FileNotFoundError(f"no file {path}")

    with pytest.raises(EnvError, match=re.escape("no file a/b.rom")) as caught:
        EnvFactory(make, {"path": "a/b.rom"}).open()
    assert isinstance(caught.value.__cause__, FileNotFoundError)


@pytest.mark.parametrize("scheme", ["s3", "https"])
def test_the_address_of_a_data_set_is_shown_without_its_password(scheme: str) -> None:
    with pytest.raises(DatasetError, match=rf"{scheme}://\*\*\*@host/x.npz is not a local file"):
        open_dataset(f"{scheme}://me:{PASSWORD}@host/x.npz")
