"""Policies in whose output a row depends on other rows of the batch, and policies that sample by themselves."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from evaluations import evaluated
from gymnasium import spaces
from random_env import RandomEnv, returns_alone
from torch import nn

from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.errors import PolicyError
from rlwandb_callbacks.policies.probing import noise_batches


class DriftEnv(RandomEnv):
    """Environment whose reward depends on the action."""

    def reward(self, action: Any) -> float:
        return float(action @ [1.0, 2.0])


class OwnGRU(nn.Module):
    """A GRU that takes a batch as one sequence, as closed-form continuous-time networks without a batch axis do."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 2)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.gru(observations)[0]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 8)
        self.encoder = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16)
        self.head = nn.Linear(8, 2)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embed(observations)))


class Centered(nn.Module):
    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return (observations - observations.mean(dim=0))[:, :2]


class WithBatchAxis(OwnGRU):
    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.gru(observations[None])[0][0]


def played(policy: Any, **settings: Any) -> tuple[list[Episode], list[str]]:
    return evaluated(policy, **{"env": DriftEnv, "episodes": 8, **settings})


def carrying(network: nn.Module) -> Any:
    """Carries the state of a recurrent network from step to step."""
    state = None

    def policy(observations: torch.Tensor) -> torch.Tensor:
        nonlocal state
        actions, state = network(observations, state)
        return actions

    return policy


def eval_mode(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make().eval()


@pytest.mark.parametrize("num_envs", [None, 1, 3, 8])
@pytest.mark.parametrize("make", [OwnGRU, Attention, Centered])
def test_returns_do_not_depend_on_the_number_of_environments(make: Any, num_envs: int | None) -> None:
    network = eval_mode(make)
    episodes, messages = played(network, num_envs=num_envs)
    expected = returns_alone(DriftEnv, lambda: network, 8)
    assert [episode.total_return for episode in episodes] == pytest.approx(expected, abs=1e-4)
    assert len(messages) == (num_envs != 1)
    assert num_envs == 1 or "depends on the other observations in the batch" in messages[0]


@pytest.mark.parametrize("num_envs", [1, 3, 8])
def test_gru_as_policy_carries_the_state_of_each_environment(num_envs: int) -> None:
    torch.manual_seed(0)
    network = nn.GRU(3, 2)
    episodes, messages = played(network, num_envs=num_envs)
    expected = returns_alone(DriftEnv, lambda: carrying(network), 8)
    assert [episode.total_return for episode in episodes] == pytest.approx(expected, abs=1e-4)
    assert len(messages) == (num_envs > 1)


def test_rows_of_a_vector_environment_are_independent_too() -> None:
    network = eval_mode(Attention)
    envs = gym.vector.SyncVectorEnv([DriftEnv] * 4)
    episodes, messages = played(network, num_envs=None, env=lambda: envs)
    expected = returns_alone(DriftEnv, lambda: network, 8)
    assert [episode.total_return for episode in episodes] == pytest.approx(expected, abs=1e-4)
    assert len(messages) == 1


class Normalized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 64), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Tanh(), nn.Linear(64, 2))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.net(observations)


def sampling_beta(observations: torch.Tensor) -> torch.Tensor:
    rates = 0.5 + observations[:, :2].abs()
    return torch.distributions.Beta(rates, rates + 0.2).sample()


def sampling_gru(network: nn.Module) -> Any:
    return lambda observations: network(observations) + 0.01 * torch.randn(len(observations), 2)


@pytest.mark.parametrize("make", [Normalized, WithBatchAxis, lambda: nn.Sequential(nn.Linear(3, 2), nn.Tanh())])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_independent_rows_are_played_together_in_silence(make: Any, dtype: torch.dtype) -> None:
    network = eval_mode(make).to(dtype)
    sizes = set[int]()
    network.register_forward_hook(lambda _module, inputs, _output: sizes.add(len(inputs[0])))
    _, messages = played(network.train(), num_envs=None)
    assert messages == []
    assert sizes == {3, 8}, "three observations in the dry run, eight environments together"


@pytest.mark.parametrize("policy", [sampling_beta, lambda x: torch.distributions.Normal(x[:, :2], 1.0).rsample()])
def test_policy_that_samples_by_itself_is_named_and_not_said_to_mix_rows(policy: Any) -> None:
    _, messages = played(policy, num_envs=None)
    assert len(messages) == 1
    assert "samples by itself" in messages[0]
    assert played(policy, num_envs=None, deterministic=False)[1] == []


def test_sampling_network_that_mixes_rows_is_found() -> None:
    _, messages = played(sampling_gru(eval_mode(OwnGRU)), num_envs=None)
    assert len(messages) == 2
    assert "samples by itself" in messages[0]
    assert "depends on the other observations" in messages[1]


