from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from episodes import play_in_single_envs
from gymnasium import spaces

from rlwandb_callbacks.core.episode import Episode, PolicyStep, QValues
from rlwandb_callbacks.environments.factory import EnvFactory
from rlwandb_callbacks.errors import ReplayDivergedError
from rlwandb_callbacks.evaluation.fingerprint import fingerprint
from rlwandb_callbacks.evaluation.replay import replay
from rlwandb_callbacks.testing import CorridorEnv, PointEnv

NEVER = 1_000_000


def episodes_of(
    make_env: Callable[[], gym.Env[Any, Any]],
    act: Callable[[Any], PolicyStep],
    seeds: Sequence[int],
    *,
    num_envs: int | None = None,
    max_steps: int = NEVER,
) -> list[Episode]:
    played = play_in_single_envs(make_env, act, seeds=seeds, num_envs=num_envs or len(seeds), max_steps=max_steps)
    return [each.episode for each in played]


def go_right(observations: Any) -> PolicyStep:
    return PolicyStep(np.ones(len(observations), np.int64))


def stay(observations: Any) -> PolicyStep:
    return PolicyStep(np.zeros(len(observations), np.int64))


def lean(observations: Any) -> PolicyStep:
    """Balances CartPole, a while."""
    return PolicyStep((observations[:, 2] > 0).astype(np.int64))


def damp(observations: Any) -> PolicyStep:
    return PolicyStep(np.clip(-observations[:, -1:], -1, 1).astype(np.float32))


def fire(observations: Any) -> PolicyStep:
    return PolicyStep(np.where(observations[:, 3] < -0.3, 2, 0))


def by_hand(env: gym.Env[Any, Any], act: Callable[[Any], PolicyStep], seed: int, max_steps: int) -> dict[str, Any]:
    observation, _ = env.reset(seed=seed)
    actions, rewards, terminated, truncated = [], [], False, False
    while not (terminated or truncated) and len(rewards) < max_steps:
        action = act(observation[None]).actions[0]
        observation, reward, terminated, truncated, _ = env.step(action)
        actions.append(action)
        rewards.append(float(reward))
    env.close()
    return {"actions": actions, "rewards": rewards, "ends": (terminated, truncated)}


@pytest.mark.parametrize("num_envs", [1, 2, 3])
@pytest.mark.parametrize(
    ("name", "act", "max_steps"),
    [("CartPole-v1", lean, 500), ("Pendulum-v1", damp, 60), ("LunarLander-v3", fire, 400), ("corridor", go_right, 50)],
)
def test_episodes_equal_those_of_envs_that_are_stepped_by_hand(
    name: str, act: Any, max_steps: int, num_envs: int
) -> None:
    def make_env() -> gym.Env[Any, Any]:
        return CorridorEnv() if name == "corridor" else gym.make(name)

    seeds = [3, 0, 11]
    for episode, seed in zip(
        episodes_of(make_env, act, seeds, num_envs=num_envs, max_steps=max_steps), seeds, strict=True
    ):
        expected = by_hand(make_env(), act, seed, max_steps)
        assert episode.seed == seed
        assert episode.rewards.tolist() == expected["rewards"]
        assert np.array_equal(episode.actions, np.stack(expected["actions"]))
        assert (episode.terminated, episode.truncated) == (expected["ends"] if any(expected["ends"]) else (False, True))


@pytest.mark.parametrize("num_envs", [1, 2, 3, 9, 10, 64])
def test_short_episodes_are_not_overrepresented(num_envs: int) -> None:
    episodes = episodes_of(CorridorEnv, go_right, range(10), num_envs=num_envs)
    assert [episode.seed for episode in episodes] == list(range(10))
    assert [episode.length for episode in episodes] == [2, 3, 4, 5, 6] * 2
    assert [episode.total_return for episode in episodes] == [2.0, 3.0, 4.0, 5.0, 6.0] * 2


def test_the_number_of_envs_does_not_change_an_episode() -> None:
    all_at_once = episodes_of(PointEnv, damp, range(5))
    for num_envs in (1, 2, 4):
        for one, other in zip(all_at_once, episodes_of(PointEnv, damp, range(5), num_envs=num_envs), strict=True):
            assert np.array_equal(one.digests, other.digests)
            assert np.array_equal(one.actions, other.actions)


