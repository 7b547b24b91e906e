"""Distributions that override only how they sample: action, moments and entropy are those of their samples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    MultivariateNormal,
    Normal,
    TanhTransform,
    TransformedDistribution,
)

from rlwandb_callbacks.core.episode import PolicyStep
from rlwandb_callbacks.policies.output_reader import OutputReader
from rlwandb_callbacks.policies.scores import entropy

MEAN = torch.tensor([[0.8, 2.0], [-1.0, 0.1]])
STD = torch.tensor([[0.6, 0.4], [0.2, 1.0]])
NO_SHAPE = torch.Size()


class TanhMultivariateNormal(MultivariateNormal):
    """As in lightning-bolts: ``rsample`` is overridden, ignores the shape, and calls that of the base class."""

    def __init__(self, action_bias: float, action_scale: float, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.action_bias, self.action_scale = action_bias, action_scale

    def rsample_with_z(self, sample_shape: torch.Size = NO_SHAPE) -> Any:
        z = super().rsample()
        return self.action_scale * torch.tanh(z) + self.action_bias, z

    def rsample(self, sample_shape: torch.Size = NO_SHAPE) -> torch.Tensor:
        return self.rsample_with_z(sample_shape)[0]

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        raise AssertionError("it is wrong in lightning-bolts for scales other than 1")


class TanhNormal(Normal):
    def rsample(self, sample_shape: torch.Size = NO_SHAPE) -> torch.Tensor:
        return 2.0 * torch.tanh(super().rsample(sample_shape))


class TanhNormalBySample(Normal):
    def sample(self, sample_shape: torch.Size = NO_SHAPE) -> torch.Tensor:
        return 2.0 * torch.tanh(super().sample(sample_shape))


class Containing(Distribution):
    """As in rlkit: contains a Gaussian, and its sampling takes no shape but a flag."""

    def __init__(self) -> None:
        super().__init__(validate_args=False)
        self.normal = Normal(MEAN, STD)

    def rsample(self, return_pretanh_value: bool = False) -> Any:
        z = self.normal.rsample()
        return (2.0 * torch.tanh(z), z) if return_pretanh_value else 2.0 * torch.tanh(z)

    sample = rsample


class Scaled(TransformedDistribution):
    """Doubles the samples of a squashed Gaussian."""

    def __init__(self) -> None:
        super().__init__(Normal(MEAN, STD), [TanhTransform()])

    def rsample(self, sample_shape: torch.Size = NO_SHAPE) -> torch.Tensor:
        return 2.0 * super().rsample(sample_shape)


class Further(TanhNormal):
    """Derived from a class that overrides sampling."""


OVERRIDDEN = {
    "lightning-bolts": lambda: TanhMultivariateNormal(0.0, 2.0, loc=MEAN, scale_tril=torch.diag_embed(STD)),
    "rsample": lambda: TanhNormal(MEAN, STD),
    "sample": lambda: TanhNormalBySample(MEAN, STD),
    "independent": lambda: Independent(TanhNormal(MEAN, STD), 1),
    "containing": Containing,
    "derived": lambda: Further(MEAN, STD),
}


def read(output: Any, space: Any = None, *, deterministic: bool = True) -> tuple[PolicyStep, set[str]]:
    space = spaces.Box(-2.0, 2.0, (2,), np.float64) if space is None else space
    reader = OutputReader(space, action_logger=True, tensor_meaning="unknown", deterministic=deterministic)
    torch.manual_seed(0)
    return reader.read(output, 2), reader.notes


def truth() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Integrates ``2 * tanh(z)`` over the Gaussian: mean, standard deviation, and entropy by change of variables."""
    grid = np.linspace(-9, 9, 20_001)
    weights = np.exp(-(grid**2) / 2) / math.sqrt(2 * math.pi) * (grid[1] - grid[0])
    z = MEAN.numpy().astype(np.float64)[..., None] + STD.numpy().astype(np.float64)[..., None] * grid
    actions = 2 * np.tanh(z)
    mean = (actions * weights).sum(axis=-1)
    std = np.sqrt((actions**2 * weights).sum(axis=-1) - mean**2)
    volume = math.log(2) + 2 * (math.log(2) - z - np.logaddexp(0, -2 * z))
    of_base = 0.5 * np.log(2 * math.pi * math.e * STD.numpy().astype(np.float64) ** 2)
    return mean, std, (of_base + (volume * weights).sum(axis=-1)).sum(axis=-1)


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_deterministic_action_is_the_squashed_mode(name: str) -> None:
    step, notes = read(OVERRIDDEN[name]())
    assert step.actions == pytest.approx(2 * np.tanh(MEAN.numpy()), abs=1e-6)
    assert len(notes) == 1
    assert "overrides how it samples and defines no mode" in next(iter(notes))


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_moments_and_entropy_are_those_of_the_samples(name: str) -> None:
    step, _ = read(OVERRIDDEN[name]())
    mean, std, expected_entropy = truth()
    assert step.scores.mean == pytest.approx(mean, abs=0.25)
    assert step.scores.std == pytest.approx(std, rel=0.25)
    assert entropy(step.scores) == pytest.approx(expected_entropy, abs=0.4)


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_samples_are_squashed(name: str) -> None:
    actions = [read(OVERRIDDEN[name](), deterministic=False)[0].actions for _ in range(2)]
    assert np.abs(actions[0]).max() < 2.0
    assert actions[0][0, 1] > 1.5, "2 * tanh(2) is 1.93"


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_reading_draws_no_random_numbers_so_that_asking_twice_gives_the_same(name: str) -> None:
    before = torch.manual_seed(0).get_state()
    read(OVERRIDDEN[name]())
    assert torch.equal(torch.get_rng_state(), before)