@pytest.mark.parametrize("deterministic", [True, False])
def test_returned_distribution_is_no_sampling_by_itself(deterministic: bool) -> None:
    def policy(observations: torch.Tensor) -> Any:
        rates = 0.5 + observations[:, :2].abs()
        return torch.distributions.TransformedDistribution(
            torch.distributions.Beta(rates, rates), [torch.distributions.AffineTransform(-1.0, 2.0)]
        )

    assert played(policy, num_envs=None, deterministic=deterministic)[1] == []


def test_random_states_and_training_modes_are_as_before() -> None:
    network = Normalized()
    before = torch.get_rng_state(), random.getstate()
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    played(network, num_envs=None)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert network.net[1].training
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in network.named_buffers())


def test_network_that_mixes_rows_and_cannot_take_one_raises() -> None:
    def policy(observations: torch.Tensor) -> torch.Tensor:
        return ((observations - observations.mean(dim=0)) / observations.std(dim=0))[:, :2].squeeze()

    with pytest.raises(PolicyError, match=r"depends on the other observations .* failed on a batch of one"):
        played(policy, num_envs=None)


class ConstantEnv(RandomEnv):
    """Environment whose observations are equal, with a finite action space."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.Discrete(2)
        self.observation_space = spaces.Dict({"x": self.observation_space})

    def observe(self) -> Any:
        return {"x": np.ones(3, np.float32)}


@pytest.mark.parametrize("make", [OwnGRU, Attention])
@pytest.mark.parametrize("output", ["logits", "actions"])
def test_mixed_rows_are_found_where_the_first_observations_are_equal(make: Any, output: str) -> None:
    network = eval_mode(make)

    def policy(observations: Any) -> torch.Tensor:
        logits = network(observations["x"])
        return logits if output == "logits" else logits.argmax(dim=1)

    _, messages = played(policy, num_envs=None, env=ConstantEnv)
    assert len(messages) == 1
    assert "depends on the other observations in the batch" in messages[0]


class NoisyLinear(nn.Module):
    """Layer of NoisyNet that draws its noise at each call: once, or for each row."""

    def __init__(self, inputs: int, outputs: int, *, for_each_row: bool) -> None:
        super().__init__()
        self.mean, self.for_each_row = nn.Linear(inputs, outputs), for_each_row
        self.sigma = nn.Parameter(torch.full((outputs, inputs), 0.3 / inputs**0.5))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(len(inputs) if self.for_each_row else 1, *self.sigma.shape)
        return self.mean(inputs) + (self.sigma * noise @ inputs[:, :, None])[:, :, 0]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("output", ["q values", "greedy actions"])
@pytest.mark.parametrize("for_each_row", [True, False])
def test_noisy_network_samples_by_itself_and_does_not_mix_rows(for_each_row: bool, output: str, seed: int) -> None:
    torch.manual_seed(seed)
    layers = [NoisyLinear(inputs, outputs, for_each_row=for_each_row) for inputs, outputs in ((4, 32), (32, 2))]
    network = nn.Sequential(layers[0], nn.ReLU(), layers[1])
    policy = network if output == "q values" else lambda observations: network(observations).argmax(dim=1)
    (message,) = played(policy, num_envs=None, module=network, env="CartPole-v1")[1]
    assert "samples by itself" in message


class WideEnv(RandomEnv):
    """Environment with observations and actions of the size of HalfCheetah's, with a discrete variant."""

    def __init__(self, *, is_discrete: bool = False) -> None:
        super().__init__(observations=17)
        self.action_space = spaces.Discrete(6) if is_discrete else spaces.Box(-1.0, 1.0, (6,), np.float32)


class Orthogonal(nn.Module):
    """A network as PPO initializes it, whose outputs magnify rounding."""

    def __init__(self, output: str, *, centers: bool = False) -> None:
        super().__init__()
        self.output, self.centers = output, centers
        self.net = nn.Sequential(nn.Linear(17, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 6))
        for layer in self.net[::2]:
            nn.init.orthogonal_(layer.weight, 2**0.5)
            nn.init.zeros_(layer.bias)

    def forward(self, observations: torch.Tensor) -> Any:
        if self.centers:
            observations = observations - observations.mean(dim=0)
        first, second = self.net(observations), self.net(observations.flip(-1))
        return {
            "categorical": lambda: torch.distributions.Categorical(logits=first),
            "sharp categorical": lambda: torch.distributions.Categorical(logits=first / 0.05),
            "probabilities": lambda: {"probs": first.softmax(-1)},
            "sine": first.sin,
            "std": lambda: torch.distributions.Normal(first.tanh(), second.clamp(-20, 2).exp()),
            "std of SAC": lambda: torch.distributions.Normal(first.tanh(), (-5 + 3.5 * (second.tanh() + 1)).exp()),
        }[self.output]()


