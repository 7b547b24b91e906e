"""Deterministic actions of distributions: where the policy acts often, and never NaN."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict
from tensordict.nn import CompositeDistribution
from torch.distributions import (
    AffineTransform,
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    Cauchy,
    Chi2,
    ContinuousBernoulli,
    Dirichlet,
    Distribution,
    Exponential,
    FisherSnedecor,
    Gamma,
    Geometric,
    HalfCauchy,
    HalfNormal,
    Independent,
    Kumaraswamy,
    Laplace,
    LogNormal,
    MixtureSameFamily,
    Multinomial,
    MultivariateNormal,
    Normal,
    Pareto,
    Poisson,
    RelaxedBernoulli,
    RelaxedOneHotCategorical,
    SigmoidTransform,
    StudentT,
    TanhTransform,
    TransformedDistribution,
    Uniform,
    VonMises,
    Weibull,
)
from torchrl.modules import Delta, IndependentNormal, TanhDelta, TanhNormal, TruncatedNormal

from rlwandb_callbacks.errors import PolicyError
from rlwandb_callbacks.policies.output_reader import OutputReader


def row(*values: float) -> torch.Tensor:
    return torch.tensor([values])


def played(output: Any, space: spaces.Space[Any] | None = None, *, deterministic: bool = True) -> Any:
    space = spaces.Box(-np.inf, np.inf, (1,), np.float64) if space is None else space
    return OutputReader(space, True, "unknown", deterministic).read(output, 1).actions


def plane(size: int) -> spaces.Space[Any]:
    return spaces.Box(-np.inf, np.inf, (size,), np.float64)


CASES: dict[str, tuple[Any, float]] = {
    # The mode is at the edge of the support, where the density may be infinite, or there is none: the mean.
    "Beta below 1": (Beta(row(0.2), row(0.9)), 0.2 / 1.1),
    "Beta of two edges": (Beta(row(0.5), row(0.5)), 0.5),
    "Beta with one edge": (Beta(row(1.0), row(2.0)), 1 / 3),
    "flat Beta": (Beta(row(1.0), row(1.0)), 0.5),
    "uniform": (Uniform(row(-1.0), row(1.0)), 0.0),
    "Gamma below 1": (Gamma(row(0.5), row(2.0)), 0.25),
    "Chi2": (Chi2(row(1.0)), 1.0),
    "Exponential": (Exponential(row(4.0)), 0.25),
    "HalfNormal": (HalfNormal(row(0.5)), 0.5 * math.sqrt(2 / math.pi)),
    "Kumaraswamy below 1": (Kumaraswamy(row(0.5), row(0.5)), 0.5 * math.gamma(3) * math.gamma(0.5) / math.gamma(3.5)),
    "Weibull below 1": (Weibull(row(1.0), row(0.5)), 2.0),  # torch's mode is 1.0
    "continuous Bernoulli": (ContinuousBernoulli(row(0.5)), 0.5),
    # The mode is inside.
    "Beta": (Beta(row(3.0), row(2.0)), 2 / 3),
    "Gamma": (Gamma(row(3.0), row(2.0)), 1.0),
    "Kumaraswamy": (Kumaraswamy(row(2.0), row(3.0)), math.sqrt(1 / 5)),
    "Laplace": (Laplace(row(0.5), row(0.1)), 0.5),
    "LogNormal": (LogNormal(row(0.5), row(1.0)), math.exp(-0.5)),
    "VonMises": (VonMises(row(0.5), row(3.0)), 0.5),
    "Normal": (Normal(row(0.5), row(3.0)), 0.5),
    # There is no finite mean.
    "Cauchy": (Cauchy(row(0.5), row(0.1)), 0.5),
    "StudentT": (StudentT(row(0.5), row(0.3), row(1.0)), 0.3),
    "HalfCauchy at its median": (HalfCauchy(row(0.5)), 0.5),
    "Pareto at its median": (Pareto(row(0.5), row(0.5)), 2.0),
    # Built from other distributions.
    "squashed": (TransformedDistribution(Normal(row(0.5), row(1.0)), [TanhTransform()]), math.tanh(0.5)),
    "squashed to the edge": (TransformedDistribution(Normal(row(50.0), row(1.0)), [TanhTransform()]), 1.0),
    "logistic": (TransformedDistribution(Uniform(row(0.0), row(1.0)), [SigmoidTransform().inv]), 0.0),
    "scaled Beta": (TransformedDistribution(Beta(row(0.2), row(0.9)), [AffineTransform(-1.0, 2.0)]), 0.4 / 1.1 - 1),
    "independent": (Independent(Beta(row(0.2), row(0.9)), 1), 0.2 / 1.1),
    # TorchRL.
    "TorchRL truncated": (TruncatedNormal(row(0.9), row(1.0)), 0.25173),
    "TorchRL truncated far away": (TruncatedNormal(row(20.0), row(1.0), low=-1.0, high=1.0), 1.0),
    "TorchRL squashed": (TanhNormal(row(0.5), row(1.0)), math.tanh(0.5)),
    "TorchRL Gaussian": (IndependentNormal(row(0.5), row(1.0)), 0.5),
    "TorchRL point": (Delta(row(0.5)), 0.5),
    "TorchRL squashed point": (TanhDelta(row(0.5)), math.tanh(0.5)),
}


@pytest.mark.parametrize("name", CASES)
def test_deterministic_action(name: str) -> None:
    distribution, expected = CASES[name]
    assert played(distribution) == pytest.approx(np.array([[expected]]), abs=1e-4)


def test_each_dimension_is_decided_by_itself() -> None:
    policy = Beta(row(0.2, 3.0, 1.0), row(0.9, 2.0, 1.0))
    assert played(policy, plane(3)) == pytest.approx(np.array([[0.2 / 1.1, 2 / 3, 0.5]]))


@pytest.mark.parametrize(
    ("concentration", "expected"),
    [
        ((0.5, 0.4, 0.3), (5 / 12, 4 / 12, 3 / 12)),
        ((1.0, 1.0, 1.0), (1 / 3, 1 / 3, 1 / 3)),
        ((0.5, 2.0, 3.0), (0.5 / 5.5, 2 / 5.5, 3 / 5.5)),
        ((2.0, 2.0, 3.0), (0.25, 0.25, 0.5)),
    ],
)
def test_dependent_dimensions_are_decided_together(concentration: Any, expected: Any) -> None:
    """Mode in some and mean in others would leave the simplex."""
    assert played(Dirichlet(row(*concentration)), plane(3)) == pytest.approx(np.array([expected]))


@pytest.mark.parametrize(
    "mixture",
    [
        MixtureSameFamily(Categorical(row(0.4, 0.6)), Independent(Normal(row(0.8, -0.8)[..., None], 0.05), 1)),
        MixtureSameFamily(Categorical(row(0.4, 0.6)[:, None]), Normal(row(0.8, -0.8)[:, None], 0.05)),
        Independent(MixtureSameFamily(Categorical(row(0.4, 0.6)[:, None]), Normal(row(0.8, -0.8)[:, None], 0.05)), 1),
        MixtureSameFamily(
            Categorical(row(0.4, 0.6)), MultivariateNormal(row(0.8, -0.8)[..., None], 0.01 * torch.eye(1))
        ),
    ],
    ids=["of vectors", "per dimension", "independent", "of multivariate Gaussians"],
)
def test_mixture_is_played_at_its_heaviest_component(mixture: Any) -> None:
    assert played(mixture) == pytest.approx(np.array([[-0.8]]))
    squashed = TransformedDistribution(mixture, [TanhTransform()])
    assert played(squashed) == pytest.approx(np.array([[math.tanh(-0.8)]]))


def test_heaviest_component_is_found_for_each_dimension_and_row() -> None:
    weights = torch.tensor([[[0.1, 0.9], [0.8, 0.2]], [[0.7, 0.3], [0.4, 0.6]]])
    mixture = MixtureSameFamily(Categorical(weights), Beta(torch.tensor([3.0, 0.5]), torch.tensor([2.0, 1.5])))
    actions = OutputReader(plane(2), True, "unknown", deterministic=True).read(mixture.expand([2, 2]), 2).actions
    assert actions == pytest.approx(np.array([[0.25, 2 / 3], [2 / 3, 0.25]]))


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Bernoulli(row(0.5)), [0, 1]),
        (Bernoulli(row(0.7)), [1]),
        (Poisson(row(3.5)), [3]),
        (Poisson(row(0.01)), [0]),
        (Binomial(10, row(0.33)), [3]),
        (Geometric(row(0.3)), [0]),
    ],
)
def test_integers_are_played_at_their_most_likely_value(policy: Any, expected: list[int]) -> None:
    (action,) = played(policy, spaces.Box(0, 20, (1,), np.int64))
    assert action.item() in expected


def test_mean_of_integers_is_rounded() -> None:
    action = played(Multinomial(5, probs=row(0.2, 0.5, 0.3)), spaces.Box(0, 5, (3,), np.float64))
    assert action.tolist() == np.rint(action).tolist()


def test_tie_of_a_binary_action_is_an_action() -> None:
    space = spaces.MultiBinary(2)
    assert space.contains(played(Bernoulli(row(0.5, 0.7)), space)[0])


def test_own_mode_of_a_users_class_is_played_at_the_edge_of_its_support() -> None:
    class AtEdge(Beta):
        @property
        def mode(self) -> torch.Tensor:
            return torch.ones_like(self.mean)

    assert played(AtEdge(row(0.2), row(0.9))).tolist() == [[1.0]]


def test_own_deterministic_sample_is_preferred_to_the_mode() -> None:
    class Cautious(Normal):
        @property
        def deterministic_sample(self) -> torch.Tensor:
            return self.loc / 2

    assert played(Cautious(row(1.0), row(1.0))).tolist() == [[0.5]]


class OnlySamples(Distribution):
    def __init__(self) -> None:
        super().__init__(torch.Size([1]), torch.Size([1]), validate_args=False)

    def sample(self, sample_shape: Any = ()) -> torch.Tensor:
        return 1 + torch.rand(*sample_shape, 1, 1)


def test_distribution_with_neither_mode_nor_mean_is_played_near_its_median() -> None:
    policy = FisherSnedecor(row(1.0), row(1.0))
    assert played(policy) == pytest.approx(np.array([[1.0]]), abs=0.5)
    assert policy.sample((256,)).mean() > 2


def test_class_without_moments_is_played_at_the_mean_of_the_same_samples_each_time() -> None:
    torch.manual_seed(1)
    first = played(OnlySamples())
    assert first == pytest.approx(np.array([[1.5]]), abs=0.06)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert played(OnlySamples()).tolist() == first.tolist()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "policy",
    [
        Normal(row(math.nan), row(1.0), validate_args=False),
        TransformedDistribution(Normal(row(math.nan), row(1.0), validate_args=False), [TanhTransform()]),
        TanhNormal(row(math.nan), row(1.0)),
        Beta(row(math.nan), row(1.0), validate_args=False),
        MixtureSameFamily(
            Categorical(row(0.4, 0.6)[:, None]), Normal(row(math.nan, math.nan)[:, None], 1.0, validate_args=False)
        ),
    ],
    ids=["Gaussian", "squashed", "TorchRL", "Beta", "mixture"],
)
def test_no_finite_action_names_the_distribution(policy: Any) -> None:
    with pytest.raises(PolicyError, match=r"(Normal|Beta).* no finite mode, mean or samples"):
        played(policy)


@pytest.mark.parametrize("deterministic", [True, False])
def test_composite_distribution_is_played_in_a_dict_space(deterministic: bool) -> None:
    parameters = TensorDict(
        {
            "gear": TensorDict({"logits": row(-90.0, 90.0, 0.0)}, [1]),
            "steer": TensorDict({"concentration1": row(0.2), "concentration0": row(0.9)}, [1]),
        },
        [1],
    )
    policy = CompositeDistribution(parameters, distribution_map={"gear": Categorical, "steer": Beta})
    space = spaces.Dict(gear=spaces.Discrete(3), steer=spaces.Box(0.0, 1.0, (1,)))
    actions = played(policy, space, deterministic=deterministic)
    assert actions["gear"].tolist() == [1]
    assert not deterministic or actions["steer"] == pytest.approx(np.array([[0.2 / 1.1]]))


def test_relaxed_categorical_is_played_on_the_simplex() -> None:
    policy = RelaxedOneHotCategorical(torch.tensor([0.5]), probs=row(0.7, 0.2, 0.1))
    assert played(policy, plane(3)) == pytest.approx(np.array([[0.49, 0.04, 0.01]]) / 0.54)


class Gate(RelaxedBernoulli):
    """Samples as its base."""


@pytest.mark.parametrize("relaxed", [RelaxedBernoulli, Gate])
def test_relaxed_bernoulli_is_played_inside_of_its_support(relaxed: Any) -> None:
    """tensordict, imported above, gives torch's class a ``deterministic_sample`` of 0 or 1."""
    action = played(relaxed(torch.tensor(0.5), logits=row(1.0, -1.0)), plane(2))
    assert ((action > 0.0) & (action < 1.0)).all()


