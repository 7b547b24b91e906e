"""Untrained models of Stable-Baselines3."""

from __future__ import annotations

import sys
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
from rlwandb_callbacks.evaluation.preserved_state import preserved_state
from rlwandb_callbacks.policies.adapters.stable_baselines import StableBaselinesPolicy
from rlwandb_callbacks.policies.output_reader import OutputReader
from rlwandb_callbacks.policies.resolve import is_policy, resolve_policy
from rlwandb_callbacks.policies.runner import adapter_for

FLAT = spaces.Box(-np.inf, np.inf, (4,), np.float32)
CARTPOLE = spaces.Discrete(2)


class StaticEnv(gym.Env[Any, Any]):
    """Environment with arbitrary spaces in which nothing happens."""

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


def act(
    policy: Any,
    space: spaces.Space[Any],
    observations: Any,
    *,
    action_logger: bool | str = True,
    deterministic: bool = True,
) -> PolicyStep:
    adapter = adapter_for(policy, nn.Module(), OutputReader(space, action_logger, "unknown", deterministic))
    assert isinstance(adapter, StableBaselinesPolicy)
    with torch.no_grad():
        return adapter.act(observations, np.ones(len(observations), dtype=bool))


@pytest.mark.parametrize("part", [lambda model: model, lambda model: model.policy, lambda model: model.predict])
def test_q_values_of_dqn_are_those_of_its_network(part: Any) -> None:
    model, observations = dqn("CartPole-v1"), batch()
    step = act(part(model), CARTPOLE, observations)
    assert isinstance(step.scores, QValues)
    assert step.scores.values == pytest.approx(model.q_net(torch.as_tensor(observations)).detach().numpy())
    assert step.actions.tolist() == model.predict(observations, deterministic=True)[0].tolist()


def test_probabilities_and_values_of_ppo_are_those_of_its_policy() -> None:
    model, observations = ppo("CartPole-v1"), batch()
    step = act(model, CARTPOLE, observations)
    tensors = torch.as_tensor(observations)
    assert isinstance(step.scores, Probabilities)
    expected = model.policy.get_distribution(tensors).distribution.probs.detach().numpy()
    assert step.scores.values == pytest.approx(expected)
    assert step.values == pytest.approx(model.policy.predict_values(tensors)[:, 0].detach().numpy())
    assert step.actions.tolist() == expected.argmax(-1).tolist()


def test_deterministic_is_passed_to_predict() -> None:
    model, observations = ppo("CartPole-v1"), batch()
    samples = {tuple(act(model, CARTPOLE, observations, deterministic=False).actions) for _ in range(20)}
    fixed = {tuple(act(model, CARTPOLE, observations).actions) for _ in range(20)}
    assert len(samples) > 1
    assert len(fixed) == 1


def test_gaussian_policy_is_not_changed() -> None:
    space = spaces.Box(-2.0, 2.0, (3,), np.float32)
    model, observations = ppo(StaticEnv(space)), batch()
    step = act(model, space, observations)
    expected = model.policy.get_distribution(torch.as_tensor(observations)).distribution
    assert isinstance(step.scores, Gaussian)
    assert step.scores.mean == pytest.approx(expected.mean.detach().numpy())
    assert step.scores.std == pytest.approx(expected.stddev.detach().numpy())
    assert step.actions == pytest.approx(model.predict(observations, deterministic=True)[0])


@pytest.mark.parametrize("use_sde", [False, True])
def test_squashed_gaussian_has_action_units(use_sde: bool) -> None:
    space = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32))
    model, observations = sb3.SAC("MlpPolicy", StaticEnv(space), buffer_size=10, use_sde=use_sde, **small()), batch()
    step = act(model, space, observations)
    samples = np.stack([model.predict(observations)[0] for _ in range(300)])
    assert step.actions == pytest.approx(model.predict(observations, deterministic=True)[0])
    assert isinstance(step.scores, Gaussian)
    spread = np.array([4.0, 10.0])
    assert (np.abs(step.scores.mean - model.predict(observations, deterministic=True)[0]) < 0.3 * spread).all()
    assert (step.scores.mean[:, 1] > 2).all(), "the bounds are not -1 and 1"
    if not use_sde:  # SDE holds the noise between samples
        assert (np.abs(step.scores.std - samples.std(axis=0)) < 0.1 * spread).all()


