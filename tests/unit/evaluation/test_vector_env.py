from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from episodes import play_in_single_envs
from evaluations import Evaluations, KeptErrors
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics
from torch import nn

from rlwandb_callbacks.config import WandbRLConfig, as_config
from rlwandb_callbacks.core.episode import Episode, PolicyStep
from rlwandb_callbacks.core.infos import InfoSummary
from rlwandb_callbacks.environments.vector_metadata import autoreset_mode
from rlwandb_callbacks.evaluation.episode_recorder import RecordingOptions
from rlwandb_callbacks.evaluation.evaluator import Evaluator
from rlwandb_callbacks.evaluation.rollout import play
from rlwandb_callbacks.evaluation.vector_env import VectorEnvBatch, reset_each
from rlwandb_callbacks.testing import CorridorEnv

MODES = list(AutoresetMode)
FORKS = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


def lean(observations: Any) -> PolicyStep:
    """Balances CartPole, a while."""
    return PolicyStep((np.asarray(observations)[:, 2] > 0).astype(np.int64))


def go_right(observations: Any) -> PolicyStep:
    return PolicyStep(np.ones(len(observations), np.int64))


def right(observations: torch.Tensor) -> torch.Tensor:
    return torch.ones(len(observations), dtype=torch.int64)


def episodes_of(envs: Any, act: Any, seeds: range, max_steps: int = 1000) -> list[Episode]:
    played = play(VectorEnvBatch(lambda: envs), act, seeds=seeds, options=RecordingOptions(max_steps))
    envs.close()
    return [each.episode for each in played]


def in_single_envs(make_env: Any, act: Any, seeds: range, max_steps: int = 1000) -> list[Episode]:
    return [each.episode for each in play_in_single_envs(make_env, act, seeds=seeds, num_envs=1, max_steps=max_steps)]


def assert_equal(ours: list[Episode], expected: list[Episode]) -> None:
    assert len(ours) == len(expected)
    for one, other in zip(ours, expected, strict=True):
        assert one.seed == other.seed
        assert one.rewards.tolist() == other.rewards.tolist()
        assert np.array_equal(one.actions, other.actions)
        assert np.array_equal(one.digests, other.digests)
        endings = [(e.terminated, e.truncated, e.success, e.cut_at, e.infos) for e in (one, other)]
        assert endings[0] == endings[1]


class WithPosition(CorridorEnv):
    """A corridor whose info has the position."""

    def step(self, action: Any) -> Any:
        *others, info = super().step(action)
        return *others, {**info, "position": float(self._position), "text": "here"}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("num_envs", [1, 3, 7])
def test_episodes_equal_those_of_single_envs_in_every_autoreset_mode(mode: AutoresetMode, num_envs: int) -> None:
    def make() -> SyncVectorEnv:
        return SyncVectorEnv([WithPosition] * num_envs, autoreset_mode=mode)

    for seeds, max_steps in [(range(5), 1000), (range(3, 10), 4)]:
        ours = episodes_of(make(), go_right, seeds, max_steps)
        assert_equal(ours, in_single_envs(WithPosition, go_right, seeds, max_steps))
        assert ours[0].infos["position"].last == ours[0].length


@pytest.mark.parametrize("mode", MODES)
def test_cartpole_episodes_equal_those_of_single_envs_up_to_the_last_observation(mode: AutoresetMode) -> None:
    envs = SyncVectorEnv([lambda: gym.make("CartPole-v1")] * 3, autoreset_mode=mode)
    assert_equal(episodes_of(envs, lean, range(7)), in_single_envs(lambda: gym.make("CartPole-v1"), lean, range(7)))


