"""Vectors of games are played for their scores, although they are made for training."""

from __future__ import annotations

import copy
import warnings
from functools import partial
from types import SimpleNamespace
from typing import Any

import ale_py
import gymnasium as gym
import numpy as np
import pytest
import torch
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from torch import nn

from rlwandb_callbacks.config import EvaluationConfig, WandbRLConfig
from rlwandb_callbacks.environments.factory import EnvFactory, env_factory
from rlwandb_callbacks.environments.training_arguments import describe_training_arguments, training_arguments
from rlwandb_callbacks.errors import EnvError
from rlwandb_callbacks.evaluation.evaluator import Evaluator

GAME, STEPS = "ALE/Qbert-v5", 220  # in which two lives are lost and three cubes colored
gym.register_envs(ale_py)


def by_pixels(observations: Any) -> torch.Tensor:
    """Takes an action that depends on nothing but the picture."""
    pixels = torch.as_tensor(observations).flatten(1).double().sum(dim=1)
    return (pixels % 6).long()


def make_games(**arguments: Any) -> Any:
    return gym.make_vec(GAME, num_envs=2, **arguments)


@pytest.fixture(scope="module")
def scores() -> list[float]:
    """Scores of seeds 0 and 1, summed up by hand."""
    envs = make_games(reward_clipping=False)
    observations, _ = envs.reset(seed=np.array([0, 1]))
    totals, is_over = np.zeros(2), np.zeros(2, bool)
    for _ in range(STEPS):
        observations, rewards, terminated, _, _ = envs.step(by_pixels(observations).numpy())
        totals += np.where(is_over, 0, rewards)
        is_over |= terminated
    envs.close()
    assert max(totals) > 25  # a clipped reward is 1, that of a cube is 25
    return [float(total) for total in totals]


def returns_in(env: Any, module: nn.Module | None = None, **settings: Any) -> tuple[list[float], list[str]]:
    """Returns the returns of an evaluation, and the warnings but for those of the policy."""
    found: list[str] = []
    evaluation = EvaluationConfig(env=env, policy=by_pixels, episodes=2, max_steps=STEPS, **settings)
    evaluator = Evaluator(
        WandbRLConfig(evaluation=evaluation), module or nn.Module(), lambda message, kind: found.append(message)
    )
    episodes = [played.episode for played in evaluator.play()]
    assert [episode.seed for episode in episodes] == [0, 1]
    return [episode.total_return for episode in episodes], [w for w in found if w.startswith("evaluation.env")]


def test_returns_of_a_vector_that_clips_by_default_are_scores(scores: list[float]) -> None:
    assert returns_in(make_games) == (scores, [])


def test_returns_of_a_vector_of_the_module_are_scores(scores: list[float]) -> None:
    module: Any = nn.Module()
    module.envs = RecordEpisodeStatistics(make_games(life_loss_info=True, autoreset_mode="SameStep"))
    assert returns_in("self.envs", module) == (scores, [])
    assert training_arguments(module.envs) == ("reward_clipping", "life_loss_info")
    module.envs.close()


@pytest.mark.parametrize("arguments", [{}, {"episodic_life": True, "reward_clipping": True}, {"batch_size": 1}])
def test_vectors_are_made_for_scores_however_they_are_named(arguments: dict[str, Any]) -> None:
    module: Any = nn.Module()
    module.spec = copy.deepcopy(gym.spec(GAME))
    module.spec.kwargs |= {"num_envs": 2, "vectorization_mode": "vector_entry_point", **arguments}
    for factory in (
        env_factory(partial(make_games, **arguments), {}),
        env_factory("self.spec", {}, module),
        env_factory("gymnasium:make_vec", {"id": module.spec}),
    ):
        envs: Any = factory.open()
        assert training_arguments(envs) == ()
        assert envs.observation_space.shape == (2, 4, 84, 84)
        envs.close()


def test_arguments_of_the_evaluation_are_kept_with_a_warning(scores: list[float]) -> None:
    given = {"id": GAME, "num_envs": 2, "reward_clipping": True}
    returns, (warning,) = returns_in("gymnasium:make_vec", env_kwargs=given)
    assert 0 < max(returns) < max(scores) / 20
    assert "was made with reward_clipping=True" in warning
    assert "rewards are only -1, 0 or 1" in warning
    assert "Make it with reward_clipping=False" in warning


def test_a_vector_that_does_not_tell_its_arguments_is_warned_of() -> None:
    _, (warning,) = returns_in(lambda: AtariVectorEnv("qbert", 2))
    assert "does not say with which arguments it was made" in warning
    assert "by gymnasium.make_vec, with reward_clipping=False" in warning


class Pool(VectorEnv[Any, Any, Any]):
    """A pool whose spec has a configuration, as those of EnvPool."""

    num_envs = 4

    def __init__(self, **config: Any) -> None:
        self.spec: Any = SimpleNamespace(config=SimpleNamespace(**config, _asdict=lambda: config))


def test_arguments_of_a_pool_are_warned_of() -> None:
    assert training_arguments(Pool(reward_clip=False, episodic_life=False)) == ()
    warning = describe_training_arguments(Pool(reward_clip=True, episodic_life=True))
    assert warning is not None
    assert "reward_clip=True, episodic_life=True" in warning
    assert "Make it with reward_clip=False, episodic_life=False." in warning


def test_a_pool_whose_steps_return_some_environments_is_refused() -> None:
    with pytest.raises(EnvError, match=r"batch_size=2: a step returns 2 of its 4 .* Make it with batch_size=4"):
        EnvFactory(lambda: Pool(batch_size=2)).open()


def test_the_metadata_that_all_vectors_share_are_those_of_the_training() -> None:
    training: Any = make_games(autoreset_mode="NextStep")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluation: Any = EnvFactory(lambda: make_games(autoreset_mode="SameStep")).open()
    assert training.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert evaluation.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    training.close()
    evaluation.close()
