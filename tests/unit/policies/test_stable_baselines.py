"""Models of Stable-Baselines3, as its users make them, untrained."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3 as sb3
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from rlwandb_callbacks.config import EvaluationConfig, WandbRLConfig
from rlwandb_callbacks.core.episode import Gaussian, Grouped, PolicyStep, Probabilities, QValues
from rlwandb_callbacks.errors import PolicyError
from rlwandb_callbacks.evaluation.evaluator import Evaluator
from rlwandb_callbacks.evaluation.preserved_state import undisturbed
from rlwandb_callbacks.policies.adapters import adapter_for, can_be_asked
from rlwandb_callbacks.policies.adapters.stable_baselines import StableBaselinesPolicy
from rlwandb_callbacks.policies.output_reader import OutputReader
from rlwandb_callbacks.policies.player import resolve_policy

FLAT = spaces.Box(-np.inf, np.inf, (4,), np.float32)
CARTPOLE = spaces.Discrete(2)


class Still(gym.Env[Any, Any]):
    """Has the given spaces, and does nothing."""

    def __init__(self, actions: spaces.Space[Any], observations: spaces.Space[Any] = FLAT) -> None:
        self.observation_space, self.action_space = observations, actions

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 0.0, False, True, {}


def batch(space: spaces.Space[Any] = FLAT, count: int = 5) -> np.ndarray:
    space.seed(0)
    return np.stack([space.sample() for _ in range(count)])


def small() -> dict[str, Any]:
    return {"device": "cpu", "seed": 0, "policy_kwargs": {"net_arch": [8]}}


def ppo(env: Any, **options: Any) -> Any:
    return sb3.PPO("MlpPolicy", env, n_steps=8, batch_size=8, **{**small(), **options})


def dqn(env: Any, policy: str = "MlpPolicy", **options: Any) -> Any:
    return sb3.DQN(policy, env, buffer_size=10, **{**small(), **options})


def asked(
    policy: Any, space: spaces.Space[Any], observations: Any, *, wants: bool | str = True, deterministic: bool = True
) -> PolicyStep:
    adapter = adapter_for(policy, nn.Module(), OutputReader(space, wants, "unknown", deterministic))
    assert isinstance(adapter, StableBaselinesPolicy)
    with torch.no_grad():
        return adapter.act(observations, np.ones(len(observations), dtype=bool))


@pytest.mark.parametrize("part", [lambda model: model, lambda model: model.policy, lambda model: model.predict])
def test_of_dqn_the_q_values_are_those_of_its_network(part: Any) -> None:
    model, observations = dqn("CartPole-v1"), batch()
    step = asked(part(model), CARTPOLE, observations)
    assert isinstance(step.scores, QValues)
    assert step.scores.values == pytest.approx(model.q_net(torch.as_tensor(observations)).detach().numpy())
    assert step.actions.tolist() == model.predict(observations, deterministic=True)[0].tolist()


def test_of_ppo_the_probabilities_and_values_are_those_of_its_policy() -> None:
    model, observations = ppo("CartPole-v1"), batch()
    step = asked(model, CARTPOLE, observations)
    tensors = torch.as_tensor(observations)
    assert isinstance(step.scores, Probabilities)
    expected = model.policy.get_distribution(tensors).distribution.probs.detach().numpy()
    assert step.scores.values == pytest.approx(expected)
    assert step.values == pytest.approx(model.policy.predict_values(tensors)[:, 0].detach().numpy())
    assert step.actions.tolist() == expected.argmax(-1).tolist()


def test_deterministic_is_handed_to_predict() -> None:
    model, observations = ppo("CartPole-v1"), batch()
    drawn = {tuple(asked(model, CARTPOLE, observations, deterministic=False).actions) for _ in range(20)}
    fixed = {tuple(asked(model, CARTPOLE, observations).actions) for _ in range(20)}
    assert len(drawn) > 1
    assert len(fixed) == 1


def test_a_gaussian_policy_is_shown_as_it_is() -> None:
    space = spaces.Box(-2.0, 2.0, (3,), np.float32)
    model, observations = ppo(Still(space)), batch()
    step = asked(model, space, observations)
    own = model.policy.get_distribution(torch.as_tensor(observations)).distribution
    assert isinstance(step.scores, Gaussian)
    assert step.scores.mean == pytest.approx(own.mean.detach().numpy())
    assert step.scores.std == pytest.approx(own.stddev.detach().numpy())
    assert step.actions == pytest.approx(model.predict(observations, deterministic=True)[0])


@pytest.mark.parametrize("use_sde", [False, True])
def test_a_squashed_gaussian_is_shown_in_units_of_the_action(use_sde: bool) -> None:
    space = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32))
    model, observations = sb3.SAC("MlpPolicy", Still(space), buffer_size=10, use_sde=use_sde, **small()), batch()
    step = asked(model, space, observations)
    drawn = np.stack([model.predict(observations)[0] for _ in range(300)])
    assert step.actions == pytest.approx(model.predict(observations, deterministic=True)[0])
    assert isinstance(step.scores, Gaussian)
    spread = np.array([4.0, 10.0])
    assert (np.abs(step.scores.mean - model.predict(observations, deterministic=True)[0]) < 0.3 * spread).all()
    assert (step.scores.mean[:, 1] > 2).all(), "scaled to the bounds, not to -1 … 1"
    if not use_sde:  # there the noise is held between draws
        assert (np.abs(step.scores.std - drawn.std(axis=0)) < 0.1 * spread).all()


def test_of_a_deterministic_actor_the_actions_are_shown() -> None:
    space = spaces.Box(-2.0, 2.0, (1,), np.float32)
    model, observations = sb3.TD3("MlpPolicy", Still(space), buffer_size=10, **small()), batch()
    step = asked(model, space, observations)
    assert step.scores is None
    assert step.actions == pytest.approx(model.predict(observations, deterministic=True)[0])


@pytest.mark.parametrize("space", [spaces.MultiDiscrete([3, 4]), spaces.MultiBinary(3)], ids=["several", "switches"])
def test_actions_of_several_choices_have_probabilities_each(space: Any) -> None:
    model, observations = ppo(Still(space)), batch()
    step = asked(model, space, observations)
    own = model.policy.get_distribution(torch.as_tensor(observations)).distribution
    assert isinstance(step.scores, Grouped)
    assert step.actions.tolist() == model.predict(observations, deterministic=True)[0].tolist()
    assert step.actions.dtype == space.dtype
    for i, group in enumerate(step.scores.groups):
        if isinstance(space, spaces.MultiDiscrete):
            assert group.values == pytest.approx(own[i].probs.detach().numpy())
        else:
            assert group.values[:, 1] == pytest.approx(own.probs[:, i].detach().numpy())


class MaskedDistribution:
    """Holds its parts under the name that the masked distributions of sb3-contrib have for them."""

    def __init__(self, plain: Any) -> None:
        self.distributions, self.get_actions = plain.distribution, plain.get_actions


def test_masked_choices_have_probabilities_each(monkeypatch: pytest.MonkeyPatch) -> None:
    space = spaces.MultiDiscrete([2, 3])
    model, observations = ppo(Still(space)), batch()
    plain = asked(model, space, observations)
    ask = model.policy.get_distribution
    monkeypatch.setattr(model.policy, "get_distribution", lambda seen: MaskedDistribution(ask(seen)))
    masked = asked(model, space, observations)
    assert isinstance(masked.scores, Grouped)
    assert isinstance(plain.scores, Grouped)
    for one, other in zip(masked.scores.groups, plain.scores.groups, strict=True):
        assert one.values == pytest.approx(other.values)


def test_pictures_are_transposed_and_scaled_as_the_model_has_them() -> None:
    space = spaces.Box(0, 255, (36, 36, 3), np.uint8)
    model, observations = dqn(Still(CARTPOLE, space), "CnnPolicy", policy_kwargs={}), batch(space, 2)
    step = asked(model, CARTPOLE, observations)
    tensors = torch.as_tensor(observations.transpose(0, 3, 1, 2).copy())
    assert step.scores.values == pytest.approx(model.q_net(tensors).detach().numpy())


def test_observations_are_normalised_by_the_frozen_statistics_of_the_model() -> None:
    envs = VecNormalize(DummyVecEnv([lambda: gym.make("CartPole-v1")]))
    envs.reset()
    for _ in range(50):
        envs.step(np.array([1]))
    model, observations = ppo(envs), batch()
    before = (envs.obs_rms.mean.copy(), envs.obs_rms.count)
    step = asked(model, CARTPOLE, observations)
    normalized = (observations - envs.obs_rms.mean) / np.sqrt(envs.obs_rms.var + envs.epsilon)
    tensors = torch.as_tensor(np.clip(normalized, -envs.clip_obs, envs.clip_obs).astype(np.float32))
    expected = model.policy.get_distribution(tensors).distribution.probs.detach().numpy()
    assert step.scores.values == pytest.approx(expected, abs=1e-6)
    assert not np.allclose(expected, asked(model.policy, CARTPOLE, observations).scores.values)
    assert np.array_equal(before[0], envs.obs_rms.mean)
    assert before[1] == envs.obs_rms.count


def test_the_mode_of_the_networks_is_as_before() -> None:
    model = ppo("CartPole-v1")
    model.policy.train()
    model.policy.mlp_extractor.eval()
    modes = [part.training for part in model.policy.modules()]
    asked(model, CARTPOLE, batch())
    assert [part.training for part in model.policy.modules()] == modes
    assert len(set(modes)) == 2


def test_q_values_that_are_asked_for_and_not_there_are_an_error() -> None:
    with pytest.raises(PolicyError, match="holds no q-values"):
        asked(ppo("CartPole-v1"), CARTPOLE, batch(), wants="q_value")


class Recurrent:
    """Predicts as the recurrent models of sb3-contrib do: action 1 from the third step of an episode on."""

    observation_space, action_space = FLAT, CARTPOLE

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        steps = np.zeros(len(observation)) if state is None else np.where(episode_start, 0, state[0])
        return (steps >= 2).astype(int), (steps + 1,)


def played(module: nn.Module, policy: Any, **settings: Any) -> list[list[int]]:
    cfg = WandbRLConfig(evaluation=EvaluationConfig(env="CartPole-v1", policy=policy, **settings))
    with undisturbed(module, seed=0):
        return [each.episode.actions.tolist() for each in Evaluator(cfg, module).play()]


def test_a_recurrent_model_begins_each_episode_anew() -> None:
    for actions in played(nn.Module(), Recurrent(), episodes=6, num_envs=2):
        assert actions == [0, 0, *[1] * (len(actions) - 2)]


class RecurrentWithScores(Recurrent):
    """Has the distribution behind its actions too, as sb3-contrib's policies have it; it counts in an LSTM's state."""

    device = "cpu"

    def obs_to_tensor(self, observation: Any) -> tuple[torch.Tensor, bool]:
        return torch.as_tensor(observation), True

    def get_distribution(self, obs: torch.Tensor, lstm_states: Any, episode_starts: torch.Tensor) -> Any:
        steps = lstm_states[0] * (1 - episode_starts)
        logits = torch.stack([torch.zeros(len(obs)), steps - 1.5], dim=1)
        return SimpleNamespace(distribution=torch.distributions.Categorical(logits=logits)), None


def test_a_recurrent_model_is_shown_in_the_state_that_it_acted_in() -> None:
    cfg = WandbRLConfig(evaluation=EvaluationConfig(env="CartPole-v1", policy=RecurrentWithScores(), num_envs=2))
    with undisturbed(nn.Module(), seed=0):
        episodes = [each.episode for each in Evaluator(cfg, nn.Module()).play()]
    for episode in episodes:
        assert isinstance(episode.scores, Probabilities)
        expected = 1 / (1 + np.exp(1.5 - np.arange(episode.length)))
        assert episode.scores.values[:, 1] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("path", ["model", "model.policy", "model.predict"])
def test_a_model_that_a_module_holds_is_played_by_its_path(path: str) -> None:
    module = nn.Module()
    module.model = dqn("CartPole-v1")
    assert can_be_asked(resolve_policy(module, path))
    state = torch.get_rng_state()
    assert len(played(module, path, episodes=3, num_envs=2)) == 3
    assert torch.equal(torch.get_rng_state(), state)


def test_observations_of_another_shape_are_an_error_at_the_start() -> None:
    with pytest.raises(PolicyError, match=r"failed on a batch of 3 .*please use \(3,\) or"):
        played(nn.Module(), ppo("Pendulum-v1"), episodes=1)


def test_what_predicts_otherwise_is_no_such_model() -> None:
    class Other:
        observation_space = action_space = None

        def predict(self, observations: Any) -> Any:
            return observations

    assert not StableBaselinesPolicy.fits(Other())
    assert not StableBaselinesPolicy.fits(nn.Linear(1, 1))
    assert not can_be_asked(Other())
    with pytest.raises(PolicyError, match=r"of type Other, which can neither be called .* nor predicts"):
        played(nn.Module(), Other(), episodes=1)
