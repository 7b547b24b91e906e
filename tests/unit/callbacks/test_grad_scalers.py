"""Scalers are found where users keep them, without side effects."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from rlwandb_callbacks.callbacks.grad_scalers import find_scalers


class Renamed(torch.amp.GradScaler):
    pass


class Agent:
    def __init__(self, scaler: Any) -> None:
        self.scaler = scaler

    @property
    def other(self) -> Any:
        raise AssertionError("properties are not read")

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} is not asked for")


def found(scaler: Any = None, **attributes: Any) -> dict[str, Any]:
    trainer: Any = SimpleNamespace(precision_plugin=SimpleNamespace(scaler=scaler))
    module: Any = pl.LightningModule()
    for name, value in attributes.items():
        setattr(module, name, value)
    return find_scalers(trainer, module)


def scaler(**options: Any) -> Any:
    return torch.amp.GradScaler("cpu", **options)


def test_the_scaler_of_the_precision_plugin_is_found_once() -> None:
    one = scaler()
    assert found(one, mine=one) == {"precision": one}
    assert found() == found(scaler(enabled=False), mine=scaler(enabled=False)) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x", lambda each: each),
        ("x_scaler", Agent),
        ("x_agent_scaler", lambda each: SimpleNamespace(agent=Agent(each))),
        ("x_1", lambda each: ["text", each]),
        ("x_actor", lambda each: {"actor": each, 3: None}),
        ("x_0_amp", lambda each: ({"amp": each},)),
    ],
)
def test_scalers_are_found_in_attributes_mappings_and_lists(name: str, value: Any) -> None:
    for each in (scaler(), Renamed("cpu")):
        assert found(x=value(each)) == {name: each}


def test_scalers_of_submodules_and_several_scalers_are_found() -> None:
    network, one, two = nn.Sequential(nn.Linear(1, 1)), scaler(), scaler()
    network[0].amp = one  # type: ignore[assignment]  # any attribute
    assert found(network=network, critic=two) == {"critic": two, "network_0_amp": one}


def test_large_containers_arrays_and_circles_are_not_followed() -> None:
    circle: list[Any] = []
    circle.append(circle)
    assert found(x=[scaler()] * 1000, circle=circle, array=torch.zeros(3).numpy()) == {}
