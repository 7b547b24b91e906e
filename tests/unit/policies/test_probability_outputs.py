"""Scores without a name that are probabilities in every batch, as those of a network that ends in a softmax."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from evaluations import evaluated
from gymnasium import spaces
from torch import nn

from rlwandb_callbacks.config import EvaluationConfig, WandbRLConfig
from rlwandb_callbacks.core.episode import Episode, PolicyStep, Probabilities, QValues, groups_of
from rlwandb_callbacks.evaluation.evaluator import Evaluator
from rlwandb_callbacks.evaluation.preserved_state import preserved_state
from rlwandb_callbacks.policies.multi_agent import MultiAgentOutputReader
from rlwandb_callbacks.policies.output_reader import OutputReader
from rlwandb_callbacks.policies.scores import mean_entropy

TWO = spaces.Discrete(2)
HEADS = spaces.MultiDiscrete([2, 3])
SWITCHES = spaces.MultiBinary(4)
P, HEAD = [0.9, 0.1], [0.7, 0.2, 0.1]
ENTROPY, HEAD_ENTROPY = 0.325083, 0.801819  # -Σ p ln p


class ShareEnv(gym.Env[Any, Any]):
    """Pays for each step the share of the action's dimensions that are 0; 50 steps with random observations."""

    observation_space = spaces.Box(-3.0, 3.0, (4,), np.float32)

    def __init__(self, action_space: spaces.Space[Any]) -> None:
        self.action_space = action_space

    def _observation(self) -> Any:
        return self.np_random.normal(size=4).clip(-3, 3).astype(np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._steps = 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        return self._observation(), float(np.mean(np.asarray(action) == 0)), False, self._steps == 50, {}


def rows(probabilities: list[float]) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda observations: torch.tensor([probabilities] * len(observations))


def share_of_zeros(episodes: Iterable[Episode]) -> float:
    return float(np.mean([episode.rewards.mean() for episode in episodes]))


def sampled(policy: Any, space: spaces.Space[Any] = TWO, **settings: Any) -> tuple[list[Episode], list[str]]:
    return evaluated(policy, env=partial(ShareEnv, space), episodes=40, deterministic=False, **settings)


@pytest.mark.parametrize(
    "policy",
    [
        rows(P),
        lambda observations: rows(P)(observations).to(torch.bfloat16),
        lambda observations: (rows(P)(observations), None),
        lambda observations: (rows(P)(observations), observations.sum(dim=1)),  # V(s)
        lambda observations: rows(P)(observations).numpy(),
    ],
)
def test_probabilities_are_sampled_as_they_are(policy: Any) -> None:
    episodes, messages = sampled(policy)
    assert share_of_zeros(episodes) == pytest.approx(0.9, abs=0.03)  # 0.69 if they were logits
    assert mean_entropy(episodes) == pytest.approx(ENTROPY, abs=0.01)
    assert messages == []


@pytest.mark.parametrize(
    "policy",
    [
        lambda observations: [rows(P)(observations), rows(HEAD)(observations)],
        lambda observations: (rows(P)(observations), rows(HEAD)(observations)),
        rows(P + HEAD),
        lambda observations: ((rows(P)(observations), rows(HEAD)(observations)), None),
    ],
)
def test_probabilities_of_each_dimension_are_sampled_as_they_are(policy: Any) -> None:
    episodes, messages = sampled(policy, HEADS)
    assert share_of_zeros(episodes) == pytest.approx((0.9 + 0.7) / 2, abs=0.03)
    assert mean_entropy(episodes) == pytest.approx(ENTROPY + HEAD_ENTROPY, abs=1e-4)
    assert messages == []


def test_network_named_actor_that_ends_in_a_softmax_plays_its_probabilities() -> None:
    module: Any = nn.Module()
    module.actor = nn.Sequential(nn.Linear(4, 2), nn.Softmax(dim=-1))
    nn.init.zeros_(module.actor[0].weight)
    module.actor[0].bias.data = torch.tensor(P).log()
    episodes, messages = sampled("actor", module=module)
    assert share_of_zeros(episodes) == pytest.approx(0.9, abs=0.03)
    assert episodes[0].scores.values[0] == pytest.approx(P)
    assert messages == []


@pytest.mark.parametrize("output", ["sigmoid", "actions"])
def test_numbers_from_0_to_1_are_probabilities_of_switches(output: str) -> None:
    torch.manual_seed(0)
    network = nn.Linear(4, 4)

    def policy(observations: torch.Tensor) -> torch.Tensor:
        probabilities = network(observations).sigmoid()
        return probabilities if output == "sigmoid" else (probabilities > 0.5).float()

    (first,), messages = evaluated(policy, env=partial(ShareEnv, SWITCHES), episodes=1, module=network)
    assert {0, 1} == set(np.unique(first.actions))  # only 1 if they were logits
    assert messages == []


def test_actions_of_switches_are_not_sampled_again() -> None:
    floats, _ = sampled(lambda observations: (observations > 0).float(), SWITCHES)
    integers, _ = sampled(lambda observations: (observations > 0).int(), SWITCHES)
    assert [each.total_return for each in floats] == [each.total_return for each in integers]


def reader(action_logger: bool | str = True, meaning: str = "unknown", space: Any = TWO) -> OutputReader:
    return OutputReader(space, action_logger, meaning, deterministic=True)


def read(output: list[list[float]], by: OutputReader) -> PolicyStep:
    return by.read(torch.tensor(output), len(output))


@pytest.mark.parametrize(
    ("output", "are_probabilities"),
    [
        ([P, [0.5, 0.5]], True),
        ([P, [1.0, 0.0]], True),  # a mask
        ([P], True),
        ([P, [0.5, 0.51]], False),
        ([P, [1.1, -0.1]], False),
        ([P, [float("nan"), 0.5]], False),
    ],
)
@pytest.mark.parametrize("meaning", ["unknown", "logits"])
def test_all_rows_of_probabilities_are_not_negative_and_sum_to_1(
    output: list[list[float]], are_probabilities: bool, meaning: str
) -> None:
    scores = read(output, reader(meaning=meaning)).scores
    shows_output = type(scores) is Probabilities and np.allclose(scores.values, output)
    assert shows_output == are_probabilities


def test_rounding_of_half_precision_is_allowed() -> None:
    logits = torch.linspace(-3, 3, 21).repeat(2, 1)
    for dtype in (torch.float16, torch.bfloat16):
        probabilities = logits.softmax(dim=-1).to(dtype)
        scores = reader(space=spaces.Discrete(21)).read(probabilities.float(), 2).scores
        assert type(scores) is Probabilities
        assert scores.values == pytest.approx(probabilities.double().numpy())


def test_logits_that_look_like_probabilities_in_one_batch_stay_logits() -> None:
    by = reader(meaning="logits")
    read([[3.0, -1.0]], by)
    scores = read([P], by).scores
    assert scores.values == pytest.approx(np.array([[0.689974, 0.310026]]), abs=1e-6)  # the softmax
    assert by.notes == set()


def test_probabilities_that_prove_to_be_logits_are_logits_from_then_on_with_a_note() -> None:
    by = reader(meaning="logits")
    assert read([P], by).scores.values == pytest.approx(np.array([P]))
    for output in ([[3.0, -1.0]], [P]):
        expected = np.exp(output) / np.exp(output).sum()
        assert read(output, by).scores.values == pytest.approx(expected)
    (note,) = by.notes
    assert "those of a later batch do not" in note


def test_logits_that_look_like_probabilities_in_a_whole_evaluation_stay_logits() -> None:
    is_dry_run = True

    def policy(observations: torch.Tensor) -> torch.Tensor:
        return rows([3.0, -1.0] if is_dry_run else P)(observations)

    policy.__name__ = "policy"
    settings = EvaluationConfig(env=partial(ShareEnv, TWO), policy=policy, episodes=2)
    with preserved_state(nn.Module(), seed=0, policy=policy):
        evaluator = Evaluator(WandbRLConfig(evaluation=settings), nn.Module(), lambda *_, **__: None)
        is_dry_run = False
        (first, _) = evaluator.play()
    assert first.episode.scores.values[0] == pytest.approx([0.689974, 0.310026], abs=1e-6)


def test_q_values_are_kept_where_the_user_says_so() -> None:
    by = reader("q_value")
    assert type(read([P], by).scores) is QValues
    assert by.notes == set()


def test_q_values_by_name_that_are_probabilities_are_kept_with_a_note() -> None:
    by = reader(meaning="q_values")
    assert type(read([P], by).scores) is QValues
    assert by.notes == set()  # a constant may be a q-value too
    read(torch.linspace(-2, 2, 24).reshape(12, 2).cumsum(dim=0).softmax(dim=1).tolist(), by)
    read([[2.0, 1.0]], by)
    (note,) = by.notes
    assert "read as q-values because of the name" in note


def test_named_scores_have_the_meaning_of_their_name() -> None:
    by = reader()
    softmax = [[0.689974, 0.310026]]
    assert by.read({"logits": torch.tensor([P])}, 1).scores.values == pytest.approx(np.array(softmax), abs=1e-6)
    distribution = torch.distributions.Categorical(logits=torch.tensor([P]))
    (group,) = groups_of(by.read(distribution, 1).scores)
    assert group.values == pytest.approx(np.array(softmax), abs=1e-6)


def test_meaning_is_decided_for_each_agent() -> None:
    readers = {"first": reader(meaning="logits"), "second": reader(meaning="logits")}
    outputs = {"first": torch.tensor([P]), "second": torch.tensor([[2.0, 0.0]])}
    first, second = groups_of(MultiAgentOutputReader(readers).read(outputs, 1).scores)
    assert first.values == pytest.approx(np.array([P]))
    assert second.values == pytest.approx(np.array([[0.880797, 0.119203]]), abs=1e-6)