def test_deterministic_actor_has_no_scores() -> None:
    space = spaces.Box(-2.0, 2.0, (1,), np.float32)
    model, observations = sb3.TD3("MlpPolicy", StaticEnv(space), buffer_size=10, **small()), batch()
    step = act(model, space, observations)
    assert step.scores is None
    assert step.actions == pytest.approx(model.predict(observations, deterministic=True)[0])


@pytest.mark.parametrize(
    "space", [spaces.MultiDiscrete([3, 4]), spaces.MultiBinary(3)], ids=["MultiDiscrete", "MultiBinary"]
)
def test_probabilities_per_dimension(space: Any) -> None:
    model, observations = ppo(StaticEnv(space)), batch()
    step = act(model, space, observations)
    expected = model.policy.get_distribution(torch.as_tensor(observations)).distribution
    assert isinstance(step.scores, Grouped)
    assert step.actions.tolist() == model.predict(observations, deterministic=True)[0].tolist()
    assert step.actions.dtype == space.dtype
    for i, group in enumerate(step.scores.groups):
        if isinstance(space, spaces.MultiDiscrete):
            assert group.values == pytest.approx(expected[i].probs.detach().numpy())
        else:
            assert group.values[:, 1] == pytest.approx(expected.probs[:, i].detach().numpy())


class MaskedDistribution:
    """Distribution with the attribute names of sb3-contrib's masked distributions."""

    def __init__(self, plain: Any) -> None:
        self.distributions, self.get_actions = plain.distribution, plain.get_actions


def test_probabilities_per_dimension_of_masked_distributions(monkeypatch: pytest.MonkeyPatch) -> None:
    space = spaces.MultiDiscrete([2, 3])
    model, observations = ppo(StaticEnv(space)), batch()
    plain = act(model, space, observations)
    get_distribution = model.policy.get_distribution
    monkeypatch.setattr(
        model.policy, "get_distribution", lambda observations: MaskedDistribution(get_distribution(observations))
    )
    masked = act(model, space, observations)
    assert isinstance(masked.scores, Grouped)
    assert isinstance(plain.scores, Grouped)
    for one, other in zip(masked.scores.groups, plain.scores.groups, strict=True):
        assert one.values == pytest.approx(other.values)


def test_images_are_preprocessed_as_by_the_model() -> None:
    space = spaces.Box(0, 255, (36, 36, 3), np.uint8)
    model, observations = dqn(StaticEnv(CARTPOLE, space), "CnnPolicy", policy_kwargs={}), batch(space, 2)
    step = act(model, CARTPOLE, observations)
    tensors = torch.as_tensor(observations.transpose(0, 3, 1, 2).copy())
    assert step.scores.values == pytest.approx(model.q_net(tensors).detach().numpy())


def test_observations_are_normalized_with_the_frozen_statistics_of_the_model() -> None:
    envs = VecNormalize(DummyVecEnv([lambda: gym.make("CartPole-v1")]))
    envs.reset()
    for _ in range(50):
        envs.step(np.array([1]))
    model, observations = ppo(envs), batch()
    before = (envs.obs_rms.mean.copy(), envs.obs_rms.count)
    step = act(model, CARTPOLE, observations)
    normalized = (observations - envs.obs_rms.mean) / np.sqrt(envs.obs_rms.var + envs.epsilon)
    tensors = torch.as_tensor(np.clip(normalized, -envs.clip_obs, envs.clip_obs).astype(np.float32))
    expected = model.policy.get_distribution(tensors).distribution.probs.detach().numpy()
    assert step.scores.values == pytest.approx(expected, abs=1e-6)
    assert not np.allclose(expected, act(model.policy, CARTPOLE, observations).scores.values)
    assert np.array_equal(before[0], envs.obs_rms.mean)
    assert before[1] == envs.obs_rms.count


