"""Tuples of (mean, std), (scores, value) and their relatives."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from random_env import RandomEnv
from torch import nn
from torch.distributions import Categorical, Normal

from rlwandb_callbacks.config import EvaluationConfig, WandbRLConfig
from rlwandb_callbacks.core.episode import Episode, Gaussian, PolicyStep, Probabilities, QValues
from rlwandb_callbacks.evaluation.evaluator import Evaluator
from rlwandb_callbacks.evaluation.preserved_state import preserved_state
from rlwandb_callbacks.policies.output_reader import OutputReader

LOGITS = torch.tensor([[0.0, 2.0], [3.0, -1.0], [0.5, 0.2]])
VALUES = torch.tensor([5.0, -2.0, 7.0])
ACTIONS = torch.tensor([[0.1], [0.2], [0.3]])
LINE = spaces.Box(-1.0, 1.0, (1,))
PLANE = spaces.Box(-1.0, 1.0, (2,))


def read(output: Any, space: Any, meaning: str = "unknown", action_logger: bool | str = True) -> PolicyStep:
    return OutputReader(space, action_logger, meaning, deterministic=True).read(output, 3)


@pytest.mark.parametrize("meaning", ["unknown", "logits"])
@pytest.mark.parametrize("values", [VALUES, VALUES[:, None]])
def test_logits_and_value(meaning: str, values: torch.Tensor) -> None:
    step = read((LOGITS, values), spaces.Discrete(2), meaning)
    assert isinstance(step.scores, Probabilities)
    assert step.scores.values == pytest.approx(torch.softmax(LOGITS, dim=1).numpy())
    assert step.actions.tolist() == [1, 0, 0]
    assert step.values.tolist() == VALUES.tolist()


@pytest.mark.parametrize(("meaning", "logger"), [("q_values", True), ("unknown", "q_value")])
def test_q_values_beside_a_number_per_state_stay_q_values(meaning: str, logger: Any) -> None:
    assert isinstance(read((LOGITS, VALUES), spaces.Discrete(2), meaning, logger).scores, QValues)


@pytest.mark.parametrize(
    ("output", "space"),
    [
        ((Categorical(logits=LOGITS), VALUES), spaces.Discrete(2)),
        ((Categorical(logits=LOGITS), torch.tensor([0, 1, 1]), VALUES[:, None]), spaces.Discrete(2)),  # Lightning's PPO
        ((Normal(ACTIONS, 1.0), ACTIONS, VALUES[:, None]), LINE),
        ((Normal(ACTIONS, 1.0), VALUES), LINE),
        ((torch.zeros(3, 2), VALUES[:, None]), PLANE),
    ],
)
def test_value_beside_a_distribution_or_an_action(output: Any, space: Any) -> None:
    assert read(output, space).values.tolist() == VALUES.tolist()


@pytest.mark.parametrize(
    ("output", "space"),
    [
        ((torch.tensor([0, 1, 1]), VALUES), spaces.Discrete(2)),  # may be a log-probability
        ((LOGITS, VALUES, VALUES), spaces.Discrete(2)),
        ((ACTIONS, VALUES[:, None]), LINE),  # may be the logarithm of a standard deviation
    ],
    ids=["action", "two numbers", "one-dimensional action"],
)
def test_number_of_unknown_meaning_is_not_taken_for_a_value(output: Any, space: Any) -> None:
    assert read(output, space).values is None


Named = namedtuple("Named", ["value", "mu", "std"])  # noqa: PYI024  # users write this form
Logits = namedtuple("Logits", ["value", "logits"])  # noqa: PYI024
Logarithm = namedtuple("Logarithm", ["mean", "log_std"])  # noqa: PYI024


def test_names_of_a_named_tuple_are_used() -> None:
    step = read(Named(VALUES, ACTIONS, torch.full((1,), 0.5)), LINE)
    assert step.actions == pytest.approx(ACTIONS.numpy())
    assert step.scores.std.tolist() == [[0.5]] * 3
    assert step.values.tolist() == VALUES.tolist()
    step = read(Logits(VALUES, LOGITS), spaces.Discrete(2))
    assert step.scores.values == pytest.approx(torch.softmax(LOGITS, dim=1).numpy())
    assert read(Logarithm(ACTIONS, ACTIONS), LINE).scores.std == pytest.approx(np.exp(ACTIONS.numpy()))


class Heads(nn.Module):
    """Networks for the entries of a tuple, by name."""

    def __init__(self, names: str, dimensions: int) -> None:
        super().__init__()
        self.names = names.split(", ") if "," in names else names.split()
        self.mean, self.log_std = nn.Linear(3, dimensions), nn.Parameter(torch.full((dimensions,), -0.5))
        self.spread = nn.Linear(3, dimensions)
        self.critic = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, observations: torch.Tensor) -> Any:
        policy = Normal(self.mean(observations), 0.1)
        sample = policy.sample()
        log_prob = policy.log_prob(sample)
        entries = {
            "mean": self.mean(observations),
            "std": torch.nn.functional.softplus(self.spread(observations)),
            "constant_std": self.log_std.exp(),
            "log_std": self.spread(observations),
            "value": self.critic(observations),
            "sample": sample,
            "log_prob": log_prob.sum(dim=-1),
            "log_prob column": log_prob.sum(dim=-1, keepdim=True),
            "distribution": policy,
            "spread": self.spread(observations).abs() + 0.1,
        }
        return tuple(entries[name] for name in self.names)


def first_episode(names: str, dimensions: int, *, deterministic: bool = True) -> tuple[Episode, Heads]:
    torch.manual_seed(1)
    network = Heads(names, dimensions)
    settings = {"env": RandomEnv, "env_kwargs": {"actions": dimensions}, "episodes": 2, "policy": network}
    cfg = WandbRLConfig(video_logger=False, evaluation=EvaluationConfig(**settings, deterministic=deterministic))
    with preserved_state(network, seed=0):
        evaluator = Evaluator(cfg, network, lambda *_, **__: None)
        return evaluator.play(keeps_observations=True)[0].episode, network


@pytest.mark.parametrize("dimensions", [1, 2])
@pytest.mark.parametrize("names", ["mean std", "mean constant_std", "mean std value", "mean constant_std value"])
def test_mean_and_standard_deviation(names: str, dimensions: int) -> None:
    episode, network = first_episode(names, dimensions)
    with torch.no_grad():
        observations = torch.from_numpy(episode.observations)
        mean, value = network.mean(observations), network.critic(observations)[:, 0]
        std = torch.nn.functional.softplus(network.spread(observations))
    std = network.log_std.exp().detach().expand(mean.shape) if "constant" in names else std
    assert isinstance(episode.scores, Gaussian)
    assert episode.scores.mean == pytest.approx(mean.numpy(), abs=1e-5)
    assert episode.scores.std == pytest.approx(std.numpy(), abs=1e-5)
    assert episode.actions == pytest.approx(mean.numpy(), abs=1e-5)
    assert (episode.values is None) == (names.rsplit(maxsplit=1)[-1] != "value")
    if episode.values is not None:
        assert episode.values == pytest.approx(value.numpy(), abs=1e-5)


def test_gaussian_of_a_tuple_is_sampled_if_not_deterministic() -> None:
    episode, _ = first_episode("mean std", 2, deterministic=False)
    assert np.abs(episode.actions - episode.scores.mean).min() > 1e-4


@pytest.mark.parametrize("names", ["mean log_std", "mean value", "sample spread", "sample"])
@pytest.mark.parametrize("dimensions", [1, 2])
def test_other_second_entries_are_no_standard_deviation(names: str, dimensions: int) -> None:
    episode, _ = first_episode(names, dimensions)
    assert episode.scores is None
    assert (episode.values is not None) == (names == "mean value" and dimensions == 2)


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("dimensions", [1, 2])
@pytest.mark.parametrize(
    "names",
    [
        "sample, log_prob column, mean",
        "sample, log_prob, mean",
        "sample, log_prob column",
        "sample, log_prob",
        "distribution, sample, log_prob",
    ],
)
def test_log_probability_of_a_sample_is_no_value(names: str, dimensions: int, deterministic: bool) -> None:
    episode, _ = first_episode(names, dimensions, deterministic=deterministic)
    assert episode.values is None


@pytest.mark.parametrize("dimensions", [1, 2])
@pytest.mark.parametrize("names", ["mean log_std", "mean value", "distribution, value"])
def test_tuples_without_a_standard_deviation_play_their_mean_if_not_deterministic(names: str, dimensions: int) -> None:
    episode, network = first_episode(names, dimensions, deterministic=False)
    with torch.no_grad():
        mean = network.mean(torch.from_numpy(episode.observations)).numpy()
    assert episode.actions == pytest.approx(mean, abs=1e-5 if names.startswith("mean") else 1.0)
    assert (episode.values is not None) == ("value" in names and (dimensions == 2 or "distribution" in names))


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("std", [-0.1, np.nan])
def test_invalid_standard_deviation_is_named(std: float, deterministic: bool) -> None:
    reader = OutputReader(LINE, True, "unknown", deterministic)
    step = reader.read({"loc": ACTIONS, "scale": torch.full((3, 1), std)}, 3)
    assert step.actions == pytest.approx(ACTIONS.numpy())
    assert step.scores is None
    (note,) = reader.notes
    assert "standard deviations that are negative or NaN" in note
    assert reader.read({"loc": ACTIONS, "scale": torch.full((3, 1), -0.0)}, 3).scores.std.tolist() == [[0.0]] * 3
