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


class PrefersRight(nn.Module):
    """Module whose q-network prefers RIGHT."""

    def __init__(self) -> None:
        super().__init__()
        self.q_network = nn.Linear(2, 2)
        nn.init.zeros_(self.q_network.weight)
        self.q_network.bias.data[:] = torch.tensor([0.25, 0.75])


def make_evaluator(module: nn.Module, **evaluation: Any) -> Evaluator:
    settings = {name: evaluation.pop(name) for name in ("action_logger", "videos") if name in evaluation}
    return Evaluator(as_config({"evaluation": {"env": CorridorEnv, **evaluation}, **settings}), module)


def test_configured_number_of_episodes_is_played_with_consecutive_seeds() -> None:
    played = make_evaluator(PrefersRight(), episodes=12, seed=100).play()
    assert [each.episode.seed for each in played] == list(range(100, 112))
    assert [each.episode.length for each in played] == [2 + seed % 5 for seed in range(100, 112)]
    assert all(each.episode.success for each in played)


@pytest.mark.parametrize(("episodes", "num_envs", "expected"), [(3, None, 3), (20, None, 8), (5, 2, 2), (2, 50, 2)])
def test_number_of_parallel_envs(episodes: int, num_envs: int | None, expected: int) -> None:
    module, batches = PrefersRight(), set()
    module.q_network.register_forward_hook(lambda _, inputs, __: batches.add(len(inputs[0])))
    evaluator = make_evaluator(module, episodes=episodes, num_envs=num_envs)
    batches.clear()
    evaluator.play()
    assert batches == {expected}


def test_actions_and_fps_are_read_from_the_env() -> None:
    evaluator = make_evaluator(PrefersRight())
    assert evaluator.env.actions == DiscreteActions(("STAY", "RIGHT"))
    assert evaluator.env.fps == 12.0


@pytest.mark.parametrize(
    ("module", "evaluation", "kind"),
    [
        (PrefersRight(), {}, QValues),
        (PrefersRight(), {"action_logger": "action probability"}, Probabilities),
        (TinyQ(), {"policy": "q_network", "action_logger": "q value"}, QValues),
        (TinyActorCritic(), {"env": PointEnv}, Gaussian),
        (nn.Module(), {"policy": lambda observations: torch.ones(len(observations), dtype=torch.int64)}, type(None)),
    ],
)
def test_scores_are_recorded_with_the_type_of_the_policy_output(
    module: nn.Module, evaluation: dict[str, Any], kind: type
) -> None:
    scores = make_evaluator(module, **evaluation, episodes=2).play()[0].episode.scores
    assert type(scores) is kind
    if kind is Probabilities:
        assert scores.source == "softmax of q-values"


def test_evaluation_with_the_same_seed_is_reproducible() -> None:
    module = TinyActorCritic()
    first, second = [], []
    for actions in (first, second):
        with preserved_state(module, seed=3):
            played = make_evaluator(module, env=PointEnv, deterministic=False, episodes=3).play()
        actions.extend(each.episode.actions for each in played)
    assert np.array_equal(first, second)


def test_deterministic_setting_selects_mean_or_sample() -> None:
    module = TinyActorCritic()
    nn.init.zeros_(module.actor.weight)
    drawn = {}
    for deterministic in (True, False):
        episode = make_evaluator(module, env=PointEnv, deterministic=deterministic, episodes=1).play()[0].episode
        drawn[deterministic] = np.abs(episode.actions - np.clip(episode.scores.mean, -2, 2)).max()
    assert drawn[True] == pytest.approx(0.0, abs=1e-6)
    assert drawn[False] > 0.05


def test_replaced_network_is_used() -> None:
    module = PrefersRight()
    evaluator = make_evaluator(module, episodes=1)
    assert evaluator.play()[0].episode.total_return == 2.0
    module.q_network = nn.Linear(2, 2)
    module.q_network.weight.data[:] = 0.0
    module.q_network.bias.data[:] = torch.tensor([1.0, 0.0])
    assert evaluator.play()[0].episode.total_return == -20.0


class LazyModule(nn.Module):
    """Module with a network whose parameters are initialized at the first call."""

    def __init__(self) -> None:
        super().__init__()
        self.q_network = nn.LazyLinear(2)