@pytest.mark.parametrize(("num_envs", "calls"), [(1, 2 + 3 + 4 + 5), (2, 3 + 5), (3, 2 + 5), (4, 5)])
def test_the_policy_is_called_once_per_step_for_all_envs(num_envs: int, calls: int) -> None:
    batches = []

    def act(observations: Any) -> PolicyStep:
        batches.append(observations.shape)
        return go_right(observations)

    episodes_of(CorridorEnv, act, range(4), num_envs=num_envs)
    assert batches == [(num_envs, 2)] * calls


def test_each_action_is_recorded_with_the_output_for_its_observation() -> None:
    def act(observations: Any) -> PolicyStep:
        positions = observations[:, 0].astype(np.float64)
        scores = QValues(np.stack([positions, -positions], axis=1))
        return PolicyStep(np.ones(len(observations), np.int64), scores, positions * 10)

    for episode in episodes_of(CorridorEnv, act, range(5), num_envs=2):
        expected = np.arange(episode.length) / episode.length
        assert episode.values == pytest.approx(expected * 10, rel=1e-6)
        assert episode.scores.values[:, 0] == pytest.approx(expected, rel=1e-6)


def test_a_policy_without_scores_gives_an_episode_without_scores() -> None:
    episode = episodes_of(CorridorEnv, go_right, [0])[0]
    assert episode.scores is None
    assert episode.values is None
    assert episode.frames is None


def test_the_ending_of_an_episode_is_recorded() -> None:
    reached, waited = episodes_of(CorridorEnv, go_right, [0])[0], episodes_of(CorridorEnv, stay, [0])[0]
    assert (reached.terminated, reached.truncated, reached.success, reached.cut_at) == (True, False, True, None)
    assert (waited.terminated, waited.truncated, waited.success, waited.cut_at) == (False, True, False, None)
    assert waited.length == 20


@pytest.mark.parametrize("num_envs", [1, 2])
def test_an_episode_beyond_max_steps_is_marked_as_cut(num_envs: int) -> None:
    first, second = episodes_of(PointEnv, damp, [0, 1], num_envs=num_envs, max_steps=4)
    for episode in (first, second):
        assert (episode.length, episode.terminated, episode.truncated, episode.cut_at) == (4, False, True, 4)
        assert episode.ending == "cut at 4 steps"


def test_an_episode_that_ends_by_itself_at_max_steps_is_not_cut() -> None:
    assert episodes_of(PointEnv, damp, [0], max_steps=10)[0].cut_at is None
    reached = episodes_of(CorridorEnv, go_right, [0], max_steps=2)[0]
    assert (reached.terminated, reached.cut_at) == (True, None)
    assert episodes_of(CorridorEnv, go_right, [1], max_steps=2)[0].cut_at == 2


def test_a_time_limit_of_a_wrapper_is_not_a_cut() -> None:
    episode = episodes_of(lambda: gym.wrappers.TimeLimit(CorridorEnv(), 3), go_right, [4])[0]
    assert (episode.length, episode.truncated, episode.cut_at) == (3, True, None)


class WithInfo(CorridorEnv):
    """A corridor with a given info."""

    def __init__(self, info: dict[str, Any]) -> None:
        super().__init__()
        self._info = info

    def step(self, action: Any) -> Any:
        *others, _ = super().step(action)
        return *others, self._info


@pytest.mark.parametrize(
    ("info", "success"),
    [
        ({"is_success": True}, True),
        ({"is_success": 0.0}, False),
        ({"success": np.True_}, True),
        ({"success": False}, False),
        ({"is_success": np.array([True])}, True),
        ({"is_success": True, "success": False}, True),
        ({}, None),
        ({"won": True}, None),
    ],
)
def test_success_is_read_from_the_info_of_the_last_step(info: dict[str, Any], success: bool | None) -> None:
    found = episodes_of(lambda: WithInfo(info), go_right, [0])[0].success
    assert found is success


@pytest.mark.parametrize(
    ("space", "action"),
    [
        (spaces.Discrete(3, start=5), 6),
        (spaces.MultiDiscrete([3, 4]), [2, 3]),
        (spaces.MultiBinary(3), [1, 0, 1]),
        (spaces.Box(-1, 1, (2, 2)), [[0.5, -0.5], [1.0, 0.0]]),
    ],
    ids=["Discrete with start", "MultiDiscrete", "MultiBinary", "matrix"],
)
def test_actions_of_any_space_reach_the_env_unchanged(space: spaces.Space[Any], action: Any) -> None:
    received = []

    class Listening(CorridorEnv):
        def __init__(self) -> None:
            super().__init__()
            self.action_space = space

        def step(self, action: Any) -> Any:
            received.append(np.array(action))
            return super().step(1)

    episode = episodes_of(Listening, lambda batch: PolicyStep(np.array([action] * len(batch), space.dtype)), [0, 1])[1]
    assert episode.actions.tolist() == [action] * 3
    assert episode.actions.dtype == space.dtype
    assert all(np.array_equal(taken, action) and space.contains(taken[()]) for taken in received)


