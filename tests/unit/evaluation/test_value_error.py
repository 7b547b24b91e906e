from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from rlwandb_callbacks.core.action_spec import ContinuousActions, DiscreteActions
from rlwandb_callbacks.core.episode import Episode, QValues
from rlwandb_callbacks.core.values import Image
from rlwandb_callbacks.evaluation.summary import Evaluation
from rlwandb_callbacks.evaluation.value_error import discounted_returns, has_known_return, value_errors

MakeEpisode = Callable[..., Episode]


def by_definition(rewards: np.ndarray, gamma: float) -> list[float]:
    steps = len(rewards)
    return [sum(gamma ** (k - t) * rewards[k] for k in range(t, steps)) for t in range(steps)]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.97, 1.0])
def test_returns_equal_their_definition(gamma: float) -> None:
    rewards = np.random.default_rng(3).normal(size=40)
    assert discounted_returns(rewards, gamma) == pytest.approx(by_definition(rewards, gamma), abs=1e-12)


def test_an_episode_without_steps_has_no_returns() -> None:
    assert discounted_returns(np.zeros(0), 0.9).shape == (0,)


@pytest.mark.parametrize("offset", [7.25, -3.5])
def test_bias_of_a_critic_that_is_off_by_a_constant(make_episode: MakeEpisode, offset: float) -> None:
    rewards = np.random.default_rng(0).normal(size=300)
    episode = make_episode(rewards, values=np.array(by_definition(rewards, 0.99)) + offset)
    errors = value_errors([episode], gamma=0.99)
    assert errors.bias == pytest.approx(offset, abs=1e-9)
    assert errors.absolute_error == pytest.approx(abs(offset), abs=1e-9)
    assert errors.numbers()["q/judged_share"] == 1.0


def test_errors_of_both_signs_cancel_only_in_the_bias(make_episode: MakeEpisode) -> None:
    errors = value_errors([make_episode([0.0, 0.0], values=np.array([3.0, -1.0]))], gamma=0.9)
    assert (errors.bias, errors.absolute_error) == (1.0, 2.0)


def test_steps_have_equal_weights(make_episode: MakeEpisode) -> None:
    episodes = [make_episode([0.0] * 3, values=np.ones(3)), make_episode([0.0], values=np.array([5.0]))]
    assert value_errors(episodes, gamma=0.9).bias == 2.0


def test_the_prediction_is_the_q_value_of_the_action_taken(make_episode: MakeEpisode) -> None:
    scores = QValues(np.array([[1.0, 100.0], [200.0, 3.0]]))
    episode = make_episode([0.0, 0.0], actions=np.array([5, 6]), scores=scores)
    errors = value_errors([episode], gamma=0.9, first=5)
    assert (errors.predictions.tolist(), errors.quantity) == ([1.0, 3.0], "Q(s, a)")


def test_q_values_take_precedence_over_state_values(make_episode: MakeEpisode) -> None:
    episode = make_episode([0.0, 0.0], values=np.full(2, 50.0), chosen_q=np.array([1.0, 2.0]))
    assert value_errors([episode], gamma=0.9).predictions.tolist() == [1.0, 2.0]


def test_a_policy_without_predictions_has_no_errors(make_episode: MakeEpisode) -> None:
    assert value_errors([make_episode(), make_episode()], gamma=0.9) is None


def test_predictions_of_several_agents_are_not_compared_with_the_sum_of_their_rewards() -> None:
    team = Episode(
        actions=np.zeros((2, 1), np.int64),
        rewards=np.ones(2),
        terminated=True,
        scores=QValues(np.ones((2, 2))),
        agent_returns={"a": 1.0, "b": 1.0},
    )
    assert value_errors([team], gamma=0.9) is None
    assert value_errors([replace(team, agent_returns={})], gamma=0.9) is not None