def test_mode_of_the_networks_is_restored() -> None:
    model = ppo("CartPole-v1")
    model.policy.train()
    model.policy.mlp_extractor.eval()
    modes = [part.training for part in model.policy.modules()]
    act(model, CARTPOLE, batch())
    assert [part.training for part in model.policy.modules()] == modes
    assert len(set(modes)) == 2


def test_missing_q_values_raise() -> None:
    with pytest.raises(PolicyError, match="has no q-values"):
        act(ppo("CartPole-v1"), CARTPOLE, batch(), action_logger="q_value")


class Recurrent:
    """Model with the interface of sb3-contrib's recurrent ones; takes action 1 from the third step of an episode on."""

    observation_space, action_space = FLAT, CARTPOLE

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        steps = np.zeros(len(observation)) if state is None else np.where(episode_start, 0, state[0])
        return (steps >= 2).astype(int), (steps + 1,)


def played(module: nn.Module, policy: Any, **settings: Any) -> list[list[int]]:
    cfg = WandbRLConfig(evaluation=EvaluationConfig(env="CartPole-v1", policy=policy, **settings))
    with preserved_state(module, seed=0):
        return [each.episode.actions.tolist() for each in Evaluator(cfg, module).play()]


def test_recurrent_model_resets_its_state_in_each_episode() -> None:
    for actions in played(nn.Module(), Recurrent(), episodes=6, num_envs=2):
        assert actions == [0, 0, *[1] * (len(actions) - 2)]


class RecurrentWithScores(Recurrent):
    """Recurrent model with a distribution that depends on the number of steps in its state."""

    device = "cpu"

    def obs_to_tensor(self, observation: Any) -> tuple[torch.Tensor, bool]:
        return torch.as_tensor(observation), True

    def get_distribution(self, obs: torch.Tensor, lstm_states: Any, episode_starts: torch.Tensor) -> Any:
        steps = lstm_states[0] * (1 - episode_starts)
        logits = torch.stack([torch.zeros(len(obs)), steps - 1.5], dim=1)
        return SimpleNamespace(distribution=torch.distributions.Categorical(logits=logits)), None


def test_scores_of_a_recurrent_model_use_the_state_before_the_action() -> None:
    cfg = WandbRLConfig(evaluation=EvaluationConfig(env="CartPole-v1", policy=RecurrentWithScores(), num_envs=2))
    with preserved_state(nn.Module(), seed=0):
        episodes = [each.episode for each in Evaluator(cfg, nn.Module()).play()]
    for episode in episodes:
        assert isinstance(episode.scores, Probabilities)
        expected = 1 / (1 + np.exp(1.5 - np.arange(episode.length)))
        assert episode.scores.values[:, 1] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("path", ["model", "model.policy", "model.predict"])
def test_model_on_a_module_is_found_by_its_path(path: str) -> None:
    module = nn.Module()
    module.model = dqn("CartPole-v1")
    assert is_policy(resolve_policy(module, path))
    state = torch.get_rng_state()
    assert len(played(module, path, episodes=3, num_envs=2)) == 3
    assert torch.equal(torch.get_rng_state(), state)


def test_observations_of_another_shape_raise_at_the_start() -> None:
    with pytest.raises(PolicyError, match=r"failed on a batch of 3 .*please use \(3,\) or"):
        played(nn.Module(), ppo("Pendulum-v1"), episodes=1)


