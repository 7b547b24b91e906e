"""Replays whose last bits differ are accepted, and other differences are found."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from episodes import play_in_single_envs

from rlwandb_callbacks.core.episode import Episode, PolicyStep
from rlwandb_callbacks.environments.factory import EnvFactory
from rlwandb_callbacks.errors import ReplayDivergedError
from rlwandb_callbacks.evaluation.fingerprint import ReplayCheck, fingerprint, stack_states
from rlwandb_callbacks.evaluation.replay import replay


class RenderingChangesState(gym.Env[Any, Any]):
    """A rotation by random angles; each call of render() adds ``change`` to its state."""

    action_space = gym.spaces.Discrete(2)
    change = 1e-15
    dtype: Any = np.float64
    size = 3

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (self.size,), self.dtype)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.state = self.np_random.normal(size=self.size)
        return self.state.astype(self.dtype), {}

    def step(self, action: Any) -> Any:
        self.state = np.roll(self.state, 1) * 1.001 + self.np_random.normal(size=self.size) * 0.1
        return self.state.astype(self.dtype), float(self.dtype(self.state[0])), False, False, {}

    def render(self) -> Any:
        self.state = self.state + self.change
        return np.zeros((8, 8, 3), np.uint8)


def variant(**attributes: Any) -> type[RenderingChangesState]:
    return type("Variant", (RenderingChangesState,), attributes)


def ones(observations: Any) -> PolicyStep:
    return PolicyStep(np.ones(len(observations), int))


def played_and_replayed(env: type[gym.Env[Any, Any]], steps: int = 50) -> int:
    maker = EnvFactory(env)
    (played,) = play_in_single_envs(maker, ones, seeds=[3], num_envs=1, max_steps=steps)
    return sum(1 for _ in replay(partial(maker, render=True), played.episode))


@pytest.mark.parametrize(
    "attributes",
    [{}, {"dtype": np.float32}, {"size": 500}, {"size": 500, "dtype": np.float32}, {"change": 1e-12}],
    ids=["64 bits", "32 bits", "large", "large, 32 bits", "1e-12"],
)
def test_changes_of_the_last_bits_by_rendering_are_accepted(attributes: dict[str, Any]) -> None:
    assert played_and_replayed(variant(**attributes)) == 51


@pytest.mark.parametrize("size", [1, 3, 500])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_other_changes_by_rendering_are_found(size: int, dtype: Any) -> None:
    with pytest.raises(ReplayDivergedError, match="at step 1 of 50"):
        played_and_replayed(variant(size=size, dtype=dtype, change=1e-3))


def episode_of(observations: list[Any], rewards: list[float]) -> Episode:
    found = [fingerprint(each, reward) for each, reward in zip(observations, [0.0, *rewards], strict=True)]
    return Episode(
        actions=np.zeros(len(rewards)),
        rewards=np.array(rewards),
        terminated=True,
        digests=np.array([each.digest for each in found], np.uint32),
        states=stack_states(found),
    )


OBSERVATION = {
    "picture": np.full((4, 4), 200, np.uint8),
    "position": np.array([1000.0, 1.0]),
    "mission": "go",
    "level": 3,
}


@pytest.mark.parametrize(
    "change",
    [
        {"picture": np.eye(4, dtype=np.uint8) + np.full((4, 4), 199, np.uint8)},
        {"position": np.array([1000.0, 1.1])},
        {"position": np.array([1000.0, 1.0, 0.0])},
        {"position": np.array([1000.0, np.nan])},
        {"mission": "stop"},
        {"level": 4},
    ],
    ids=["picture", "small beside large", "one number more", "NaN", "text", "integer"],
)
def test_each_part_of_an_observation_is_compared(change: dict[str, Any]) -> None:
    later = {**OBSERVATION, "position": np.array([1001.0, 2.0])}
    check = ReplayCheck(episode_of([OBSERVATION, later], [1.0]))
    assert check.passes(0, OBSERVATION, 0.0)
    assert check.passes(0, {**OBSERVATION, "position": np.array([1000.0, 1.0 + 1e-15])}, 0.0)
    assert not check.passes(0, {**OBSERVATION, **change}, 0.0)


@pytest.mark.parametrize(("difference", "passes"), [(1e-12, True), (1e-7, False), (-1e-3, False)])
def test_rewards_are_compared_closely(difference: float, passes: bool) -> None:
    check = ReplayCheck(episode_of([0.5, 0.5], [0.3]))
    assert check.passes(1, 0.5, 0.3 + difference) == passes


def test_rewards_of_32_bits_may_differ_in_their_last_bits() -> None:
    reward = float(np.float32(0.3))
    check = ReplayCheck(episode_of([0.5, 0.5], [reward]))
    assert check.passes(1, 0.5, float(np.nextafter(np.float32(0.3), np.float32(1))))
    assert not check.passes(1, 0.5, reward + 1e-7)


def test_an_episode_without_states_must_have_equal_bytes() -> None:
    episode = Episode(**{**vars(episode_of([0.5, 0.5], [0.3])), "states": None})
    assert ReplayCheck(episode).passes(1, 0.5, 0.3)
    assert not ReplayCheck(episode).passes(1, 0.5 + 1e-15, 0.3)


def test_states_are_kept_of_an_environment_that_changes_its_observation_in_place() -> None:
    class InPlace(RenderingChangesState):
        def step(self, action: Any) -> Any:
            self.state += 1.0
            return self.state, 1.0, False, False, {}

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            self.state = np.zeros(self.size)
            return self.state, {}

    (played,) = play_in_single_envs(EnvFactory(InPlace), ones, seeds=[3], num_envs=1, max_steps=2)
    assert played.episode.states is not None
    assert played.episode.states["numbers"][:, :4].tolist() == [[0, 0, 0, 0], [1, 1, 1, 0], [2, 2, 2, 0]]


def test_one_change_in_several_parts_and_the_reward_changes_the_digest() -> None:
    before, after = np.array([0.5]), np.array([0.5 + 1e-3])
    assert fingerprint(before, 0.5).digest != fingerprint(after, 0.5 + 1e-3).digest
    assert fingerprint({"a": before, "b": before}, 0.0).digest != fingerprint({"a": after, "b": after}, 0.0).digest
    assert fingerprint({"a": 1, "b": 1}, 0.0).digest != fingerprint({"a": 2, "b": 2}, 0.0).digest


def test_randomness_that_rendering_does_not_cause_is_found() -> None:
    class Shaky(RenderingChangesState):
        def step(self, action: Any) -> Any:
            observation, reward, *others = super().step(action)
            return observation, reward + 1e-6 * random.random(), *others

    with pytest.raises(ReplayDivergedError):
        played_and_replayed(Shaky)
