"""The demos' player and replay buffer return exactly the transitions that were played."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import FrameStackObservation, TransformObservation

from rlwandb_callbacks.demos.playing import Player
from rlwandb_callbacks.demos.replay_buffer import ReplayBuffer

SHAPE = (2, 3)


class CountingEnv(gym.Env[Any, Any]):
    """All observations differ; episodes have 1 to 9 steps and end by termination or truncation."""

    observation_space = gym.spaces.Box(0, 255, SHAPE, np.uint8)
    action_space = gym.spaces.Discrete(7)

    def __init__(self) -> None:
        self.count = 0

    def _observe(self) -> np.ndarray:
        self.count += 1
        low, high = self.count % 256, self.count // 256
        return np.array([[low, high, 0], [0, 0, 0]], np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(1, 10))
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        self.left -= 1
        ends, by_time = self.left == 0, bool(self.np_random.integers(2))
        return self._observe(), float(self.count), ends and not by_time, ends and by_time, {}


def as_key(observation: Any, action: Any, reward: Any, following: Any, terminated: Any) -> tuple[Any, ...]:
    arrays = (np.asarray(observation), np.asarray(following))
    return arrays[0].tobytes(), int(action), float(reward), arrays[1].tobytes(), bool(terminated)


class RecordingWrapper(gym.Wrapper[Any, Any, Any, Any]):
    """Records all transitions in full."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.transitions: list[tuple[Any, ...]] = []

    def reset(self, **settings: Any) -> Any:
        self.latest, info = self.env.reset(**settings)
        self.latest = np.array(self.latest)
        return self.latest, info

    def step(self, action: Any) -> Any:
        following, reward, terminated, truncated, info = self.env.step(action)
        self.transitions.append(as_key(self.latest, action, reward, following, terminated))
        self.latest = np.array(following)
        return following, reward, terminated, truncated, info


def sampled_keys(buffer: ReplayBuffer, count: int) -> Iterator[tuple[Any, ...]]:
    columns = buffer.sample(count)
    return (as_key(*(column[row].numpy() for column in columns)) for row in range(count))


@pytest.mark.parametrize("stacked", [1, 4])
@pytest.mark.parametrize("steps", [5, 20, 500])
def test_samples_are_the_latest_transitions_that_were_played(stacked: int, steps: int) -> None:
    env = RecordingWrapper(FrameStackObservation(CountingEnv(), stacked) if stacked > 1 else CountingEnv())
    buffer = ReplayBuffer(40, seed=0)
    Player(env, buffer, seed=3, stacked_frames=stacked).play(lambda _: int(env.np_random.integers(7)), steps)
    assert set(sampled_keys(buffer, 3_000)) == set(env.transitions[-40:])
    assert len(buffer) == min(steps, 40)


def test_each_frame_of_a_stack_is_stored_once() -> None:
    env = FrameStackObservation(CountingEnv(), 4)
    buffer = ReplayBuffer(300, seed=0)
    player = Player(env, buffer, seed=0, stacked_frames=4)
    player.play(lambda _: 0, 300)
    assert buffer.sample(7).observation.shape == (7, 4, *SHAPE)
    assert buffer.sample(7).observation.dtype == torch.uint8
    stacks = [stack for item in buffer._transitions for stack in (item.observation, item.next_observation)]
    frames = {id(frame) for stack in stacks for frame in stack}
    per_episode = 4  # the frames of the first stack of an episode are equal
    assert len(frames) <= 300 + per_episode * (player.episodes + 1)


def test_a_first_observation_that_is_not_a_stack_is_an_error() -> None:
    with pytest.raises(ValueError, match="stacked_frames is 2, but the first observation"):
        Player(CountingEnv(), ReplayBuffer(9, seed=0), seed=0, stacked_frames=2)


def test_a_buffer_without_capacity_is_an_error() -> None:
    with pytest.raises(ValueError, match="buffer_size is 0; it must be an integer ≥ 1"):
        ReplayBuffer(0, seed=0)


def test_samples_depend_on_the_seed_of_the_buffer_only() -> None:
    def sample(seed: int) -> list[float]:
        buffer = ReplayBuffer(100, seed)
        Player(CountingEnv(), buffer, seed=0).play(lambda _: 0, 100)
        return buffer.sample(20).reward.tolist()

    first, second = sample(3), sample(3)
    assert first == second != sample(4)


def test_sampling_leaves_the_global_generators_alone() -> None:
    states = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002  # the global generator is what is checked
    buffer = ReplayBuffer(100, seed=0)
    Player(CountingEnv(), buffer, seed=0).play(lambda _: 0, 9)
    buffer.sample(20)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002  # as above


def test_a_filled_buffer_can_be_copied_and_pickled() -> None:
    buffer = ReplayBuffer(100, seed=0)
    Player(CountingEnv(), buffer, seed=0).play(lambda _: 0, 50)
    copies = [copy.deepcopy(buffer), pickle.loads(pickle.dumps(buffer))]
    expected = buffer.sample(20).reward.tolist()
    assert [each.sample(20).reward.tolist() for each in copies] == [expected, expected]


def test_observations_of_double_precision_become_single() -> None:
    space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    env = TransformObservation(gym.make("Pendulum-v1"), lambda observation: observation.astype(np.float64), space)
    buffer = ReplayBuffer(300, seed=0)
    Player(env, buffer, seed=0).play(lambda observation: observation[:1], 250)
    transitions = buffer.sample(16)
    assert {str(column.dtype) for column in transitions} == {"torch.float32", "torch.bool"}
    assert transitions.action.shape == (16, 1)
    assert not transitions.terminated.any()


def test_stored_rewards_are_clipped_and_returns_are_not() -> None:
    buffer = ReplayBuffer(40, seed=0)
    player = Player(CountingEnv(), buffer, seed=0, clips_rewards=True)
    player.play(lambda _: 0, 30)
    assert set(buffer.sample(64).reward.tolist()) == {1.0}
    assert max(player.returns) > 10