OUTPUTS = ["categorical", "sharp categorical", "probabilities", "sine", "std", "std of SAC"]


def messages_of(network: Orthogonal) -> list[str]:
    is_discrete = network.output in {"categorical", "sharp categorical", "probabilities"}
    return played(network, num_envs=None, episodes=3, env=partial(WideEnv, is_discrete=is_discrete))[1]


@pytest.mark.parametrize("output", OUTPUTS)
def test_rounding_that_the_output_magnifies_is_no_mixing(output: str) -> None:
    for seed in range(12):
        torch.manual_seed(seed)
        assert messages_of(Orthogonal(output)) == []


@pytest.mark.parametrize("output", OUTPUTS)
def test_mixing_is_found_in_outputs_that_magnify_rounding(output: str) -> None:
    torch.manual_seed(0)
    (message,) = messages_of(Orthogonal(output, centers=True))
    assert "depends on the other observations in the batch" in message


class OnlineNormalizer(nn.Module):
    """Network that updates running statistics of its observations whenever it acts."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.count, self.total = nn.Linear(3, 2), 0, np.zeros(3)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        self.count += len(observations)
        self.total = self.total + observations.numpy().sum(axis=0)
        return self.head(observations - torch.as_tensor(self.total / self.count, dtype=observations.dtype))


def test_running_statistics_that_acting_changes_are_named_as_the_cause() -> None:
    _, messages = played(OnlineNormalizer(), num_envs=None)
    (message,) = (each for each in messages if "depends on the other observations in the batch" in each)
    assert "acting changes `count`, `total`" in message
    assert "batch_first" not in message


@pytest.mark.parametrize("is_wrapped", [True, False])
def test_moments_that_are_estimated_from_samples_are_not_compared(is_wrapped: bool) -> None:
    torch.manual_seed(4)
    network = nn.Linear(3, 4).to(torch.bfloat16)

    def policy(observations: torch.Tensor) -> Any:
        mean, log_std = network(observations).chunk(2, dim=-1)
        squashed = torch.distributions.TransformedDistribution(
            torch.distributions.Normal(mean, log_std.exp() * 0.5), [torch.distributions.TanhTransform()]
        )
        return torch.distributions.Independent(squashed, 1) if is_wrapped else squashed

    assert played(policy, num_envs=None, episodes=3, module=network)[1] == []


class OnlySamples(torch.distributions.Distribution):
    """A distribution without moments and mode, whose deterministic action is an average of samples."""

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, mean: torch.Tensor) -> None:
        self.loc = mean
        super().__init__(mean.shape[:1], mean.shape[1:], validate_args=False)

    def sample(self, shape: Any = ()) -> torch.Tensor:
        return self.loc + 0.3 * torch.randn(*shape, *self.loc.shape)


def test_action_that_is_estimated_from_samples_is_not_compared_between_rows() -> None:
    _, (message,) = played(lambda observations: OnlySamples(observations[:, :2]), num_envs=None)
    assert "overrides how it samples" in message
    network = eval_mode(OwnGRU)
    messages = played(lambda observations: OnlySamples(network(observations)), num_envs=None)[1]
    assert any("depends on the other observations" in message for message in messages)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_slow_policy_is_asked_with_few_batches_of_noise(dtype: Any) -> None:
    calls = []

    def policy(observations: torch.Tensor) -> torch.Tensor:
        calls.append(len(observations))
        time.sleep(0.03)
        return observations.float().sum(dim=1).long() % 2

    env = partial(PictureEnv, dtype)
    played(policy, num_envs=None, episodes=3, env=env, module=nn.Linear(1, 1))
    assert len(calls) < 60


class PictureEnv(WideEnv):
    def __init__(self, dtype: Any) -> None:
        super().__init__(is_discrete=True)
        self.observation_space, self.dtype = spaces.Box(0, 255, (17,), dtype), dtype

    def observe(self) -> Any:
        return self.np_random.integers(0, 255, 17).astype(self.dtype)


def test_pictures_have_one_scale_of_noise() -> None:
    pictures = np.zeros((2, 8, 8), np.uint8)
    assert len(noise_batches(pictures, in_range=False, wide=True)) == 8
    assert len(noise_batches(pictures.astype(np.float32), in_range=False, wide=True)) == 24
    assert noise_batches(pictures.astype(np.int64), in_range=False, wide=True) == []
