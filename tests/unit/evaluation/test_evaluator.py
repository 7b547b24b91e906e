from __future__ import annotations

import random
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from rlwandb_callbacks.config import as_config
from rlwandb_callbacks.core.action_spec import DiscreteActions
from rlwandb_callbacks.core.episode import Gaussian, Probabilities, QValues
from rlwandb_callbacks.errors import ConfigError, EnvError, PolicyError
from rlwandb_callbacks.evaluation.evaluator import Evaluator
from rlwandb_callbacks.evaluation.preserved_state import preserved_state
from rlwandb_callbacks.testing import CorridorEnv, PointEnv, TinyActorCritic, TinyQ


class Right(nn.Module):
    """Prefers to go right."""

    def __init__(self) -> None:
        super().__init__()
        self.q_network = nn.Linear(2, 2)
        nn.init.zeros_(self.q_network.weight)
        self.q_network.bias.data[:] = torch.tensor([0.25, 0.75])


def evaluator_of(module: nn.Module, **evaluation: Any) -> Evaluator:
    settings = {name: evaluation.pop(name) for name in ("action_logger", "videos") if name in evaluation}
    return Evaluator(as_config({"evaluation": {"env": CorridorEnv, **evaluation}, **settings}), module)


def test_as_many_episodes_as_asked_for_each_from_its_own_seed() -> None:
    played = evaluator_of(Right(), episodes=12, seed=100).play()
    assert [each.episode.seed for each in played] == list(range(100, 112))
    assert [each.episode.length for each in played] == [2 + seed % 5 for seed in range(100, 112)]
    assert all(each.episode.success for each in played)


@pytest.mark.parametrize(("episodes", "num_envs", "expected"), [(3, None, 3), (20, None, 8), (5, 2, 2), (2, 50, 2)])
def test_number_of_envs_side_by_side(episodes: int, num_envs: int | None, expected: int) -> None:
    module, batches = Right(), set()
    module.q_network.register_forward_hook(lambda _, inputs, __: batches.add(len(inputs[0])))
    evaluator = evaluator_of(module, episodes=episodes, num_envs=num_envs)
    batches.clear()
    evaluator.play()
    assert batches == {expected}


def test_what_the_env_tells_is_read() -> None:
    evaluator = evaluator_of(Right())
    assert evaluator.env.actions == DiscreteActions(("STAY", "RIGHT"))
    assert evaluator.env.fps == 12.0


@pytest.mark.parametrize(
    ("module", "evaluation", "kind"),
    [
        (Right(), {}, QValues),
        (Right(), {"action_logger": "action probability"}, Probabilities),
        (TinyQ(), {"policy": "q_network", "action_logger": "q value"}, QValues),
        (TinyActorCritic(), {"env": PointEnv}, Gaussian),
        (nn.Module(), {"policy": lambda observations: torch.ones(len(observations), dtype=torch.int64)}, type(None)),
    ],
)
def test_scores_are_recorded_as_the_policy_gives_them(
    module: nn.Module, evaluation: dict[str, Any], kind: type
) -> None:
    scores = evaluator_of(module, **evaluation, episodes=2).play()[0].episode.scores
    assert type(scores) is kind
    if kind is Probabilities:
        assert scores.source == "softmax of q-values"


def test_the_same_evaluation_twice_is_the_same() -> None:
    module = TinyActorCritic()
    first, second = [], []
    for into in (first, second):
        with preserved_state(module, seed=3):
            played = evaluator_of(module, env=PointEnv, deterministic=False, episodes=3).play()
        into.extend(each.episode.actions for each in played)
    assert np.array_equal(first, second)


def test_a_distribution_is_sampled_or_not_as_the_settings_say() -> None:
    module = TinyActorCritic()
    nn.init.zeros_(module.actor.weight)
    drawn = {}
    for deterministic in (True, False):
        episode = evaluator_of(module, env=PointEnv, deterministic=deterministic, episodes=1).play()[0].episode
        drawn[deterministic] = np.abs(episode.actions - np.clip(episode.scores.mean, -2, 2)).max()
    assert drawn[True] == pytest.approx(0.0, abs=1e-6)
    assert drawn[False] > 0.05


def test_a_network_that_is_replaced_is_found_anew() -> None:
    module = Right()
    evaluator = evaluator_of(module, episodes=1)
    assert evaluator.play()[0].episode.total_return == 2.0
    module.q_network = nn.Linear(2, 2)
    module.q_network.weight.data[:] = 0.0
    module.q_network.bias.data[:] = torch.tensor([1.0, 0.0])
    assert evaluator.play()[0].episode.total_return == -20.0