def test_lazy_network_is_not_initialized_before_training() -> None:
    module = LazyModule()
    evaluator = make_evaluator(module, episodes=1)
    assert nn.parameter.is_lazy(module.q_network.weight)
    module.q_network(torch.zeros(1, 2))
    assert evaluator.play()[0].episode.length >= 2


class ResetErrorEnv(CorridorEnv):
    """Environment whose reset() raises an error."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        raise FileNotFoundError("level.map")


def failing_policy(observations: torch.Tensor) -> torch.Tensor:
    return observations @ torch.zeros(7, 2)


@pytest.mark.parametrize(
    ("evaluation", "error", "fragments"),
    [
        ({"env": "CartPol-v1"}, EnvError, ["'CartPol-v1'", "Did you mean 'CartPole-v1'?"]),
        ({"env": ResetErrorEnv}, EnvError, ["cannot be reset", "FileNotFoundError: level.map"]),
        ({"env": "CartPole-v1", "env_kwargs": {"x": 1}}, EnvError, ["env_kwargs 'x'"]),
        ({"policy": "q_netwrok"}, PolicyError, ["'q_netwrok'", "Did you mean 'q_network'?", "the networks q_network"]),
        ({"policy": failing_policy}, PolicyError, ["failed on a batch of 3 observations of Box", "RuntimeError"]),
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
def test_invalid_settings_raise_before_any_episode_is_played(
    evaluation: dict[str, Any], error: type[Exception], fragments: list[str]
) -> None:
    with pytest.raises(error) as caught:
        make_evaluator(PrefersRight(), **evaluation)
    assert isinstance(caught.value, ConfigError)
    assert ("failed on a batch" in str(caught.value)) == (evaluation.get("policy") is failing_policy)
    assert [fragment for fragment in fragments if fragment not in str(caught.value)] == []


def test_module_without_policy_raises_an_error_with_the_supported_attributes() -> None:
    with pytest.raises(PolicyError, match=r"evaluation\.policy is not set.*none of policy_step"):
        make_evaluator(nn.ModuleDict({"value": nn.Linear(2, 1)}))


def test_temporary_env_is_closed_even_if_the_policy_is_invalid() -> None:
    closed = []

    class RecordsClose(CorridorEnv):
        def close(self) -> None:
            closed.append(True)

    make_evaluator(PrefersRight(), env=RecordsClose)
    assert closed == [True, True]  # also a second one, which shows whether there can be several
    with pytest.raises(PolicyError):
        make_evaluator(PrefersRight(), env=RecordsClose, policy="nothing")
    assert closed == [True] * 3


def test_dict_observations_are_batched_for_the_first_policy_call() -> None:
    class DictObservations(CorridorEnv):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = spaces.Dict({"at": self.observation_space, "n": spaces.Discrete(4)})

        def _observation(self) -> Any:
            return {"at": super()._observation(), "n": 3}

    shapes = []

    def policy(observations: Any) -> torch.Tensor:
        shapes.append({key: tuple(value.shape) for key, value in observations.items()})
        return torch.ones(len(observations["n"]), dtype=torch.int64)

    make_evaluator(nn.Module(), env=DictObservations, policy=policy, episodes=2).play()
    assert shapes[0] == {"at": (3, 2), "n": (3,)}
    assert shapes[-1] == {"at": (2, 2), "n": (2,)}


def test_gymnasium_envs_are_played() -> None:
    for name in ("CartPole-v1", "LunarLander-v3"):
        size = gym.make(name).observation_space.shape[0]
        module = nn.ModuleDict({"q_network": nn.Linear(size, int(gym.make(name).action_space.n))})
        episodes = [each.episode for each in make_evaluator(module, env=name, episodes=2, max_steps=60).play()]
        assert all(1 <= episode.length <= 60 for episode in episodes)


def test_global_random_state_is_restored_after_evaluation() -> None:
    module = PrefersRight()
    random.seed(1)
    before = random.getstate()
    with preserved_state(module, seed=0):
        make_evaluator(module, episodes=2).play()
    assert random.getstate() == before
