from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from rlwandb_callbacks.core.action_spec import ContinuousActions, DiscreteActions
from rlwandb_callbacks.core.episode import Episode, QValues
from rlwandb_callbacks.core.values import Image
from rlwandb_callbacks.evaluation.step_limit import StepLimit
from rlwandb_callbacks.evaluation.summary import Evaluation
from rlwandb_callbacks.evaluation.value_error import discounted_returns, horizon, num_judged_steps, value_errors

MakeEpisode = Callable[..., Episode]


def by_definition(rewards: np.ndarray, gamma: float) -> list[float]:
    steps = len(rewards)
    return [sum(gamma ** (k - t) * rewards[k] for k in range(t, steps)) for t in range(steps)]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.97, 1.0])
def test_returns_equal_their_definition(gamma: float) -> None:
    rewards = np.random.default_rng(3).normal(size=40)
    assert discounted_returns(rewards, gamma) == pytest.approx(by_definition(rewards, gamma), abs=1e-12)


def test_an_infinite_reward_does_not_change_the_return_before_it_without_a_future() -> None:
    assert discounted_returns(np.array([1.0, math.inf]), 0.0).tolist() == [1.0, math.inf]


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


def chain(
    make_episode: MakeEpisode,
    *,
    ends: float,
    limit: int,
    gamma: float = 0.99,
    reward: float = 1.0,
    episodes: int = 1500,
) -> tuple[list[Episode], float]:
    """Episodes with the same reward at each step, which end with a probability, and the exact value of every state."""
    value = reward / (1 - 0.99 * (1 - ends))
    lengths = np.random.default_rng(5).geometric(ends, size=episodes)
    return [
        make_episode(
            np.full(min(length, limit), reward),
            terminated=bool(length <= limit),
            truncated=bool(length > limit),
            values=np.full(min(length, limit), value),
        )
        for length in lengths
    ], value


def test_a_limit_that_cuts_before_the_stated_one_holds_for_later_evaluations(make_episode: MakeEpisode) -> None:
    episodes, _ = chain(make_episode, ends=0.01, limit=250)
    step_limit = StepLimit()
    limits = [step_limit.update(episodes[start : start + 5], known=(1000,)) for start in range(0, 1500, 5)]
    first = next(index for index, episode in enumerate(episodes) if episode.is_cut) // 5
    assert set(limits[:first]) <= {1000}
    assert set(limits[first:]) == {250}


@pytest.mark.parametrize("reward", [1.0, -1.0])
@pytest.mark.parametrize(("ends", "limit", "most"), [(0.01, 500, 0.5), (0.003, 500, 2.0), (0.001, 1000, 2.0)])
def test_an_exact_critic_has_no_bias(
    make_episode: MakeEpisode, ends: float, limit: int, most: float, reward: float
) -> None:
    episodes, value = chain(make_episode, ends=ends, limit=limit, reward=reward)
    errors = value_errors(episodes, gamma=0.99, limit=limit)
    assert abs(errors.bias) < most
    assert errors.bias * reward > -0.5  # what is unknown after the cut may only lower the return
    assert errors.absolute_error > 0.1 * abs(value)  # the chance of the episodes: no floor of 0


@pytest.mark.parametrize("limit", [None, 200])
def test_no_step_is_judged_if_episodes_are_cut_too_early_whether_they_ended_or_not(
    make_episode: MakeEpisode, limit: int | None
) -> None:
    episodes, _ = chain(make_episode, ends=0.01, limit=200, episodes=100)
    errors = value_errors(episodes, gamma=0.99, limit=limit)
    assert errors.numbers() == {"q/judged_share": 0.0}
    ended = [episode for episode in episodes if episode.terminated]
    assert value_errors(ended, gamma=0.99, limit=200).numbers() == {"q/judged_share": 0.0}
    assert value_errors(ended, gamma=0.99).judged_fraction == 1.0  # nothing shows a limit


def test_the_same_steps_of_all_episodes_are_judged(make_episode: MakeEpisode) -> None:
    ended, cut = (make_episode(np.ones(20), values=np.arange(20.0)) for _ in range(2))
    cut = replace(cut, terminated=False, truncated=True)
    errors = value_errors([ended, cut], gamma=0.5)  # 0.5 ** 5 is the first weight below 0.05
    assert errors.predictions.tolist() == [*range(16), *range(16)]
    assert value_errors([ended, cut], gamma=0.5, limit=12).predictions.tolist() == [*range(8), *range(8)]


def test_an_episode_cut_before_the_limit_limits_what_is_judged_of_all(make_episode: MakeEpisode) -> None:
    early = make_episode(np.ones(10), values=np.arange(10.0), terminated=False, truncated=True)
    ended = make_episode(np.ones(20), values=np.arange(20.0))
    assert value_errors([ended, early], gamma=0.5, limit=30).predictions.tolist() == [*range(6), *range(6)]


def test_without_discounting_only_episodes_that_nothing_cuts_are_judged(make_episode: MakeEpisode) -> None:
    ended, cut = make_episode(np.ones(3)), make_episode(np.ones(9), terminated=False, truncated=True)
    assert num_judged_steps([ended], gamma=1.0) == 3
    assert num_judged_steps([ended], gamma=1.0, limit=1000) == num_judged_steps([ended, cut], gamma=1.0) == 0


@pytest.mark.parametrize("gamma", [0.0, 0.05, 0.3, 0.5, 0.9, 0.99, 0.999])
def test_the_horizon_is_the_first_step_whose_weight_is_at_most_5_percent(gamma: float) -> None:
    steps = int(horizon(gamma))
    assert gamma**steps <= 0.05
    assert steps == 1 or gamma ** (steps - 1) > 0.05


def test_the_reason_is_said_why_nothing_is_judged(make_episode: MakeEpisode) -> None:
    ended = make_episode(np.ones(5), values=np.ones(5))
    evaluation = Evaluation([ended], 0.99, DiscreteActions(("a",)), step_limit=200)
    assert evaluation.describe_unjudged() == (
        "q/bias, q/abs_error and q/prediction_vs_return are not logged: with a discount factor of 0.99 the next 299 "
        "rewards have 95 % of the weight in the return of a step, and episodes are cut after 200. Let episodes last at "
        "least 299 steps."
    )
    assert "cut after 200 steps" in (replace(evaluation, gamma=1.0).describe_unjudged() or "")
    for judged in (
        {"gamma": 0.5},
        {"step_limit": None},
        {"gamma": None},
        {"episodes": [make_episode(np.ones(5))]},
        {"episodes": [make_episode(np.ones(0), values=np.ones(0))]},
    ):
        assert replace(evaluation, **judged).describe_unjudged() is None


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
    assert num_judged_steps([cut], gamma=gamma) == (0 if last is None else last + 1)
    ended = make_episode(np.ones(steps))
    assert num_judged_steps([ended], gamma=gamma, limit=steps) == (0 if last is None else last + 1)


def test_the_unknown_part_of_a_cut_episode_weighs_at_most_5_percent(make_episode: MakeEpisode) -> None:
    gamma = 0.99
    endless = 1 / (1 - gamma)
    cut = make_episode(np.ones(500), terminated=False, truncated=True, values=np.full(500, endless))
    errors = value_errors([cut], gamma=gamma)
    assert 0 < (errors.predictions - errors.returns).max() <= 0.05 * endless
    assert errors.judged_fraction == 202 / 500


def test_an_episode_that_terminated_when_it_was_cut_has_known_returns(make_episode: MakeEpisode) -> None:
    both = make_episode(np.ones(10), terminated=True, truncated=True)
    assert num_judged_steps([both], gamma=0.99) == 10


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