class Sleeping(nn.Module):
    """Has a network whose parameters come into being in training."""

    def __init__(self) -> None:
        super().__init__()
        self.q_network = nn.LazyLinear(2)


def test_a_lazy_network_is_not_woken_before_training() -> None:
    module = Sleeping()
    evaluator = evaluator_of(module, episodes=1)
    assert nn.parameter.is_lazy(module.q_network.weight)
    module.q_network(torch.zeros(1, 2))
    assert evaluator.play()[0].episode.length >= 2


class Broken(CorridorEnv):
    """Cannot be reset."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        raise FileNotFoundError("level.map")


def fails(observations: torch.Tensor) -> torch.Tensor:
    return observations @ torch.zeros(7, 2)


@pytest.mark.parametrize(
    ("evaluation", "error", "fragments"),
    [
        ({"env": "CartPol-v1"}, EnvError, ["'CartPol-v1'", "Did you mean 'CartPole-v1'?"]),
        ({"env": Broken}, EnvError, ["cannot be reset", "FileNotFoundError: level.map"]),
        ({"env": "CartPole-v1", "env_kwargs": {"x": 1}}, EnvError, ["env_kwargs {'x': 1}"]),
        ({"policy": "q_netwrok"}, PolicyError, ["'q_netwrok'", "Did you mean 'q_network'?", "the networks q_network"]),
        ({"policy": fails}, PolicyError, ["failed on a batch of 3 observations of Box", "RuntimeError"]),
        ({"policy": lambda _: "right"}, PolicyError, ["'right' of type str", "for 3 observations", "Discrete(2)"]),
        ({"policy": lambda _: torch.zeros(3, 5)}, PolicyError, ["a Tensor of shape [3, 5]", "[B, 2]"]),
        ({"env": PointEnv, "policy": lambda _: torch.zeros(3)}, PolicyError, ["shape [3]", "[B, 1] of actions"]),
        (
            {"policy": lambda _: torch.zeros(3, dtype=torch.int64), "action_logger": "q_value"},
            PolicyError,
            ["action_logger is 'q_value'", "has no q-values"],
        ),
    ],
)
def test_what_is_wrong_shows_before_anything_is_played(
    evaluation: dict[str, Any], error: type[Exception], fragments: list[str]
) -> None:
    with pytest.raises(error) as caught:
        evaluator_of(Right(), **evaluation)
    assert isinstance(caught.value, ConfigError)
    assert ("failed on a batch" in str(caught.value)) == (evaluation.get("policy") is fails)
    assert [fragment for fragment in fragments if fragment not in str(caught.value)] == []


def test_a_module_without_a_policy_is_told_what_it_has() -> None:
    with pytest.raises(PolicyError, match=r"evaluation\.policy is not set.*none of policy_step"):
        evaluator_of(nn.ModuleDict({"value": nn.Linear(2, 1)}))


def test_the_env_that_is_only_asked_is_closed_also_when_the_policy_is_wrong() -> None:
    closed = []

    class Closing(CorridorEnv):
        def close(self) -> None:
            closed.append(True)

    evaluator_of(Right(), env=Closing)
    with pytest.raises(PolicyError):
        evaluator_of(Right(), env=Closing, policy="nothing")
    assert closed == [True, True]


def test_observations_of_any_space_are_batched_for_the_first_question() -> None:
    class Structured(CorridorEnv):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = spaces.Dict({"at": self.observation_space, "n": spaces.Discrete(4)})

        def _observation(self) -> Any:
            return {"at": super()._observation(), "n": 3}

    asked = []

    def policy(observations: Any) -> torch.Tensor:
        asked.append({key: tuple(value.shape) for key, value in observations.items()})
        return torch.ones(len(observations["n"]), dtype=torch.int64)

    evaluator_of(nn.Module(), env=Structured, policy=policy, episodes=2).play()
    assert asked[0] == {"at": (3, 2), "n": (3,)}
    assert asked[1] == {"at": (2, 2), "n": (2,)}


def test_real_envs_are_played() -> None:
    for name in ("CartPole-v1", "LunarLander-v3"):
        size = gym.make(name).observation_space.shape[0]
        module = nn.ModuleDict({"q_network": nn.Linear(size, int(gym.make(name).action_space.n))})
        episodes = [each.episode for each in evaluator_of(module, env=name, episodes=2, max_steps=60).play()]
        assert all(1 <= episode.length <= 60 for episode in episodes)


def test_global_random_states_inside_are_seeded_and_outside_are_as_before() -> None:
    module = Right()
    random.seed(1)
    before = random.getstate()
    with preserved_state(module, seed=0):
        evaluator_of(module, episodes=2).play()
    assert random.getstate() == before
