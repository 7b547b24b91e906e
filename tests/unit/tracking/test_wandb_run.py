"""Functions that do not open a run; tests/integration tests runs with wandb."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb

from rlwandb_callbacks.config import RunConfig, WandbRLConfig, as_config
from rlwandb_callbacks.core.values import Histogram, Image, Scalar, Table
from rlwandb_callbacks.testing import CorridorEnv
from rlwandb_callbacks.tracking.wandb_run import choose_mode, is_reachable, is_run, without_secrets
from rlwandb_callbacks.tracking.wandb_tracker import to_wandb


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.fixture
def port() -> Iterator[int]:
    """Returns a local port with a listening server."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_listening_server_is_reachable(no_proxy: None, port: int) -> None:
    assert is_reachable(f"http://127.0.0.1:{port}")
    assert is_reachable(f"https://127.0.0.1:{port}/some/path")


def test_closed_port_is_not_reachable(no_proxy: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed_port = server.getsockname()[1]
    assert not is_reachable(f"http://127.0.0.1:{closed_port}")


@pytest.mark.parametrize("url", ["https://no-such-host.invalid", "", "https://"])
def test_unknown_or_invalid_host_is_not_reachable(no_proxy: None, url: str) -> None:
    assert not is_reachable(url)


def test_server_behind_a_proxy_is_assumed_to_be_reachable(no_proxy: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    assert is_reachable("https://no-such-host.invalid")
    assert not is_reachable("http://no-such-host.invalid")


@pytest.mark.parametrize(
    ("configured", "in_environment", "mode"),
    [("offline", None, "offline"), ("online", "offline", "online"), (None, "offline", None), (None, "disabled", None)],
)
def test_configured_mode_is_kept(
    monkeypatch: pytest.MonkeyPatch, configured: str | None, in_environment: str | None, mode: str | None
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    if in_environment is not None:
        monkeypatch.setenv("WANDB_MODE", in_environment)
    assert choose_mode(RunConfig(mode=configured)) == (mode, "")


@dataclass
class Section:
    """Settings of a user, one of them a secret."""

    lr: float = 0.1
    auth_token: str = "abc"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            {"lr": 0.1, "n": 3, "on": True, "name": "x", "none": None},
            {"lr": 0.1, "n": 3, "on": True, "name": "x", "none": None},
        ),
        ({"api_key": 1, "WANDB_API_KEY": 1, "apiKey": 1, "hf_token": 1, "Password": 1, "db_passwd": 1}, {}),
        ({"client_secret": 1, "credentials": {"user": "u"}, "private_key": 1, "keys": 1}, {"keys": 1}),
        (
            {"nested": {"password": "p", "seed": 1, "deep": [{"secret": 2, "x": 3}]}},
            {"nested": {"seed": 1, "deep": [{"x": 3}]}},
        ),
        (Section(), {"lr": 0.1}),
        ({"section": Section()}, {"section": {"lr": 0.1}}),
        ({1: "a", ("b", 2): "c"}, {"1": "a", "('b', 2)": "c"}),
        ((1, (2, "x")), [1, [2, "x"]]),
        ({"env": CorridorEnv, "f": len}, {"env": "CorridorEnv", "f": "len"}),
        ({"env_class": Section}, {"env_class": "Section"}),
        ({"path": Path("a") / "b", "dtype": torch.float32}, {"path": str(Path("a") / "b"), "dtype": "torch.float32"}),
        ({}, {}),
    ],
)
def test_configs_are_converted_to_plain_values_without_secrets(value: Any, expected: Any) -> None:
    assert without_secrets(value) == expected


def test_long_representations_are_truncated() -> None:
    assert (
        len(
            without_secrets({"data": np.zeros((100, 100)), "model": torch.nn.Sequential(*[torch.nn.ReLU()] * 90)})[
                "model"
            ]
        )
        == 300
    )


def test_infinite_numbers_are_unchanged() -> None:
    assert without_secrets({"clip": math.inf}) == {"clip": math.inf}


def test_config_of_the_callback_is_converted_to_plain_values() -> None:
    plain = without_secrets(as_config(env=CorridorEnv, run={"config": {"api_key": "k", "note": "n"}}))
    assert plain["evaluation"]["env"] == "CorridorEnv"
    assert plain["run"]["config"] == {"note": "n"}
    assert set(plain) == {field.name for field in fields(WandbRLConfig)}


@pytest.mark.parametrize("value", [None, "run", object()])
def test_other_objects_are_not_runs(value: Any) -> None:
    assert not is_run(value)


def test_scalars_and_histograms_keep_their_values() -> None:
    assert to_wandb(Scalar(2)) == 2.0
    assert math.isnan(to_wandb(Scalar(math.nan)))
    histogram = to_wandb(Histogram(np.array([1, 2]), np.array([0.0, 1.0, 3.0])))
    assert (histogram.histogram, histogram.bins) == ([1, 2], [0.0, 1.0, 3.0])


def test_images_and_tables_keep_their_content() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = to_wandb(Image(pixels, "a caption"))
    assert isinstance(image, wandb.Image)
    assert np.array_equal(np.asarray(image.image), pixels)
    table = to_wandb(Table(("a", "b"), [(1, None), (2.5, "x")]))
    assert (table.columns, table.data) == (["a", "b"], [[1, None], [2.5, "x"]])
