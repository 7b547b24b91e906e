"""Entropy of policies: closed form or estimate against numerical integration, and none where it is not known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from scipy import integrate, special, stats
from stable_baselines3.common.distributions import SquashedDiagGaussianDistribution
from torch.distributions import (
    AffineTransform,
    Bernoulli,
    Beta,
    Categorical,
    ComposeTransform,
    Distribution,
    ExpTransform,
    Independent,
    Kumaraswamy,
    LogisticNormal,
    MixtureSameFamily,
    Normal,
    Poisson,
    SigmoidTransform,
    TanhTransform,
    TransformedDistribution,
    Uniform,
    VonMises,
)
from torchrl.modules import Delta, IndependentNormal, TanhDelta, TanhNormal, TruncatedNormal

from rlwandb_callbacks.core.action_spec import ContinuousActions
from rlwandb_callbacks.core.episode import Gaussian
from rlwandb_callbacks.evaluation.summary import Evaluation
from rlwandb_callbacks.policies.output_reader import OutputReader
from rlwandb_callbacks.policies.scores import entropy, mean_entropy

ANYTHING = spaces.Box(-np.inf, np.inf, (1,), np.float64)


def row(*values: float) -> torch.Tensor:
    return torch.tensor([values])


def entropy_read(output: Any, size: int = 1, *, deterministic: bool = True) -> float:
    space = spaces.Box(-np.inf, np.inf, (size,), np.float64)
    (found,) = entropy(OutputReader(space, True, "unknown", deterministic).read(output, 1).scores)
    return float(found)


def squashed_entropy(loc: float, scale: float) -> float:
    """Integrates the logarithm of the slope of tanh over the Gaussian."""

    def integrand(noise: float) -> float:
        z = loc + scale * noise
        return stats.norm.pdf(noise) * 2 * (math.log(2) - z - np.logaddexp(0, -2 * z))

    return stats.norm(loc, scale).entropy() + integrate.quad(integrand, -12, 12, points=[-loc / scale], limit=200)[0]


def density_entropy(log_density: Any, low: float, high: float, points: Any = None) -> float:
    def integrand(x: float) -> float:
        return -math.exp(log_density(x)) * log_density(x)

    return float(integrate.quad(integrand, low, high, points=points, limit=500)[0])


@pytest.mark.parametrize(
    "make",
    [
        lambda loc, scale: TransformedDistribution(Normal(loc, scale), [TanhTransform()]),
        lambda loc, scale: Independent(TransformedDistribution(Normal(loc, scale), [TanhTransform(cache_size=1)]), 1),
        lambda loc, scale: TransformedDistribution(Independent(Normal(loc, scale), 1), [TanhTransform()]),
        lambda loc, scale: TransformedDistribution(Normal(loc.double(), scale.double()), [TanhTransform()]),
        TanhNormal,
        lambda loc, scale: SquashedDiagGaussianDistribution(1).proba_distribution(loc, scale.log()),
    ],
    ids=["transformed", "independent of", "of independent", "double", "TorchRL", "Stable-Baselines3"],
)
@pytest.mark.parametrize(
    ("loc", "scale", "expected"),
    [(0.0, 0.1, -0.89), (0.0, 0.6, 0.60), (0.0, 1.0, 0.67), (0.0, 2.0, 0.0), (0.0, 5.0, -3.7), (0.0, 10.0, -10.9)],
)
def test_entropy_of_a_squashed_gaussian_falls_as_it_saturates(
    make: Any, loc: float, scale: float, expected: float
) -> None:
    truth = squashed_entropy(loc, scale)
    assert truth == pytest.approx(expected, abs=0.02)
    assert entropy_read(make(row(loc), row(scale))) == pytest.approx(truth, abs=0.02)


@pytest.mark.parametrize(("loc", "scale"), [(2.0, 10.0), (-3.0, 1.0), (12.0, 0.1), (-20.0, 2.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_entropy_is_right_where_tanh_is_rounded_to_one(loc: float, scale: float, dtype: torch.dtype) -> None:
    truth = squashed_entropy(loc, scale)
    squashed = TransformedDistribution(Normal(row(loc).to(dtype), row(scale).to(dtype)), [TanhTransform()])
    assert entropy_read(squashed) == pytest.approx(truth, abs=0.05 if dtype == torch.bfloat16 else 0.02)
    if dtype == torch.float32:
        assert entropy_read(TanhNormal(row(loc), row(scale))) == pytest.approx(truth, abs=0.02)


def test_dimensions_are_summed_and_rows_are_separate() -> None:
    loc, scale = torch.tensor([[0.0, 2.0, -1.0], [0.3, 0.0, 5.0]]), torch.tensor([[1.0, 0.5, 2.0], [0.1, 10.0, 1.0]])
    reader = OutputReader(spaces.Box(-1.0, 1.0, (3,)), True, "unknown", deterministic=True)
    expected = [
        sum(squashed_entropy(*pair) for pair in zip(*parts, strict=True))
        for parts in zip(loc.tolist(), scale.tolist(), strict=True)
    ]
    for policy in (TanhNormal(loc, scale), TransformedDistribution(Normal(loc, scale), [TanhTransform()])):
        assert entropy(reader.read(policy, 2).scores) == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize("kappa", [0.001, 1.0, 50.0, 1e4])
def test_entropy_of_a_von_mises_policy(kappa: float) -> None:
    log_norm = math.log(2 * math.pi * special.i0e(kappa))
    width = min(math.pi, 20 / math.sqrt(kappa))
    truth = density_entropy(lambda x: kappa * (math.cos(x) - 1) - log_norm, -width, width)
    assert entropy_read(VonMises(row(0.3), row(kappa))) == pytest.approx(truth, abs=1e-3)


NORMAL = stats.norm(0.5, 0.7)
CASES: dict[str, tuple[Any, float]] = {
    "affine": (
        TransformedDistribution(Normal(row(0.0), row(0.5)), [AffineTransform(1.0, -3.0)]),
        stats.norm(0, 1.5).entropy(),
    ),
    "exponential": (TransformedDistribution(Normal(row(0.5), row(0.7)), [ExpTransform()]), NORMAL.entropy() + 0.5),
    "sigmoid": (
        TransformedDistribution(Normal(row(0.5), row(0.7)), [SigmoidTransform()]),
        NORMAL.entropy() + NORMAL.expect(lambda z: -np.logaddexp(0, -z) - np.logaddexp(0, z)),
    ),
    "composed": (
        TransformedDistribution(
            Normal(row(0.5), row(0.7)), [ComposeTransform([TanhTransform(), AffineTransform(1.0, 3.0)])]
        ),
        squashed_entropy(0.5, 0.7) + math.log(3),
    ),
    "TorchRL scaled": (TanhNormal(row(0.5), row(0.7), low=-2.0, high=4.0), squashed_entropy(0.5, 0.7) + math.log(3)),
    "logistic": (TransformedDistribution(Uniform(row(0.0), row(1.0)), [SigmoidTransform().inv]), 2.0),
    "scaled Beta": (
        TransformedDistribution(Beta(row(2.0), row(5.0)), [AffineTransform(-1.0, 2.0)]),
        stats.beta(2, 5).entropy() + math.log(2),
    ),
    "Beta": (Beta(row(0.2), row(0.9)), stats.beta(0.2, 0.9).entropy()),
    "Kumaraswamy": (
        Kumaraswamy(row(2.0), row(3.0)),
        density_entropy(lambda x: math.log(6 * x * (1 - x**2) ** 2), 1e-9, 1 - 1e-9),
    ),
    "TorchRL truncated": (TruncatedNormal(row(0.9), row(1.0)), stats.truncnorm(-1.9, 0.1, 0.9, 1.0).entropy()),
    "TorchRL Gaussian": (IndependentNormal(row(0.9), row(0.5)), stats.norm(0, 0.5).entropy()),
    "mixture": (
        MixtureSameFamily(Categorical(row(0.6, 0.4)), Independent(Normal(row(-0.8, 0.8)[..., None], 0.3), 1)),
        density_entropy(
            lambda x: np.logaddexp(
                math.log(0.6) + stats.norm(-0.8, 0.3).logpdf(x), math.log(0.4) + stats.norm(0.8, 0.3).logpdf(x)
            ),
            -4,
            4,
        ),
    ),
    "Poisson": (Poisson(row(3.5)), stats.poisson(3.5).entropy()),
    "scaled integers": (TransformedDistribution(Bernoulli(row(0.3)), [AffineTransform(-1.0, 2.0)]), 0.6109),
    "Gaussian by its moments": ({"mean": row(0.0), "std": row(0.5)}, stats.norm(0, 0.5).entropy()),
}


@pytest.mark.parametrize("name", CASES)
def test_entropy_is_that_of_the_distribution(name: str) -> None:
    output, truth = CASES[name]
    assert entropy_read(output) == pytest.approx(float(truth), abs=0.05)


def test_entropy_of_a_mixture_in_several_dimensions() -> None:
    generator = torch.Generator().manual_seed(1)
    loc, scale = torch.randn(1, 3, 6, generator=generator), 0.1 + torch.rand(1, 3, 6, generator=generator)
    mixture = MixtureSameFamily(Categorical(row(0.5, 0.3, 0.2)), Independent(Normal(loc, scale), 1))
    torch.manual_seed(0)
    truth = float(-mixture.log_prob(mixture.sample((100_000,))).mean())
    assert entropy_read(mixture, 6) == pytest.approx(truth, abs=0.1)


def test_entropy_on_the_simplex() -> None:
    policy = LogisticNormal(row(2.0, 2.0), row(1.0, 1.0))
    torch.manual_seed(0)
    truth = float(-policy.log_prob(policy.sample((100_000,))).mean())
    assert entropy_read(policy, 3) == pytest.approx(truth, abs=0.05)


class OnlySamples(Distribution):
    """A user's distribution without a density."""

    def __init__(self) -> None:
        super().__init__(torch.Size([1]), torch.Size([1]), validate_args=False)

    def sample(self, sample_shape: Any = ()) -> torch.Tensor:
        return torch.rand(*sample_shape, 1, 1)


