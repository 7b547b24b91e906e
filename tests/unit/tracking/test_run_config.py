"""Settings and hyper-parameters as the config of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlwandb_callbacks.config import WandbRLConfig, as_config
from rlwandb_callbacks.testing import CorridorEnv
from rlwandb_callbacks.tracking.run_config import without_secrets


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


def test_secrets_inside_texts_are_masked() -> None:
    config = {
        "dataset": "s3://me:hunter2@host/x",
        "cmd": ["--api-key=hunter2", "--token", "hunter2", "--lr", "3"],
        "f": _partial_with_a_secret(),
    }
    plain = without_secrets(config)
    assert "hunter2" not in str(plain)
    assert plain["cmd"] == ["--api-key=***", "--token", "***", "--lr", "3"]
    assert without_secrets({"dataset": "s3://me:hunter2@host/x"}) == {"dataset": "s3://***@host/x"}


def _partial_with_a_secret() -> Any:
    from functools import partial

    return partial(dict, token="hunter2")