@pytest.mark.parametrize("patched", [RelaxedBernoulli, RelaxedOneHotCategorical])
def test_import_of_tensordict_changes_no_action(patched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = patched(torch.tensor(0.5), probs=row(0.7, 0.2, 0.1))
    with_import = played(policy, plane(3)).tolist()
    monkeypatch.delattr(patched, "deterministic_sample", raising=False)
    assert played(policy, plane(3)).tolist() == with_import


@pytest.mark.parametrize(
    ("components", "space", "expected"),
    [
        (Categorical(torch.tensor([[[1.0, 0, 0], [0, 0, 1.0], [0, 0, 1.0]]])), spaces.Box(0, 9, (), np.int64), [2]),
        (Poisson(row(9.5, 1.5, 1.5)), spaces.Box(0, 99, (), np.int64), [1]),  # 9: 0.4 * 0.130, 1: 0.6 * 0.335
        (
            Independent(Categorical(torch.eye(3)[torch.tensor([[[0, 1], [2, 2], [2, 2]]])]), 1),
            spaces.MultiDiscrete([3, 3]),
            [[2, 2]],
        ),
    ],
    ids=["shared value", "Poisson", "vectors"],
)
def test_mixture_over_integers_is_played_at_its_most_likely_value(components: Any, space: Any, expected: Any) -> None:
    assert played(MixtureSameFamily(Categorical(row(0.4, 0.3, 0.3)), components), space).tolist() == expected


class ForeignMixture(Distribution):
    """As zuko's: it defines samples and a density, and no moments."""

    def __init__(self, inside: Any) -> None:
        self.inside = inside
        super().__init__(inside.batch_shape, inside.event_shape, validate_args=False)

    def rsample(self, sample_shape: Any = ()) -> torch.Tensor:
        return self.inside.sample(sample_shape)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        return self.inside.log_prob(value)


@pytest.mark.parametrize(
    "inside",
    [
        MixtureSameFamily(Categorical(row(0.7, 0.3)), Independent(Normal(row(-2.0, 2.0)[..., None], 0.1), 1)),
        MixtureSameFamily(Categorical(row(0.7, 0.3)[:, None]), Normal(row(-2.0, 2.0)[:, None], 0.1)),
    ],
    ids=["of vectors", "per dimension"],
)
def test_mixture_without_mode_is_played_at_a_peak_each_time(inside: Any) -> None:
    action = played(ForeignMixture(inside))
    assert action == pytest.approx(np.array([[-2.0]]), abs=0.1)
    assert played(ForeignMixture(inside)).tolist() == action.tolist()


@pytest.mark.parametrize("inside", [Normal(torch.zeros(1, 1), 1.0), Independent(Normal(torch.zeros(1, 40), 1.0), 1)])
def test_distribution_with_one_peak_is_played_at_the_mean_of_samples(inside: Any) -> None:
    action = played(ForeignMixture(inside), plane(inside.mean.shape[1]))
    assert np.abs(action).max() < 0.3  # 4 standard errors of 256 samples are 0.25