def test_object_with_another_predict_is_not_a_model() -> None:
    class Other:
        observation_space = action_space = None

        def predict(self, observations: Any) -> Any:
            return observations

    assert not StableBaselinesPolicy.fits(Other())
    assert not StableBaselinesPolicy.fits(nn.Linear(1, 1))
    assert not is_policy(Other())
    with pytest.raises(PolicyError, match=r"of type Other, which can neither be called .* nor acts"):
        played(nn.Module(), Other(), episodes=1)


class TensorFlowNormal:
    """Distribution with the methods of TensorFlow Probability, here N(0.5, 0.2)."""

    def __init__(self, inputs: np.ndarray) -> None:
        self.size = len(inputs)

    def mean(self) -> np.ndarray:
        return np.full((self.size, 1), 0.5)

    def stddev(self) -> np.ndarray:
        return np.full((1, 1), 0.2)


class SbxModel:
    """Model and policy with the interface of sbx, whose networks are functions of JAX."""

    observation_space = FLAT
    squash_output = False
    key, noise_key = "key of the training", "noise of the training"

    def __init__(self, actions: spaces.Space[Any], **networks: Any) -> None:
        self.action_space = actions
        for name, network in networks.items():
            setattr(self, name, SimpleNamespace(apply=lambda params, inputs, network=network: network(inputs)))
            setattr(self, f"{name}_state", SimpleNamespace(params={}))

    def prepare_obs(self, observations: Any) -> tuple[Any, bool]:
        return observations, True

    def obs_to_tensor(self, observations: Any) -> Any:
        raise AssertionError("not for JAX")

    def predict(
        self, observations: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> Any:
        self.key_of_prediction, self.key = self.key, "next key"
        shape = (len(observations), *(self.action_space.shape or ()))
        return np.zeros(shape, dtype=self.action_space.dtype), None


def test_q_values_of_sbx_are_those_of_its_network() -> None:
    step = act(
        SbxModel(CARTPOLE, qf=lambda x: np.stack([x[:, 0], -x[:, 0]], axis=1)), CARTPOLE, observations := batch()
    )
    assert isinstance(step.scores, QValues)
    assert step.scores.values[:, 1] == pytest.approx(-observations[:, 0])


def test_distribution_and_value_of_sbx_are_those_of_its_networks() -> None:
    logits = np.log([0.75, 0.25])
    networks = {"actor": lambda x: SimpleNamespace(logits=np.stack([logits] * len(x))), "vf": lambda x: x.sum(axis=1)}
    step = act(SbxModel(CARTPOLE, **networks), CARTPOLE, observations := batch())
    assert isinstance(step.scores, Probabilities)
    assert step.scores.values == pytest.approx(np.array([[0.75, 0.25]] * 5))
    assert step.values == pytest.approx(observations.sum(axis=1))


def test_squashed_distribution_of_sbx_is_scaled_to_the_bounds() -> None:
    model = SbxModel(
        space := spaces.Box(0.0, 10.0, (1,)), actor=lambda x: SimpleNamespace(distribution=TensorFlowNormal(x))
    )
    model.squash_output = True
    samples = 5 + 5 * np.tanh(np.random.default_rng(0).normal(0.5, 0.2, 100_000))
    step = act(model, space, batch())
    assert isinstance(step.scores, Gaussian)
    assert step.scores.mean == pytest.approx(np.full((5, 1), samples.mean()), rel=1e-2)
    assert step.scores.std == pytest.approx(np.full((5, 1), samples.std()), rel=0.05)


def test_samples_of_sbx_do_not_use_the_random_key_of_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(random=SimpleNamespace(PRNGKey=lambda seed: f"key {seed}")))
    model = SbxModel(CARTPOLE, qf=lambda x: np.zeros((len(x), 2)))
    torch.manual_seed(0)
    expected = f"key {int(torch.randint(2**31, ()))}"
    torch.manual_seed(0)
    act(model, CARTPOLE, batch(), deterministic=False)
    assert (model.key_of_prediction, model.key, model.noise_key) == (expected, SbxModel.key, SbxModel.noise_key)