class WithDensity(OnlySamples):
    def sample(self, sample_shape: Any = ()) -> torch.Tensor:
        return 4 * super().sample(sample_shape)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        return torch.full(value.shape[:-1], -math.log(4))


def test_density_of_a_users_class_gives_its_entropy() -> None:
    assert entropy_read(WithDensity()) == pytest.approx(math.log(4))


@pytest.mark.parametrize(
    "output",
    [
        OnlySamples(),
        Delta(row(0.5)),
        TanhDelta(row(0.5)),
        TruncatedNormal(row(20.0), row(1.0)),
        {"loc": row(0.0), "scale": row(1.0), "action": row(0.0)},
    ],
    ids=[
        "without a density",
        "point",
        "squashed point",
        "truncated far from its peak",
        "action that may be a function of the Gaussian",
    ],
)
def test_unknown_entropy_is_not_replaced_by_that_of_a_gaussian(output: Any, make_episode: Any) -> None:
    step = OutputReader(ANYTHING, True, "unknown", deterministic=True).read(output, 1)
    assert isinstance(step.scores, Gaussian)
    assert np.isnan(entropy(step.scores)).all()
    episode = make_episode([0.0], actions=step.actions, scores=step.scores)
    assert "policy/entropy" not in Evaluation([episode], 0.99, ContinuousActions(-np.ones(1), np.ones(1))).numbers()