def test_observations_that_are_dicts_and_tuples_are_batched() -> None:
    class Structured(CorridorEnv):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = spaces.Dict(
                {"at": self.observation_space, "rest": spaces.Tuple((spaces.Discrete(9), spaces.Box(0, 1, (1,))))}
            )

        def _observation(self) -> Any:
            return {"at": super()._observation(), "rest": (self._position, np.zeros(1, np.float32))}

    def act(observations: Any) -> PolicyStep:
        assert observations["at"].shape == (2, 2)
        assert isinstance(observations["rest"], tuple)
        return PolicyStep(np.where(observations["rest"][0] >= 0, 1, 0))

    assert [episode.length for episode in episodes_of(Structured, act, range(4), num_envs=2)] == [2, 3, 4, 5]


def test_an_env_is_reset_once_per_episode_and_not_stepped_after_its_end() -> None:
    log: list[str] = []

    class Logging(CorridorEnv):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            log.append(f"reset {seed}")
            return super().reset(seed=seed, options=options)

        def step(self, action: Any) -> Any:
            log.append("step")
            return super().step(action)

    episodes_of(Logging, go_right, [0, 3], num_envs=2)
    assert sorted(entry for entry in log if entry != "step") == ["reset 0", "reset 3"]
    assert log.count("step") == 2 + 5


class Closing(CorridorEnv):
    """Counts the environments that are open."""

    open = 0

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        Closing.open += 1

    def close(self) -> None:
        Closing.open -= 1


def test_envs_are_closed_also_when_the_policy_fails() -> None:
    Closing.open = 0
    episodes_of(Closing, go_right, range(5), num_envs=3)
    assert Closing.open == 0
    with pytest.raises(ZeroDivisionError):
        episodes_of(Closing, lambda _: 1 / 0, range(5), num_envs=3)
    assert Closing.open == 0


def test_recorded_episodes_have_one_frame_more_than_steps() -> None:
    played = play_in_single_envs(
        lambda: CorridorEnv("rgb_array"), go_right, seeds=range(3), num_envs=2, max_steps=NEVER, frames_max_bytes=10**6
    )
    for each in played:
        assert each.frames is not None
        env = CorridorEnv("rgb_array")
        env.reset(seed=each.episode.seed)
        expected = [env.render()]
        for action in each.episode.actions:
            env.step(action)
            expected.append(env.render())
        assert each.frames.steps == tuple(range(each.episode.length + 1))
        assert np.array_equal(list(each.frames), expected)


def test_envs_are_not_rendered_unless_frames_are_recorded() -> None:
    class NotRendered(CorridorEnv):
        def render(self) -> Any:
            raise AssertionError

    assert play_in_single_envs(NotRendered, go_right, seeds=[0], num_envs=1, max_steps=NEVER)[0].frames is None


def test_there_is_one_digest_more_than_steps_and_episodes_differ_in_them() -> None:
    first, again, other = (episodes_of(PointEnv, damp, [seed])[0].digests for seed in (0, 0, 1))
    assert len(first) == 11
    assert first.dtype == np.uint32
    assert np.array_equal(first, again)
    assert first[0] != other[0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.array([1.0, 2.0]), np.array([1.0, 2.0 + 1e-12])),
        (np.array([1.0, 2.0]), np.array([2.0, 1.0])),
        ({"a": np.zeros(2), "b": np.ones(2)}, {"a": np.ones(2), "b": np.zeros(2)}),
        ((np.zeros(2), 3), (np.zeros(2), 4)),
        ("left", "right"),
        ({"text": "a"}, {"text": "b"}),
        (5, 6),
    ],
)
def test_any_difference_changes_the_digest(one: Any, other: Any) -> None:
    assert fingerprint(one, 1.0).digest == fingerprint(one, 1.0).digest
    assert fingerprint(one, 1.0).digest != fingerprint(other, 1.0).digest
    assert fingerprint(one, 1.0).digest != fingerprint(one, 1.0 + 1e-12).digest
    assert 0 <= fingerprint(one, 1.0).digest < 2**32


def test_the_digest_does_not_depend_on_the_order_of_keys_or_memory() -> None:
    zeros, ones = np.zeros((2, 3)), np.ones((2, 3))
    assert fingerprint({"a": zeros, "b": ones}, 0.0).digest == fingerprint({"b": ones, "a": zeros}, 0.0).digest
    array = np.arange(6.0).reshape(2, 3)
    assert fingerprint(array.T, 0.0).digest == fingerprint(np.ascontiguousarray(array.T), 0.0).digest


