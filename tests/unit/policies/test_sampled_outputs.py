"""Outputs that begin with a sample of the action, followed by a mapping with its mode or scores, as those of skrl."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from evaluations import evaluated
from gymnasium import spaces
from torch.distributions import Categorical, Normal

from rlwandb_callbacks.core.episode import Gaussian, PolicyStep
from rlwandb_callbacks.policies.output_reader import OutputReader

THREE = spaces.Discrete(3)
HEADS = spaces.MultiDiscrete([2, 3])
PLANE = spaces.Box(-2.0, 2.0, (2,), np.float32)
LOGITS = torch.tensor([[0.0, 2.0, 1.0], [1.0, 0.0, 0.5]])  # the best are 1 and 0
SAMPLES = torch.tensor([[2], [1]])
MEAN = torch.tensor([[0.5, -0.5], [1.0, 0.0]])
DRAWN = torch.tensor([[1.5, -1.5], [0.0, 1.0]])
LOG_STD = torch.tensor([-1.0, 0.0])


class ActionOutput(NamedTuple):
    mu: torch.Tensor
    squashed_mu: torch.Tensor
    logstd: torch.Tensor | None


def read(output: Any, space: spaces.Space[Any] = THREE, *, deterministic: bool = True) -> PolicyStep:
    return OutputReader(space, True, "unknown", deterministic).read(output, 2)


def log_prob(logits: torch.Tensor) -> torch.Tensor:
    return Categorical(logits=logits).log_prob(SAMPLES[:, 0])[:, None]


@pytest.mark.parametrize(
    "extras",
    [
        {"net_output": LOGITS},
        {"net_output": LOGITS, "log_prob": log_prob(LOGITS)},
        {"net_output": LOGITS.softmax(dim=1), "log_prob": log_prob(LOGITS)},
        {"net_output": LOGITS.softmax(dim=1)},
        {"logits": LOGITS},
        {"probs": LOGITS.softmax(dim=1)},
        {"dist": Categorical(logits=LOGITS)},
    ],
)
@pytest.mark.parametrize("deterministic", [True, False])
def test_sample_or_argmax_is_played_and_the_probabilities_are_shown(
    extras: dict[str, Any], deterministic: bool
) -> None:
    expected = [[0.090031, 0.665241, 0.244728], [0.506480, 0.186324, 0.307196]]
    for output in ((SAMPLES, extras), (SAMPLES[:, 0], torch.zeros(2, 1), extras)):
        step = read(output, deterministic=deterministic)
        assert step.actions.tolist() == ([1, 0] if deterministic else [2, 1])
        assert step.scores.values == pytest.approx(np.array(expected), abs=1e-6)


def test_log_probability_decides_between_logits_and_probabilities() -> None:
    """A model of skrl that ends in a softmax samples from the softmax of its output unless it is told otherwise."""
    output = LOGITS.softmax(dim=1)
    step = read((SAMPLES, log_prob(output), {"net_output": output}))  # skrl 1
    assert step.scores.values == pytest.approx(output.softmax(dim=1).double().numpy())


@pytest.mark.parametrize("reduction", [lambda each: each.sum(dim=1, keepdim=True), lambda each: each])
def test_argmax_of_each_dimension(reduction: Callable[[torch.Tensor], torch.Tensor]) -> None:
    heads = torch.tensor([[2.0, 0.0, 0.0, 1.0, 0.0], [0.0, 2.0, 0.0, 0.0, 1.0]])
    samples = torch.tensor([[1, 2], [0, 0]])
    each = [Categorical(logits=part).log_prob(samples[:, i]) for i, part in enumerate(heads.split([2, 3], dim=1))]
    extras = {"net_output": heads, "log_prob": reduction(torch.stack(each, dim=1))}
    assert read((samples, extras), HEADS).actions.tolist() == [[0, 1], [1, 2]]
    assert read((samples, extras), HEADS, deterministic=False).actions.tolist() == samples.tolist()


@pytest.mark.parametrize("deterministic", [True, False])
def test_mean_or_sample_of_a_gaussian_is_played(deterministic: bool) -> None:
    step = read((DRAWN, {"log_std": LOG_STD, "mean_actions": MEAN}), PLANE, deterministic=deterministic)
    assert step.actions.tolist() == (MEAN if deterministic else DRAWN).tolist()
    assert type(step.scores) is Gaussian
    assert step.scores.mean.tolist() == MEAN.tolist()
    assert step.scores.std == pytest.approx(np.array([[0.367879, 1.0]] * 2), abs=1e-6)


@pytest.mark.parametrize("extras", [{"mean_actions": MEAN}, {"mode": MEAN}, {"dist": Normal(MEAN, LOG_STD.exp())}])
def test_mode_is_played_instead_of_a_sample(extras: dict[str, Any]) -> None:
    assert read((DRAWN, extras), PLANE).actions.tolist() == MEAN.tolist()
    assert read((DRAWN, extras), PLANE, deterministic=False).actions.tolist() == DRAWN.tolist()
    assert read({"action": DRAWN, "mean_actions": MEAN}, PLANE).actions.tolist() == MEAN.tolist()


@pytest.mark.parametrize("extras", [{}, {"hidden": MEAN}, {"mean": MEAN, "log_std": LOG_STD}, {"log_prob": MEAN}])
def test_action_without_a_mode_beside_it_is_played(extras: dict[str, Any]) -> None:
    """A mean without further information may be that before a tanh."""
    assert read((DRAWN, extras), PLANE).actions.tolist() == DRAWN.tolist()


def test_value_of_the_critic_is_kept_and_q_of_the_sample_is_not_that_of_the_mode() -> None:
    extras = {"logits": LOGITS, "value": torch.tensor([[3.0], [4.0]]), "q_value": torch.tensor([5.0, 6.0])}
    step = read((SAMPLES, extras))
    assert step.values is not None
    assert step.values.tolist() == [3, 4]
    assert step.chosen_q is None
    sampled = read((SAMPLES, extras), deterministic=False)
    assert sampled.chosen_q is not None
    assert sampled.chosen_q.tolist() == [5, 6]


@pytest.mark.parametrize("deterministic", [True, False])
def test_squashed_mean_is_the_action_of_networks_of_d3rlpy(deterministic: bool) -> None:
    """They return the numbers before the tanh first."""
    step = read(ActionOutput(3 * MEAN, torch.tanh(3 * MEAN), None), PLANE, deterministic=deterministic)
    assert step.actions.tolist() == torch.tanh(3 * MEAN).tolist()


def test_deterministic_evaluation_of_a_model_that_samples_is_that_of_its_mode_without_a_warning() -> None:
    def act(observations: torch.Tensor) -> Any:  # as skrl's GaussianMixin.act
        mean = torch.tanh(observations[:, :1])
        drawn = Normal(mean, 1.0).sample()
        return drawn, {"log_std": torch.zeros(1), "log_prob": -drawn, "mean_actions": mean}

    def mode(observations: torch.Tensor) -> Any:
        return torch.tanh(observations[:, :1])

    (first, second), messages = evaluated(act, env="Pendulum-v1", episodes=2)
    expected, _ = evaluated(mode, env="Pendulum-v1", episodes=2)
    assert messages == []
    assert [first.total_return, second.total_return] == [each.total_return for each in expected]
