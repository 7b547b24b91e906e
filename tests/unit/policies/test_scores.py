from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from rlwandb_callbacks.core.episode import Episode, Gaussian, Grouped, Probabilities, QValues, row_of, stack_scores
from rlwandb_callbacks.policies.scores import chosen_q, entropy, mean_chosen_q, mean_entropy

MakeEpisode = Callable[..., Episode]


def test_entropy_of_probabilities_by_hand() -> None:
    scores = Probabilities(np.array([[0.25] * 4, [1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]]))
    assert entropy(scores) == pytest.approx([math.log(4), 0.0, math.log(2)])


def test_entropy_of_a_gaussian_matches_torch() -> None:
    std = np.array([[0.5, 2.0], [1.0, 1.0]])
    expected = torch.distributions.Normal(0.0, torch.tensor(std)).entropy().sum(-1)
    assert entropy(Gaussian(np.zeros((2, 2)), std)) == pytest.approx(expected.numpy())


def test_entropy_of_a_gaussian_without_spread_is_minus_infinity() -> None:
    assert entropy(Gaussian(np.zeros((1, 1)), np.zeros((1, 1)))).tolist() == [-math.inf]


def test_reported_entropy_is_used() -> None:
    gaussian = Gaussian(np.zeros((2, 2)), np.ones((2, 2)), np.array([0.5, -1.0]))
    assert entropy(gaussian).tolist() == [0.5, -1.0]
    stacked = stack_scores([row_of(gaussian, 1), row_of(gaussian, 0)])
    assert entropy(stacked).tolist() == [-1.0, 0.5]


def test_q_values_have_no_entropy(make_episode: MakeEpisode) -> None:
    scores = QValues(np.ones((2, 2)))
    assert entropy(scores) is None
    assert mean_entropy([make_episode(scores=scores), make_episode()]) is None


def test_mean_entropy_weights_steps_equally(make_episode: MakeEpisode) -> None:
    sure, unsure = np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]])
    episodes = [
        make_episode([0.0] * 3, scores=Probabilities(sure.repeat(3, axis=0))),
        make_episode([0.0], scores=Probabilities(unsure)),
        make_episode([], scores=Probabilities(np.empty((0, 2)))),
    ]
    assert mean_entropy(episodes) == pytest.approx(math.log(2) / 4)


def test_mean_q_is_that_of_the_chosen_actions(make_episode: MakeEpisode) -> None:
    scores = QValues(np.array([[1.0, 100.0], [200.0, 3.0]]))
    chosen = make_episode(actions=np.array([0, 1]), scores=scores)
    other = make_episode([0.0], actions=np.array([1]), scores=QValues(np.array([[-50.0, 8.0]])))
    assert mean_chosen_q([chosen]) == 2.0
    assert mean_chosen_q([chosen, other, make_episode()]) == 4.0


def test_mean_q_respects_the_start_of_the_space(make_episode: MakeEpisode) -> None:
    episode = make_episode(actions=np.array([5, 6]), scores=QValues(np.array([[1.0, 9.0], [9.0, 2.0]])))
    assert mean_chosen_q([episode], first=5) == 1.5


def test_mean_q_is_none_without_q_values(make_episode: MakeEpisode) -> None:
    assert mean_chosen_q([make_episode(scores=Probabilities(np.ones((2, 1)))), make_episode()]) is None
    assert mean_chosen_q([make_episode([], scores=QValues(np.empty((0, 2))))]) is None


def test_entropy_of_a_multi_discrete_action_is_the_sum_over_dimensions() -> None:
    scores = Grouped((Probabilities(np.array([[0.5, 0.5], [1.0, 0.0]])), Probabilities(np.array([[0.25] * 4] * 2))))
    assert entropy(scores) == pytest.approx([math.log(2) + math.log(4), math.log(4)])
    assert entropy(Grouped((QValues(np.ones((2, 2))),))) is None


def test_mean_q_of_a_multi_discrete_action_averages_over_dimensions(make_episode: MakeEpisode) -> None:
    scores = Grouped((QValues(np.array([[1.0, 2.0]])), QValues(np.array([[10.0, 20.0, 30.0]]))))
    episode = make_episode([0.0], actions=np.array([[1, 5]]), scores=scores)
    assert mean_chosen_q([episode], first=[0, 5]) == (2.0 + 10.0) / 2


def test_chosen_q_of_the_critic_is_used(make_episode: MakeEpisode) -> None:
    episode = make_episode(actions=np.zeros((2, 3)), chosen_q=np.array([4.0, 6.0]))
    assert chosen_q(episode).tolist() == [4.0, 6.0]
    assert mean_chosen_q([episode]) == 5.0


@pytest.mark.parametrize("actions", [np.array([0, 7]), np.array([0, -1]), np.zeros((2, 3), int)])
def test_chosen_q_is_none_if_q_values_do_not_match_the_actions(make_episode: MakeEpisode, actions: np.ndarray) -> None:
    assert chosen_q(make_episode(actions=actions, scores=QValues(np.ones((2, 2))))) is None
