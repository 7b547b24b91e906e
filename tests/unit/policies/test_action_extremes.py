"""Policies that act in [-1, 1] in environments with other bounds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from evaluations import evaluated
from gymnasium import spaces
from random_env import RandomEnv

from rlwandb_callbacks.core.episode import PolicyStep
from rlwandb_callbacks.policies.action_extremes import ActionExtremes

Action = Callable[[torch.Tensor], Any]


class BoxEnv(RandomEnv):
    """Environment with random observations of four numbers and a given action space."""

    length = 50

    def __init__(self, low: Any, high: Any) -> None:
        super().__init__(observations=4)
        low, high = np.broadcast_arrays(np.asarray(low, np.float32), np.asarray(high, np.float32))
        self.action_space = spaces.Box(low, high, dtype=np.float32)


class NestedEnv(RandomEnv):
    """Environment with an action space that has a ``Box`` as one of its parts."""

    length = 50

    def __init__(self) -> None:
        super().__init__(observations=4)
        self.action_space = spaces.Dict({"arm": spaces.Box(-2.0, 2.0, (4,), np.float32), "hand": spaces.Discrete(2)})


def warnings_of(policy: Action, low: Any = [-2.0] * 4, high: Any = 2.0, **settings: Any) -> list[str]:
    return evaluated(policy, **{"env": partial(BoxEnv, low, high), "episodes": 2, **settings})[1]


def squashed(observations: torch.Tensor) -> torch.Tensor:
    return torch.tanh(5 * observations)


def is_warned(messages: list[str]) -> bool:
    assert len(messages) <= 1
    return any("between -1 and 1 only and reaches both ends" in message for message in messages)


@pytest.mark.parametrize(
    ("low", "high"),
    [([-2.0] * 4, 2.0), ([-0.4] * 4, 0.4), ([0.0] * 4, 1.0), ([0.0] * 4, 100.0), ([-1.0, -1.0, -1.0, 0.0], 1.0)],
)
def test_policy_that_fills_minus_1_to_1_and_not_the_bounds_is_warned_of_once(low: Any, high: Any) -> None:
    messages = warnings_of(squashed, low, high)
    assert is_warned(messages)
    assert "squashed" in messages[0]
    assert "low + (actions + 1) / 2 * (high - low)" in messages[0]


@pytest.mark.parametrize(("low", "high"), [([-1.0] * 4, 1.0), ([-np.inf] * 4, np.inf), ([-2.0] * 4, np.inf)])
def test_bounds_of_minus_1_and_1_and_unbounded_actions_are_not_warned_of(low: Any, high: Any) -> None:
    assert warnings_of(squashed, low, high) == []


@pytest.mark.parametrize(
    "policy",
    [
        lambda observations: 2 * squashed(observations),
        lambda observations: 0.9 * squashed(observations),
        lambda observations: squashed(observations).abs(),
        lambda observations: observations,
    ],
)
def test_actions_that_exceed_minus_1_to_1_or_do_not_reach_both_ends_are_not_warned_of(policy: Action) -> None:
    assert warnings_of(policy) == []


def test_sigmoids_are_in_the_bounds_of_their_dimensions() -> None:
    """As in CarRacing: steering in [-1, 1], gas and brake in [0, 1]."""

    def policy(observations: torch.Tensor) -> torch.Tensor:
        return torch.cat([squashed(observations[:, :2]), (5 * observations[:, 2:]).sigmoid()], dim=1)

    assert warnings_of(policy, [-1.0, -1.0, 0.0, 0.0], 1.0) == []


@pytest.mark.parametrize(
    "policy",
    [
        lambda observations: {"action": squashed(observations)},
        lambda observations: (squashed(observations), None),
        lambda observations: torch.distributions.TransformedDistribution(
            torch.distributions.Normal(5 * observations, 0.1), [torch.distributions.TanhTransform()]
        ),
        lambda observations: {"action": squashed(observations), "loc": 5 * observations, "scale": torch.ones(4)},
        lambda observations: (squashed(observations), {"mean_actions": squashed(observations)}),
        lambda observations: PolicyStep(squashed(observations).numpy()),
    ],
)
def test_every_form_of_output_is_watched(policy: Action) -> None:
    assert is_warned(warnings_of(policy))


def test_parts_of_compound_actions_are_watched() -> None:
    def policy(observations: torch.Tensor) -> Any:
        hand = torch.zeros(len(observations), dtype=torch.int64)
        return {"action": {"arm": squashed(observations), "hand": hand}}

    assert is_warned(warnings_of(policy, env=NestedEnv))


def test_environment_that_scales_actions_itself_is_not_warned_of() -> None:
    def make() -> Any:
        return gym.wrappers.RescaleAction(BoxEnv([-2.0] * 4, 2.0), np.float32(-1), np.float32(1))

    assert warnings_of(squashed, env=make) == []


def test_later_actions_outside_of_minus_1_to_1_count_too() -> None:
    space, extremes = spaces.Box(-2.0, 2.0, (1,), np.float32), ActionExtremes()
    extremes.add(space, np.array([[-1.0], [1.0]]))
    assert extremes.warning() is not None
    extremes.add(space, np.array([[1.1]]))
    assert extremes.warning() is None
