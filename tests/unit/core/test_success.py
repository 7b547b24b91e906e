"""Success, rewards and numbers of environments that compute with torch."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from evaluations import evaluated

from rlwandb_callbacks.core.infos import InfoAccumulator, reward_of, success_of
from rlwandb_callbacks.testing import CorridorEnv


class Unreadable:
    """Raises whatever is asked of it."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("not now")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (torch.tensor(True), True),
        (torch.tensor([0.0]), False),
        (torch.tensor(1.0, requires_grad=True), True),
        (torch.tensor([1, 0], dtype=torch.bfloat16), False),
        ([torch.tensor(True), np.True_], True),
        ({"agent_0": True, "agent_1": torch.tensor(False)}, False),
        ({"agent_0": True, "agent_1": 1}, True),
        (np.array([None]), None),
        (torch.empty(0), None),
        ([], None),
        ({}, None),
        (float("nan"), None),
        ("False", None),
        (None, None),
        (Unreadable(), None),
    ],
)
def test_success_is_read_from_any_type_and_unreadable_flags_are_unknown(value: Any, expected: bool | None) -> None:
    assert success_of({"success": value}, ("is_success", "success")) is expected


def test_the_next_key_counts_if_the_first_is_unreadable() -> None:
    assert success_of({"is_success": None, "success": torch.tensor([True])}, ("is_success", "success")) is True


def test_tensors_with_a_gradient_are_numbers() -> None:
    scalar = torch.tensor(1.5, requires_grad=True)
    tally = InfoAccumulator()
    tally.add({"height": scalar, "picture": torch.zeros(3, 3)}, reward_of(scalar.reshape(1)))
    assert tally.numbers()["height"].mean == reward_of(scalar) == 1.5
    assert list(tally.numbers()) == ["height"]


class InTorch(gym.Wrapper[Any, Any, Any, Any]):
    """Reports rewards, ends and success as tensors."""

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = self.env.step(action)
        info = {**info, "success": torch.tensor([bool(terminated)])}
        info.pop("is_success", None)
        return observation, torch.tensor([reward], requires_grad=True), torch.tensor(terminated), truncated, info


def make_in_torch() -> Any:
    return InTorch(CorridorEnv())


def test_an_evaluation_survives_flags_that_are_tensors() -> None:
    episodes, warned = evaluated(lambda states: torch.ones(len(states), dtype=torch.long), env=make_in_torch)
    assert [each.success for each in episodes] == [True] * 8
    assert [each.total_return for each in episodes] == [2.0 + seed % 5 for seed in range(8)]
    assert warned == []