@pytest.mark.parametrize(
    ("steps", "gamma", "last"),
    [(500, 0.99, 201), (200, 0.99, None), (200, 0.97, 101), (10, 0.0, 9), (10_000, 1.0, None)],
)
def test_only_steps_far_from_the_cut_have_a_known_return(
    make_episode: MakeEpisode, steps: int, gamma: float, last: int | None
) -> None:
    cut = make_episode(np.ones(steps), terminated=False, truncated=True)
    assert np.flatnonzero(has_known_return(cut, gamma)).tolist() == ([] if last is None else list(range(last + 1)))


def test_the_unknown_part_of_a_cut_episode_weighs_at_most_5_percent(make_episode: MakeEpisode) -> None:
    gamma = 0.99
    endless = 1 / (1 - gamma)
    cut = make_episode(np.ones(500), terminated=False, truncated=True, values=np.full(500, endless))
    errors = value_errors([cut], gamma=gamma)
    assert 0 < (errors.predictions - errors.returns).max() <= 0.05 * endless
    assert errors.judged_fraction == 202 / 500


def test_an_episode_that_terminated_when_it_was_cut_has_known_returns(make_episode: MakeEpisode) -> None:
    both = make_episode(np.ones(10), terminated=True, truncated=True)
    assert has_known_return(both, 0.99).all()


def test_without_judged_steps_only_the_judged_share_is_logged(make_episode: MakeEpisode) -> None:
    cut = make_episode(np.ones(10), terminated=False, truncated=True, values=np.zeros(10))
    evaluation = Evaluation([cut], 0.99, DiscreteActions(("a",)))
    assert {key: value for key, value in evaluation.numbers().items() if key.startswith("q/")} == {"q/judged_share": 0}
    assert "q/prediction_vs_return" not in evaluation.figures(with_returns=True)


def test_predictions_and_returns_that_are_not_finite_are_not_judged(make_episode: MakeEpisode) -> None:
    values = np.array([math.nan, math.inf, -math.inf, 4.0])
    non_finite = make_episode([0.0, math.nan, 0.0], values=np.zeros(3))  # leaves the last step
    errors = value_errors([make_episode([0.0] * 4, values=values), non_finite], gamma=0.9)
    assert errors.predictions.tolist() == [4.0, 0.0]
    assert errors.judged_fraction == 2 / 7


def test_episodes_without_a_prediction_count_as_not_judged(make_episode: MakeEpisode) -> None:
    errors = value_errors([make_episode([0.0], values=np.ones(1)), make_episode([0.0] * 3)], gamma=0.9)
    assert (errors.bias, errors.judged_fraction) == (1.0, 0.25)


def test_huge_predictions_give_numbers_and_a_figure(make_episode: MakeEpisode) -> None:
    episode = make_episode([-1e308, 0.0], values=np.array([1.7e308, -1.7e308]))
    evaluation = Evaluation([episode], 1.0, DiscreteActions(("a",)))
    assert math.isinf(evaluation.numbers()["q/abs_error"])
    assert isinstance(evaluation.figures(with_returns=False)["q/prediction_vs_return"], Image)


@pytest.mark.parametrize("actions", [DiscreteActions(("l", "r")), ContinuousActions(-np.ones(1), np.ones(1))])
def test_the_evaluation_has_numbers_and_a_figure(
    make_episode: MakeEpisode, actions: DiscreteActions | ContinuousActions
) -> None:
    evaluation = Evaluation([make_episode([1.0, 2.0], chosen_q=np.array([3.0, 3.0]))], 0.5, actions)
    numbers = evaluation.numbers()
    assert (numbers["q/bias"], numbers["q/abs_error"], numbers["q/mean"]) == (1.0, 1.0, 3.0)
    picture = evaluation.figures(with_returns=False)["q/prediction_vs_return"]
    assert picture.caption == "Q(s, a) against the discounted return, 2 of 2 steps"


def test_nothing_is_compared_without_a_discount_factor(make_episode: MakeEpisode) -> None:
    evaluation = Evaluation([make_episode(values=np.ones(2))], None, DiscreteActions(("a",)))
    assert not [key for key in evaluation.numbers() if key.startswith("q/")]
    assert "q/prediction_vs_return" not in evaluation.figures(with_returns=True)
    assert evaluation.numbers()["eval/return_discounted_mean"] == 1.99