def test_gaussian_without_spread_has_an_entropy_of_minus_infinity_also_if_squashed() -> None:
    point = Normal(row(0.3), row(0.0), validate_args=False)
    assert entropy_read(point) == entropy_read(TransformedDistribution(point, [TanhTransform()])) == -math.inf


def test_mean_entropy_is_unknown_if_that_of_a_step_is(make_episode: Any) -> None:
    scores = Gaussian(np.zeros((2, 1)), np.ones((2, 1)), np.array([1.0, np.nan]))
    assert mean_entropy([make_episode([0.0, 0.0], scores=scores)]) is None


@pytest.mark.parametrize("deterministic", [True, False])
def test_entropy_does_not_change_random_states_or_sampled_actions(deterministic: bool) -> None:
    policy = TransformedDistribution(Beta(row(0.5), row(0.7)), [AffineTransform(-1.0, 2.0), TanhTransform()])
    reader = OutputReader(ANYTHING, True, "unknown", deterministic)
    torch.manual_seed(3)
    action = policy.sample()
    after = torch.get_rng_state()
    torch.manual_seed(3)
    step = reader.read(policy, 1)
    if deterministic:
        policy.sample()
    else:
        assert step.actions == pytest.approx(action.numpy())
    assert torch.equal(torch.get_rng_state(), after)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_entropy_does_not_depend_on_the_gradient_mode(mode: Any) -> None:
    with mode():
        policy = TanhNormal(row(0.3), row(1.0).requires_grad_(mode is torch.enable_grad))
        assert entropy_read(policy) == pytest.approx(squashed_entropy(0.3, 1.0), abs=0.02)
    weight = torch.ones(1, requires_grad=True)
    (Normal(weight, 1.0).rsample() * weight).sum().backward()
