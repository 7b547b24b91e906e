"""The demos' replay memory gives back exactly what was played, whatever it keeps of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import FrameStackObservation

from rlwandb_callbacks.demos.playing import Player
from rlwandb_callbacks.demos.replay_buffer import ReplayBuffer

SHAPE = (2, 3)


class Counted(gym.Env[Any, Any]):
    """Every observation is a number that never comes again; episodes have 1 to 9 steps and end in both ways."""

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


class Witness(gym.Wrapper[Any, Any, Any, Any]):
    """Keeps what was played, in full."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.seen: list[tuple[Any, ...]] = []

    def reset(self, **settings: Any) -> Any:
        self.latest, info = self.env.reset(**settings)
        self.latest = np.array(self.latest)
        return self.latest, info

    def step(self, action: Any) -> Any:
        following, reward, terminated, truncated, info = self.env.step(action)
        self.seen.append(as_key(self.latest, action, reward, following, terminated))
        self.latest = np.array(following)
        return following, reward, terminated, truncated, info


def drawn(buffer: ReplayBuffer, count: int) -> Iterator[tuple[Any, ...]]:
    columns = buffer.sample(count)
    return (as_key(*(column[row].numpy() for column in columns)) for row in range(count))


@pytest.mark.parametrize("stacked", [1, 4])
@pytest.mark.parametrize("steps", [5, 20, 500])
def test_what_is_drawn_was_played_and_of_the_latest_all_is_drawn(stacked: int, steps: int) -> None:
    env = Witness(FrameStackObservation(Counted(), stacked) if stacked > 1 else Counted())
    buffer = ReplayBuffer(40, env.observation_space, env.action_space, stacked_frames=stacked)
    Player(env, buffer, seed=3).play(lambda _: int(env.np_random.integers(7)), steps)
    found = set(drawn(buffer, 3_000))
    assert found <= set(env.seen[-40:])
    assert set(env.seen[-20:]) <= found
    assert len(buffer) == len(found)


def test_only_the_newest_frame_of_a_stack_is_kept() -> None:
    space = gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)
    buffer = ReplayBuffer(100, space, gym.spaces.Discrete(2), stacked_frames=4)
    held = sum(value.nbytes for value in vars(buffer).values() if isinstance(value, np.ndarray))
    assert held < 100 * 84 * 84 + 100 * 50
    assert buffer.dtype == np.uint8


def test_a_first_observation_that_is_no_stack_is_an_error() -> None:
    buffer = ReplayBuffer(9, gym.spaces.Box(0, 255, (4, 2), np.uint8), gym.spaces.Discrete(2), stacked_frames=4)
    with pytest.raises(ValueError, match="stacked_frames is 4, but the first observation"):
        buffer.begin(np.arange(8, dtype=np.uint8).reshape(4, 2))


def test_observations_of_double_precision_become_single() -> None:
    env = gym.make("Pendulum-v1")
    space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    buffer = ReplayBuffer(300, space, env.action_space)
    Player(env, buffer, seed=0).play(lambda observation: observation[:1], 250)
    rows = buffer.sample(16)
    assert {str(column.dtype) for column in rows} == {"torch.float32", "torch.bool"}
    assert rows.action.shape == (16, 1)
    assert not rows.terminated.any()


def test_clipped_rewards_are_learnt_from_and_returns_stay_whole() -> None:
    buffer = ReplayBuffer(40, Counted.observation_space, Counted.action_space)
    player = Player(Counted(), buffer, seed=0, clips_rewards=True)
    player.play(lambda _: 0, 30)
    assert set(buffer.sample(64).reward.tolist()) == {1.0}
    assert max(player.returns) > 10