@FORKS
def test_async_vectors_play_the_same_episodes() -> None:
    envs = AsyncVectorEnv([lambda: gym.make("CartPole-v1")] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    assert_equal(episodes_of(envs, lean, range(3)), in_single_envs(lambda: gym.make("CartPole-v1"), lean, range(3)))


@pytest.mark.parametrize("wrapper", [DictInfoToList, RecordEpisodeStatistics])
def test_infos_of_wrapped_vectors_are_read(wrapper: Any) -> None:
    envs = wrapper(SyncVectorEnv([WithPosition] * 2))
    assert [e.infos["position"] for e in episodes_of(envs, go_right, range(2))] == [
        InfoSummary(1.5, 2.0, 3.0),
        InfoSummary(2.0, 3.0, 6.0),
    ]


def test_actions_in_dicts_are_recorded_per_env() -> None:
    class WithDict(CorridorEnv):
        def __init__(self) -> None:
            super().__init__()
            self.action_space = spaces.Dict({"move": self.action_space})

        def step(self, action: Any) -> Any:
            return super().step(action["move"])

    def act(observations: Any) -> PolicyStep:
        return PolicyStep({"move": np.ones(len(observations), np.int64)})  # type: ignore[arg-type]  # as such spaces take them

    episodes = episodes_of(SyncVectorEnv([WithDict] * 2), act, range(3))
    assert [episode.length for episode in episodes] == [2, 3, 4]
    assert episodes[0].actions.tolist() == [{"move": 1}] * 2


@pytest.mark.parametrize("num_envs", [1, 2, 5, 16])
def test_short_episodes_are_not_overrepresented(num_envs: int) -> None:
    episodes = episodes_of(SyncVectorEnv([CorridorEnv] * num_envs), go_right, range(10))
    assert [episode.length for episode in episodes] == [2, 3, 4, 5, 6] * 2


def test_a_vector_that_takes_only_one_seed_gives_episodes_without_seeds() -> None:
    envs = gym.make_vec("CartPole-v1", num_envs=3, vectorization_mode="vector_entry_point")
    observations, has_seeds = reset_each(envs, range(4, 7))
    assert not has_seeds
    assert np.array_equal(observations, envs.reset(seed=4)[0])
    first, again = (episodes_of(envs, lean, range(5)) for _ in range(2))
    assert [episode.seed for episode in first] == [None] * 5
    assert [episode.total_return for episode in first] == [episode.total_return for episode in again]
    assert all(episode.terminated and episode.total_return == episode.length >= 8 for episode in first)


def test_a_vector_without_a_valid_autoreset_mode_resets_at_the_next_step() -> None:
    envs = SyncVectorEnv([CorridorEnv])
    envs.metadata = {"autoreset_mode": "something"}
    assert autoreset_mode(envs) is AutoresetMode.NEXT_STEP
    assert [autoreset_mode(SyncVectorEnv([CorridorEnv], autoreset_mode=mode)) for mode in MODES] == MODES


def test_the_mode_of_a_vector_is_that_of_its_attribute_and_not_that_of_the_last_vector_made() -> None:
    class WritesSharedMetadata(VectorEnv[Any, Any, Any]):
        """Writes its mode as the vectors of ale-py do."""

        def __init__(self, mode: AutoresetMode) -> None:
            self.autoreset_mode = mode
            self.metadata["autoreset_mode"] = mode

    class Silent(VectorEnv[Any, Any, Any]):
        """Says nothing about its mode."""

    shared = dict(VectorEnv.metadata)
    try:
        vectors = [*map(WritesSharedMetadata, MODES), Silent()]
        wrapped = VectorWrapper(vectors[0])
        assert [autoreset_mode(envs) for envs in vectors] == [*MODES, AutoresetMode.NEXT_STEP]
        assert autoreset_mode(wrapped) is MODES[0]
    finally:
        VectorEnv.metadata.clear()
        VectorEnv.metadata.update(shared)


class Blind(gym.vector.VectorEnv[Any, Any, Any]):
    """A custom vector that renders nothing, or one picture for all environments."""

    def __init__(self, picture: Any = None, render_mode: str | None = None) -> None:
        self.inner, self.picture, self.render_mode, self.num_envs = SyncVectorEnv([CorridorEnv] * 2), picture, None, 2
        self.metadata, self.render_mode = self.inner.metadata, render_mode
        for name in ("action_space", "observation_space", "single_action_space", "single_observation_space"):
            setattr(self, name, getattr(self.inner, name))

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return self.inner.reset(seed=seed, options=options)

    def step(self, actions: Any) -> Any:
        return self.inner.step(actions)

    def render(self) -> Any:
        return self.picture


def config(env: Any, **keywords: Any) -> WandbRLConfig:
    return as_config({"evaluation": {"env": env, "policy": right, "episodes": 5, **keywords}, "return_logger": False})


def last_of(
    cfg: WandbRLConfig, errors: KeptErrors, folder: Path, times: int = 2
) -> tuple[list[Episode], dict[str, Any]]:
    evaluate = Evaluations(cfg, folder, errors)
    return [evaluate() for _ in range(times)][-1]


def corridors(render_mode: str | None = None) -> SyncVectorEnv:
    return SyncVectorEnv([lambda: CorridorEnv(render_mode)] * 2, autoreset_mode=AutoresetMode.SAME_STEP)


class Wide(CorridorEnv):
    """A corridor with observations of another type than its space, to which a batch converts them."""

    def _observation(self) -> Any:
        return super()._observation().astype(np.float64) / 3


VECTORS = {
    "other types": lambda: SyncVectorEnv([Wide] * 2),
    "function that takes render_mode": corridors,
    "function that takes none": lambda: SyncVectorEnv([CorridorEnv] * 2),
    "vector": SyncVectorEnv([CorridorEnv] * 2, autoreset_mode=AutoresetMode.DISABLED),
    "processes": lambda: AsyncVectorEnv([CorridorEnv] * 2),
}


@FORKS
@pytest.mark.parametrize("kind", VECTORS)
def test_videos_are_rendered_in_single_envs_if_there_are_some(
    kind: str, errors: KeptErrors, tmp_path: Path, decode: Callable[..., Any]
) -> None:
    episodes, clips = last_of(config(VECTORS[kind]), errors, tmp_path)
    assert [episode.length for episode in episodes] == [2, 3, 4, 5, 6]
    assert (errors.errors, errors.warnings) == ([], [])
    for rank, length in [("best", 6), ("median", 4), ("worst", 2)]:
        frames = decode(clips[f"video/{rank}"].path)[1]
        columns = [np.nonzero(frame[100, :, 0] > 128)[0][0] for frame in frames]
        assert columns == pytest.approx([position * 61 // 8 * 6 for position in range(length + 1)], abs=1)


def test_a_vector_without_single_envs_is_recorded_while_playing(
    errors: KeptErrors, tmp_path: Path, decode: Callable[..., Any]
) -> None:
    kwargs = {"id": "CartPole-v1", "num_envs": 2, "vectorization_mode": "vector_entry_point"}
    episodes, clips = last_of(config("gymnasium:make_vec", env_kwargs=kwargs, episodes=3), errors, tmp_path)
    assert (errors.errors, errors.warnings) == ([], [])
    best = max(episodes, key=lambda episode: episode.total_return)
    frames = decode(clips["video/best"].path)[1]
    assert len(frames) == best.length + 1
    assert np.abs(frames[-1].astype(int) - frames[0]).mean() > 0.5


@pytest.mark.parametrize("picture", [None, np.zeros((8, 8, 3), np.uint8)], ids=["none", "one for all"])
def test_a_vector_that_cannot_render_each_env_gives_numbers_and_one_error(
    picture: Any, errors: KeptErrors, tmp_path: Path
) -> None:
    episodes, clips = last_of(config(Blind, env_kwargs={"picture": picture}), errors, tmp_path, times=3)
    assert [episode.length for episode in episodes] == [2, 3, 4, 5, 6]
    assert clips == {}
    assert [what for what, _ in errors.errors] == ["Making videos"]
    assert "one frame for each of its 2 environments" in str(errors.errors[0][1])


def test_a_vector_of_the_module_is_not_stepped(errors: KeptErrors) -> None:
    given = SyncVectorEnv([CorridorEnv] * 2)
    given.reset(seed=3)
    Evaluator(config(given), nn.Module()).play()
    assert np.allclose(given.step(np.array([1, 1]))[0], [[1 / 5, 1.0], [1 / 6, 1.0]])
    assert not given.closed