def test_too_few_actions_are_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        episodes_of(CorridorEnv, lambda _: PolicyStep(np.ones(1, np.int64)), range(2))


def test_global_random_state_is_not_changed() -> None:
    random.seed(0)
    state = random.getstate()
    episodes_of(CorridorEnv, go_right, range(3), num_envs=2)
    assert random.getstate() == state


def test_fresh_envs_makes_a_new_env_for_each_episode() -> None:
    made = []

    def make() -> CorridorEnv:
        made.append(Closing())
        return made[-1]

    Closing.open = 0
    played = play_in_single_envs(make, go_right, seeds=range(5), num_envs=2, max_steps=NEVER, fresh_envs=True)
    assert [each.episode.length for each in played] == [2, 3, 4, 5, 6]
    assert (len(made), Closing.open) == (5, 0)
    assert len({env._length for env in made}) == 5


def test_an_env_that_reset_does_not_restore_can_be_replayed_with_fresh_envs() -> None:
    def act(observations: Any) -> PolicyStep:
        return PolicyStep(np.tile(np.array([0.9, -0.4, 0.6, 0.3], np.float32), (len(observations), 1)))

    def third(fresh: bool) -> Episode:
        maker = EnvFactory("BipedalWalker-v3")
        return play_in_single_envs(maker, act, seeds=[0, 1, 2], num_envs=1, max_steps=8, fresh_envs=fresh)[2].episode

    def make() -> gym.Env[Any, Any]:
        return EnvFactory("BipedalWalker-v3")(render=True)

    with pytest.raises(ReplayDivergedError):
        list(replay(make, third(fresh=False)))
    assert sum(1 for _ in replay(make, third(fresh=True))) == 9


def test_observations_are_recorded_if_they_have_a_budget() -> None:
    played = play_in_single_envs(
        CorridorEnv, go_right, seeds=[0, 1, 2], num_envs=2, max_steps=50, observations_max_bytes=10**6
    )
    for each, length in zip(played, (2, 3, 4), strict=True):
        episode = each.episode
        assert episode.observation_stride == 1
        assert episode.observations is not None
        assert episode.observations.dtype == np.float32
        assert np.allclose(episode.observations, [[place / length, 1.0] for place in range(length)])
    (without,) = episodes_of(CorridorEnv, go_right, [0])
    assert without.observations is None


def test_large_observations_are_thinned() -> None:
    played = play_in_single_envs(
        CorridorEnv, stay, seeds=[0, 1], num_envs=2, max_steps=50, observations_max_bytes=5 * 8
    )
    for each in played:
        assert each.episode.observations is not None
        assert each.episode.observations.nbytes <= 5 * 8
        assert each.episode.observation_stride == 8
        assert each.episode.length == 20


class Paying(CorridorEnv):
    """A corridor whose rewards have another type."""

    def __init__(self, form: Callable[[float], Any], render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self._form = form

    def step(self, action: Any) -> Any:
        observation, reward, *rest = super().step(action)
        return observation, self._form(reward), *rest


@pytest.mark.parametrize("form", [np.array, lambda reward: np.array([reward]), lambda reward: [[reward]], torch.tensor])
def test_rewards_of_one_element_are_numbers_in_any_shape(form: Callable[[float], Any]) -> None:
    (episode,) = episodes_of(lambda: Paying(form), go_right, [1])
    assert episode.rewards.tolist() == [1.0, 1.0, 1.0]
    assert len(list(replay(lambda: Paying(form, "rgb_array"), episode))) == 4


@pytest.mark.parametrize("form", [lambda _: None, lambda reward: np.array([reward, reward])])
def test_a_reward_that_is_not_a_number_is_an_error(form: Callable[[float], Any]) -> None:
    with pytest.raises(TypeError, match=r"returned the reward .* it must be a single number"):
        episodes_of(lambda: Paying(form), go_right, [1])


@pytest.mark.parametrize("first", [True, False])
def test_success_is_that_of_the_last_step_and_success_any_that_of_any_step(first: bool) -> None:
    class Passing(CorridorEnv):
        def step(self, action: Any) -> Any:
            *step, _ = super().step(action)
            return (*step, {"success": float(first and self._steps == 1)})

    (episode,) = episodes_of(Passing, go_right, [0])
    assert (episode.success, episode.success_any) == (False, first)