def test_class_that_samples_and_defines_its_mode_is_trusted() -> None:
    class Own(TanhNormal):
        mode = property(lambda self: self.loc + 0.5)

        def rsample(self, sample_shape: torch.Size = NO_SHAPE) -> torch.Tensor:
            return super().rsample(sample_shape)

    step, notes = read(Own(MEAN, STD))
    assert step.actions == pytest.approx(np.clip(MEAN.numpy() + 0.5, -2, 2))
    assert notes == set()


def test_mode_may_be_a_method() -> None:
    class Own(Normal):
        def mode(self) -> torch.Tensor:
            return self.loc - 0.5

    assert read(Own(MEAN, STD))[0].actions == pytest.approx(MEAN.numpy() - 0.5)


def test_override_that_draws_by_itself_is_played_by_the_mean_of_its_samples() -> None:
    class OwnNoise(Normal):
        def rsample(self, sample_shape: torch.Size = NO_SHAPE) -> torch.Tensor:
            noise = torch.randn(torch.Size(sample_shape) + self.loc.shape)
            return 2.0 * torch.tanh(self.loc + self.scale * noise)

    step, notes = read(OwnNoise(MEAN, STD))
    assert step.actions == pytest.approx(truth()[0], abs=0.25)
    assert "mean of 256 samples" in next(iter(notes))
    reader = OutputReader(spaces.Box(-2.0, 2.0, (2,), np.float64), True, "unknown", deterministic=True)
    assert reader.read(OwnNoise(MEAN, STD), 2).actions.tolist() == step.actions.tolist(), "without a seed"


def test_override_with_the_same_distribution_keeps_the_mode_of_its_base() -> None:
    class OwnNoise(Normal):
        def rsample(self, sample_shape: torch.Size = NO_SHAPE) -> torch.Tensor:
            return self.loc + self.scale * torch.randn(torch.Size(sample_shape) + self.loc.shape)

    assert read(OwnNoise(MEAN, STD))[0].actions == pytest.approx(MEAN.numpy(), abs=1e-6)


def test_subclasses_without_own_sampling_are_read_as_before() -> None:
    class Named(Normal):
        pass

    step, notes = read(Named(MEAN, STD))
    assert step.actions == pytest.approx(MEAN.numpy())
    assert step.scores.entropy == pytest.approx(Normal(MEAN, STD).entropy().sum(dim=1).numpy(), abs=1e-6)
    assert notes == set()


PROBS = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]])


def test_reshaped_samples_of_a_categorical_do_not_change_its_probabilities() -> None:
    class FixedCategorical(Categorical):
        """As in pytorch-a2c-ppo-acktr-gail."""

        def sample(self) -> torch.Tensor:
            return super().sample().unsqueeze(-1)

        def mode(self) -> torch.Tensor:
            return self.probs.argmax(dim=-1, keepdim=True)

    step, notes = read(FixedCategorical(probs=PROBS), spaces.Discrete(3))
    assert step.actions.tolist() == [1, 0]
    assert step.scores.values == pytest.approx(PROBS.numpy())
    assert notes == set()


def test_categorical_with_other_samples_has_their_frequencies() -> None:
    class Reversed(Categorical):
        def sample(self, sample_shape: torch.Size = NO_SHAPE) -> torch.Tensor:
            return 2 - super().sample(sample_shape)

    step, _ = read(Reversed(probs=PROBS), spaces.Discrete(3))
    assert step.scores.values == pytest.approx(PROBS.numpy()[:, ::-1], abs=0.12)
    assert step.actions.tolist() == [1, 2]
