from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from rlwandb_callbacks.core.action_spec import ContinuousActions, DiscreteActions, OtherActions
from rlwandb_callbacks.core.episode import Episode, Probabilities, QValues
from rlwandb_callbacks.core.values import Histogram, Image, Table
from rlwandb_callbacks.evaluation.summary import Evaluation, action_histograms, infer_action_spec

MakeEpisode = Callable[..., Episode]
LEFT_RIGHT = DiscreteActions(("left", "right"))


def test_numbers_of_a_q_policy(make_episode: MakeEpisode) -> None:
    scores = QValues(np.array([[1.0, 9.0], [9.0, 3.0]]))
    numbers = Evaluation([make_episode(actions=np.array([0, 1]), scores=scores)], 0.5, LEFT_RIGHT).numbers()
    assert (numbers["eval/return_mean"], numbers["eval/return_discounted_mean"]) == (2.0, 1.5)
    assert numbers["q/mean"] == 2.0
    assert "policy/entropy" not in numbers


def test_numbers_of_a_stochastic_policy(make_episode: MakeEpisode) -> None:
    episode = make_episode(scores=Probabilities(np.full((2, 2), 0.5)))
    numbers = Evaluation([episode], 1.0, LEFT_RIGHT).numbers()
    assert numbers["policy/entropy"] == pytest.approx(math.log(2))
    assert "q/mean" not in numbers


def test_q_values_are_read_from_the_first_action_of_the_space(make_episode: MakeEpisode) -> None:
    episode = make_episode(actions=np.array([4, 5]), scores=QValues(np.array([[1.0, 9.0], [9.0, 3.0]])))
    assert Evaluation([episode], 1.0, DiscreteActions(("a", "b"), first=4)).numbers()["q/mean"] == 2.0


def test_distributions_and_figures_have_returns_only_if_requested(make_episode: MakeEpisode) -> None:
    evaluation = Evaluation([make_episode([1.0, 2.0]), make_episode([5.0])], 1.0, LEFT_RIGHT)
    plain = evaluation.distributions(with_returns=False) | evaluation.figures(with_returns=False)
    full = evaluation.distributions(with_returns=True) | evaluation.figures(with_returns=True)
    assert {key: type(value) for key, value in plain.items()} == {
        "eval/episodes": Table,
        "policy/action_histogram": Histogram,
    }
    assert {key: type(full[key]) for key in full.keys() - plain.keys()} == {
        "eval/return_distribution": Histogram,
        "eval/return_figure": Image,
    }
    assert full["eval/return_distribution"].counts.sum() == 2
    assert full["eval/return_figure"].caption == "Returns of 2 evaluation episodes"


def test_returns_that_are_nan_have_a_figure_but_no_histogram(make_episode: MakeEpisode) -> None:
    evaluation = Evaluation([make_episode([math.nan])], 1.0, LEFT_RIGHT)
    assert "eval/return_distribution" not in evaluation.distributions(with_returns=True)
    figures = evaluation.figures(with_returns=True)
    assert {key: figure.caption for key, figure in figures.items()} == {
        "eval/return_figure": "Returns of 1 evaluation episodes; 1 NaN or infinite, not drawn"
    }


def test_discrete_actions_are_counted_over_all_episodes(make_episode: MakeEpisode) -> None:
    episodes = [make_episode(actions=np.array([7, 8])), make_episode([0.0], actions=np.array([8])), make_episode([])]
    counted = action_histograms(episodes, DiscreteActions(("a", "b", "c"), first=7))["policy/action_histogram"]
    assert counted.counts.tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("dimensions", "keys"),
    [
        (1, ["policy/action_histogram"]),
        (2, ["policy/action_histogram_0", "policy/action_histogram_1"]),
        (40, [f"policy/action_histogram_{index}" for index in range(18)]),
    ],
)
def test_continuous_actions_have_a_histogram_per_dimension(
    make_episode: MakeEpisode, dimensions: int, keys: list[str]
) -> None:
    bounds = np.ones(dimensions)
    actions = np.tile(np.arange(dimensions, dtype=np.float32), (2, 1))
    counted = action_histograms([make_episode(actions=actions)], ContinuousActions(-bounds, bounds))
    assert list(counted) == keys
    assert [value.edges.mean() for value in counted.values()] == list(range(len(keys)))


def test_other_actions_and_no_actions_have_no_histogram(make_episode: MakeEpisode) -> None:
    assert action_histograms([make_episode(actions=np.zeros((2, 3)))], OtherActions()) == {}
    assert action_histograms([make_episode([])], LEFT_RIGHT) == {}


@pytest.mark.parametrize(
    ("actions", "scores", "names"),
    [
        ([0, 2], None, ("0", "1", "2")),
        ([0, 0], None, ("0",)),
        ([0, 1], QValues(np.zeros((2, 4))), ("0", "1", "2", "3")),
    ],
)
def test_discrete_actions_are_inferred_from_actions_and_scores(
    make_episode: MakeEpisode, actions: list[int], scores: QValues | None, names: tuple[str, ...]
) -> None:
    inferred = infer_action_spec(
        [make_episode([0.0], actions=np.zeros(1, int)), make_episode(actions=np.array(actions), scores=scores)]
    )
    assert inferred == DiscreteActions(names)


def test_floats_are_inferred_as_an_unbounded_box(make_episode: MakeEpisode) -> None:
    inferred = infer_action_spec([make_episode(actions=np.zeros((2, 3), np.float32))])
    assert isinstance(inferred, ContinuousActions)
    assert inferred.low.tolist() == [-math.inf] * 3
    assert inferred.high.tolist() == [math.inf] * 3


def test_several_integers_per_step_are_inferred_as_other_actions(make_episode: MakeEpisode) -> None:
    assert infer_action_spec([make_episode(actions=np.zeros((2, 3), int))]) == OtherActions()


def test_discrete_actions_may_have_a_second_axis(make_episode: MakeEpisode) -> None:
    episode = make_episode(actions=np.array([[0], [1]]), scores=QValues(np.array([[1.0, 9.0], [9.0, 3.0]])))
    actions = infer_action_spec([episode])
    assert actions == DiscreteActions(("0", "1"))
    assert Evaluation([episode], 1.0, actions).numbers()["q/mean"] == 2.0


def test_episodes_without_steps_are_inferred_as_other_actions() -> None:
    empty = Episode(actions=np.zeros(0), rewards=np.zeros(0), terminated=True)
    assert infer_action_spec([empty]) == OtherActions()
