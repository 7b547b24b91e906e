"""Distributions over some of the environment's actions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torch.distributions import Categorical
from torchrl.modules import MaskedCategorical, MaskedOneHotCategorical, OneHotCategorical, ProbabilisticActor
from torchrl.modules.distributions import LLMMaskedCategorical, OneHotOrdinal, Ordinal

from rlwandb_callbacks.core.episode import Grouped, PolicyStep, Probabilities
from rlwandb_callbacks.policies.output_reader import OutputReader
from rlwandb_callbacks.policies.runner import adapter_for
from rlwandb_callbacks.policies.scores import entropy

LOGITS = torch.tensor([[1.0, 5.0, 2.0], [4.0, 1.0, 3.0]])
THREE = spaces.Discrete(3)


def read(
    output: Any, space: spaces.Space[Any] = THREE, *, deterministic: bool = True, batch_size: int = 2
) -> PolicyStep:
    return OutputReader(space, True, "unknown", deterministic).read(output, batch_size)


def softmax_over(allowed: list[list[int]], logits: torch.Tensor = LOGITS) -> np.ndarray:
    probabilities = np.zeros(logits.shape)
    for row, (indices, values) in enumerate(zip(allowed, logits.tolist(), strict=True)):
        total = sum(math.exp(values[index]) for index in indices)
        for index in indices:
            probabilities[row, index] = math.exp(values[index]) / total
    return probabilities


@pytest.mark.parametrize("kind", [MaskedCategorical, MaskedOneHotCategorical])
@pytest.mark.parametrize(
    "allowed",
    [[[0, 2], [1, 2]], [[2, 0], [2, 1]], [[2, 0, 1], [1, 2, 0]], [[2], [1]]],
    ids=["some", "in another order", "all in another order", "one"],
)
def test_probabilities_of_indices_are_those_of_the_environments_actions(kind: Any, allowed: list[list[int]]) -> None:
    policy = kind(logits=LOGITS, indices=torch.tensor(allowed))
    expected = softmax_over(allowed)
    step = read(policy)
    assert isinstance(step.scores, Probabilities)
    assert step.scores.values == pytest.approx(expected)
    assert step.actions.tolist() == expected.argmax(axis=1).tolist()
    mode = policy.mode.argmax(dim=-1) if kind is MaskedOneHotCategorical else policy.mode
    assert step.actions.tolist() == mode.tolist(), "as TorchRL plays it"
    assert entropy(step.scores) == pytest.approx(policy.entropy().numpy(), abs=1e-6)


def test_samples_of_indices_are_allowed_actions() -> None:
    policy = MaskedCategorical(logits=torch.zeros(2, 3), indices=torch.tensor([[0, 2], [2, 1]]))
    torch.manual_seed(0)
    actions = np.stack([read(policy, deterministic=False).actions for _ in range(50)])
    assert [set(column) for column in actions.T.tolist()] == [{0, 2}, {1, 2}]


@pytest.mark.parametrize("padding", [-1, 7])
def test_padding_of_indices_has_no_probability(padding: int) -> None:
    policy = MaskedCategorical(
        logits=LOGITS, indices=torch.tensor([[2, 1, padding], [1, padding, padding]]), padding_value=padding
    )
    assert read(policy).scores.values == pytest.approx(softmax_over([[2, 1], [1]]))


@pytest.mark.parametrize("kind", [MaskedCategorical, MaskedOneHotCategorical])
def test_probabilities_of_a_mask(kind: Any) -> None:
    policy = kind(logits=LOGITS, mask=torch.tensor([[True, False, True], [False, True, True]]))
    step = read(policy)
    assert step.scores.values == pytest.approx(softmax_over([[0, 2], [1, 2]]))
    assert step.actions.tolist() == [2, 2]


@pytest.mark.parametrize("kind", [OneHotCategorical, Ordinal, OneHotOrdinal])
def test_probabilities_of_other_distributions_of_torchrl(kind: Any) -> None:
    policy = kind(LOGITS)
    step = read(policy)
    assert step.scores.values == pytest.approx(policy.probs.numpy())
    mode = policy.mode
    assert step.actions.tolist() == (mode if kind is Ordinal else mode.argmax(dim=-1)).tolist()


def test_positions_count_from_the_first_action_of_the_space() -> None:
    policy = MaskedCategorical(logits=LOGITS, indices=torch.tensor([[0, 2], [1, 2]]))
    assert read(policy, spaces.Discrete(3, start=5)).actions.tolist() == [7, 7]


def test_indices_of_several_dimensions() -> None:
    policy = MaskedCategorical(logits=LOGITS[None], indices=torch.tensor([[[0, 2], [1, 2]]]))
    step = read(policy, spaces.MultiDiscrete([3, 3]), batch_size=1)
    assert isinstance(step.scores, Grouped)
    expected = softmax_over([[0, 2], [1, 2]])
    assert [group.values[0].tolist() for group in step.scores.groups] == [
        pytest.approx(expected[0]),
        pytest.approx(expected[1]),
    ]


def test_masked_tokens_are_not_played() -> None:
    mask = torch.tensor([[[True, False, True], [False, True, True]]])
    step = read(LLMMaskedCategorical(LOGITS[None], mask), spaces.MultiDiscrete([3, 3]), batch_size=1)
    assert step.actions.tolist() == [[2, 2]]
    assert step.scores.groups[0].values == pytest.approx(softmax_over([[0, 2], [1, 2]])[:1])


class Subset(Categorical):
    """A user's distribution over some actions, whose samples and ``log_prob`` count those of the environment."""

    def __init__(self, logits: torch.Tensor, indices: torch.Tensor) -> None:
        self.indices = indices
        super().__init__(logits=logits.gather(-1, indices))

    def sample(self, sample_shape: Any = ()) -> torch.Tensor:
        sampled = super().sample(sample_shape)[..., None]
        return self.indices.expand(*sampled.shape[:-1], -1).gather(-1, sampled)[..., 0]

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        is_value = self.indices == value[..., None]
        found = super().log_prob(is_value.int().argmax(dim=-1))
        return torch.where(is_value.any(dim=-1), found, -math.inf)


def test_users_distribution_over_some_actions_is_read_by_its_log_prob() -> None:
    step = read(Subset(LOGITS, torch.tensor([[0, 2], [1, 2]])))
    assert step.scores.values == pytest.approx(softmax_over([[0, 2], [1, 2]]))


def test_actor_of_torchrl_with_indices_from_the_observation() -> None:
    body = TensorDictModule(nn.Identity(), in_keys=["scores"], out_keys=["logits"])
    actor = ProbabilisticActor(
        body, in_keys={"logits": "logits", "indices": "allowed"}, distribution_class=MaskedCategorical
    )
    observations = {"scores": LOGITS.numpy(), "allowed": np.array([[0, 2], [1, 2]])}
    reader = OutputReader(THREE, action_logger=True, tensor_meaning="unknown", deterministic=True)
    step = adapter_for(actor, nn.Module(), reader).act(observations, np.ones(2, dtype=bool))
    assert step.actions.tolist() == [2, 2]
    assert step.actions.tolist() == actor(TensorDict(to_tensors(observations), [2]))["action"].tolist()
    assert step.scores.values == pytest.approx(softmax_over([[0, 2], [1, 2]]))


def to_tensors(observations: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {key: torch.as_tensor(value) for key, value in observations.items()}
