"""Parts of the demo agents, compared with their definitions."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch.distributions import Independent

from rlwandb_callbacks.core.episode import Gaussian
from rlwandb_callbacks.demos.actors import (
    DiscreteActor,
    GaussianActor,
    SquashedGaussian,
    SquashedGaussianActor,
    make_actor,
)
from rlwandb_callbacks.demos.ppo import PPO, approximate_kl, clipped_loss, explained_variance
from rlwandb_callbacks.demos.vector_player import Rollout, VectorPlayer
from rlwandb_callbacks.policies.output_reader import OutputReader


def advantage_by_definition(
    columns: dict[str, torch.Tensor], start: int, env: int, gamma: float, decay: float
) -> float:
    total, weight = 0.0, 1.0
    for step in range(start, len(columns["reward"])):
        at = {name: float(column[step, env]) for name, column in columns.items()}
        following = 0.0 if at["terminated"] else at["next_value"]
        total += weight * (at["reward"] + gamma * following - at["value"])
        weight *= gamma * decay
        if at["done"]:
            break
    return total


@pytest.mark.parametrize(("gamma", "decay"), [(0.9, 0.8), (1.0, 1.0), (0.99, 0.0)])
def test_ppo_sums_temporal_difference_errors_up_to_the_end_of_the_episode(gamma: float, decay: float) -> None:
    torch.manual_seed(0)
    shape = 40, 3
    module = PPO("CartPole-v1", num_envs=3, gamma=gamma, decay=decay).double()
    observation, next_observation = torch.randn(2, *shape, 4, dtype=torch.float64)
    reward, terminated = torch.randn(shape, dtype=torch.float64), torch.rand(shape) < 0.1
    done = terminated | (torch.rand(shape) < 0.1)
    action = log_prob = torch.zeros(shape)
    value, advantage, return_estimate = module._estimate(
        Rollout(observation, action, log_prob, reward, next_observation, terminated, done)
    )
    columns = {"reward": reward, "value": value, "terminated": terminated, "done": done}
    columns["next_value"] = module.critic(next_observation)[..., 0].detach()
    expected = [[advantage_by_definition(columns, t, n, gamma, decay) for n in range(3)] for t in range(40)]
    torch.testing.assert_close(advantage, torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(return_estimate, advantage + value)


def test_explained_variance_of_good_constant_and_bad_predictions() -> None:
    target = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert explained_variance(target + 7.0, target) == pytest.approx(1.0)
    assert explained_variance(torch.ones(4), target) == pytest.approx(0.0)
    assert explained_variance(-target, target) == pytest.approx(-3.0)


class ScriptedEnv(gym.Env[Any, Any]):
    """Observes (episode, step); even episodes terminate after 3 steps, odd ones are truncated after 5."""

    observation_space = gym.spaces.Box(0, 1_000, (2,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self) -> None:
        self.at = np.array([-1, 0])
        self.actions: list[float] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.at = np.array([self.at[0] + 1, 0])
        return self.at.astype(np.float32), {}

    def step(self, action: Any) -> Any:
        self.actions.append(float(action[0]))
        self.at = self.at + np.array([0, 1])
        episode, step = self.at
        terminated, truncated = episode % 2 == 0 and step == 3, episode % 2 == 1 and step == 5
        return self.at.astype(np.float32), 1.0, bool(terminated), bool(truncated), {}


def wide_gaussian(observation: torch.Tensor) -> Independent:
    return Independent(torch.distributions.Normal(torch.zeros(len(observation), 1), 3.0), 1)


def test_every_row_of_a_rollout_is_a_step_of_one_episode() -> None:
    player = VectorPlayer(ScriptedEnv, num_envs=2, seed=0)
    parts = [player.play(wide_gaussian, steps, torch.device("cpu")) for steps in (7, 9)]
    columns = [torch.cat(column) for column in zip(*parts, strict=True)]
    observation, _, _, reward, next_observation, terminated, done = columns
    expected = [(0, 3), (1, 5), (2, 3), (3, 5)]
    steps = [(episode, step) for episode, length in expected for step in range(length)]
    for env in range(2):
        assert [tuple(map(int, row)) for row in observation[:, env]] == steps
        assert [tuple(map(int, row)) for row in next_observation[:, env]] == [(e, s + 1) for e, s in steps]
    last = [index for index, (episode, step) in enumerate(steps) if step + 1 == dict(expected)[episode]]
    assert done[:, 0].nonzero()[:, 0].tolist() == last
    assert terminated[:, 0].nonzero()[:, 0].tolist() == last[::2]
    assert (reward == 1.0).all()
    assert sorted(player.returns) == [3, 3, 3, 3, 5, 5, 5, 5]
    assert player.episodes == 8


def test_actions_outside_the_bounds_are_clipped_for_the_env_only() -> None:
    torch.manual_seed(0)
    player = VectorPlayer(ScriptedEnv, num_envs=1, seed=0)
    rollout = player.play(wide_gaussian, 50, torch.device("cpu"))
    env: Any = player.envs.envs[0].unwrapped
    drawn = rollout.action[:, 0, 0]
    assert drawn.abs().max() > 2
    assert np.allclose(env.actions, drawn.clamp(-1, 1))
    torch.testing.assert_close(rollout.log_prob[:, 0], wide_gaussian(torch.zeros(50, 2)).log_prob(rollout.action[:, 0]))


@pytest.mark.parametrize("std", [0.1, 1.0, 3.0])
def test_moments_of_a_squashed_gaussian_are_those_of_its_samples(std: float) -> None:
    torch.manual_seed(0)
    low, high = torch.tensor([-1.0, 0.0]), torch.tensor([3.0, 0.5])
    policy = SquashedGaussian(torch.tensor([[0.4, -1.2]]), torch.full((1, 2), std), low, high)
    samples = policy.sample(torch.Size([100_000]))
    assert ((samples >= low) & (samples <= high)).all()
    scale = high - low
    torch.testing.assert_close(policy.mean / scale, samples.mean(0) / scale, atol=5e-3, rtol=0)
    torch.testing.assert_close(policy.stddev / scale, samples.std(0) / scale, atol=1e-2, rtol=0)
    expected = (low + high) / 2 + (high - low) / 2 * torch.tanh(torch.tensor([[0.4, -1.2]]))
    torch.testing.assert_close(policy.mode, expected)


@pytest.mark.parametrize("mean", [-100.0, 12.0, 30.0])
def test_an_action_at_a_bound_has_the_right_density_and_finite_gradients(mean: float) -> None:
    location, bound = torch.tensor([mean], requires_grad=True), torch.tensor([2.0])
    policy = SquashedGaussian(location, torch.full((1,), 0.1), -bound, bound)
    state = torch.get_rng_state()
    action = policy.rsample()
    log_prob = policy.log_prob(action).sum()
    log_prob.backward()
    assert float(action.detach().abs()) == 2.0
    torch.set_rng_state(state)
    noise = float(torch.randn(1))
    squashed = abs(mean + 0.1 * noise)  # 1 - tanh(x)² is 4 exp(-2x) for large x
    expected = -(noise**2) / 2 - math.log(0.1 * math.sqrt(2 * math.pi)) - math.log(2.0 * 4.0) + 2.0 * squashed
    assert float(log_prob.detach()) == pytest.approx(expected, abs=1e-3)
    assert location.grad is not None
    assert torch.isfinite(location.grad).all()


def test_density_of_a_squashed_gaussian_integrates_to_one() -> None:
    policy = SquashedGaussian(torch.tensor([0.3]), torch.tensor([0.7]), torch.tensor([-2.0]), torch.tensor([5.0]))
    grid = torch.linspace(-2.0 + 1e-3, 5.0 - 1e-3, 20_001)[:, None]
    density = policy.log_prob(grid)[:, 0].exp()
    assert float(torch.trapezoid(density, grid[:, 0])) == pytest.approx(1.0, abs=2e-3)


def test_evaluation_reads_a_squashed_gaussian_without_sampling() -> None:
    space = gym.spaces.Box(-2.0, 2.0, (1,))
    actor = SquashedGaussianActor([3, 8], space)
    answer = actor(torch.randn(5, 3))
    state = torch.get_rng_state()
    step = OutputReader(space, action_logger=True, tensor_meaning="unknown", deterministic=True).read(answer, 5)
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(step.scores, Gaussian)
    np.testing.assert_allclose(step.actions, answer.mode.detach())
    np.testing.assert_allclose(step.scores.std, answer.stddev.detach(), rtol=1e-6)


def test_a_squashed_gaussian_needs_bounds() -> None:
    with pytest.raises(ValueError, match="finite bounds"):
        SquashedGaussianActor([3, 8], gym.spaces.Box(-np.inf, np.inf, (1,)))


def test_actors_match_their_action_space() -> None:
    discrete, gaussian = make_actor(3, [8], gym.spaces.Discrete(5)), make_actor(3, [8], gym.spaces.Box(-1, 1, (2,)))
    assert isinstance(discrete, DiscreteActor)
    assert isinstance(gaussian, GaussianActor)
    assert discrete(torch.zeros(4, 3)).probs.shape == (4, 5)
    assert gaussian(torch.zeros(4, 3)).sample().shape == (4, 2)
    assert gaussian(torch.zeros(4, 3)).log_prob(torch.zeros(4, 2)).shape == (4,)
    with pytest.raises(ValueError, match="MultiBinary"):
        make_actor(3, [8], gym.spaces.MultiBinary(3))


def test_the_clipped_loss_has_no_gradient_beyond_the_clip_range() -> None:
    log_ratio = torch.tensor([0.5, 0.0, -0.5, 0.0], requires_grad=True)
    clipped_loss(log_ratio, torch.tensor([1.0, 1.0, -1.0, -1.0]), clip_range=0.2).backward()
    assert log_ratio.grad is not None
    assert log_ratio.grad[0] == 0
    assert log_ratio.grad[1] < 0
    assert log_ratio.grad[2] == 0
    assert log_ratio.grad[3] > 0


def test_a_minibatch_of_one_transition_has_a_loss_without_an_effect() -> None:
    log_ratio = torch.tensor([0.05], requires_grad=True)
    clipped_loss(log_ratio, torch.tensor([3.0]), 0.2).backward()
    assert log_ratio.grad == 0


def test_the_kl_estimate_is_right_for_gaussians() -> None:
    torch.manual_seed(0)
    old, new = torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(0.3, 1.0)
    actions = old.sample(torch.Size([200_000]))
    estimate = approximate_kl(new.log_prob(actions) - old.log_prob(actions))
    assert float(estimate) == pytest.approx(float(torch.distributions.kl_divergence(old, new)), rel=0.05)
