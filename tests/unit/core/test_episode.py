from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest

from rlwandb_callbacks.core.episode import Episode, Gaussian, Probabilities, QValues, row_of, stack_scores

MakeEpisode = Callable[..., Episode]


@pytest.mark.parametrize(
    ("rewards", "gamma", "expected"),
    [
        ([1.0, 2.0, 4.0], 0.5, 3.0),
        ([1.0, 2.0, 4.0], 1.0, 7.0),
        ([1.0, 2.0, 4.0], 0.0, 1.0),
        ([-1.0, 10.0], 0.9, 8.0),
        ([5.0], 0.3, 5.0),
        ([], 0.9, 0.0),
    ],
)
def test_discounted_return(make_episode: MakeEpisode, rewards: list[float], gamma: float, expected: float) -> None:
    assert make_episode(rewards).discounted_return(gamma) == pytest.approx(expected)


def test_length_and_return_are_python_numbers(make_episode: MakeEpisode) -> None:
    episode = make_episode([1.0, -3.0])
    assert (episode.length, episode.total_return) == (2, -2.0)
    assert type(episode.total_return) is float


@pytest.mark.parametrize(("gamma", "expected"), [(1.0, -np.inf), (0.9, -np.inf), (0.0, 0.0)])
def test_an_infinite_reward_late_in_a_long_episode(make_episode: MakeEpisode, gamma: float, expected: float) -> None:
    rewards = np.zeros(20_000)
    rewards[10_000] = -np.inf  # 0.9 ** 10_000 is 0 in double precision
    assert make_episode(rewards).discounted_return(gamma) == expected


@pytest.mark.parametrize(("dtype", "count", "reward"), [(np.float16, 2, 4e4), (np.float32, 1_000_000, 0.1)])
def test_returns_are_sums_in_double_precision(dtype: Any, count: int, reward: float) -> None:
    rewards = np.full(count, reward, dtype=dtype)
    episode = Episode(actions=np.zeros(count), rewards=rewards, terminated=True)
    assert episode.total_return == pytest.approx(count * float(rewards[0]), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "wrong", "expected"),
    [
        ("actions", np.zeros(2), 3),
        ("values", np.zeros(4), 3),
        ("scores", QValues(np.zeros((2, 5))), 3),
        ("scores", Probabilities(np.zeros((1, 3))), 3),
        ("scores", Gaussian(np.zeros((4, 2)), np.zeros((4, 2))), 3),
        ("digests", np.zeros(3, np.uint32), 4),
        ("frames", np.zeros((3, 2, 2, 3), np.uint8), 4),
    ],
)
def test_unequal_lengths_are_errors(make_episode: MakeEpisode, name: str, wrong: Any, expected: int) -> None:
    with pytest.raises(
        ValueError, match=rf"Episode\.{name} has \d entries .* with 3 rewards it must have {expected}\."
    ):
        make_episode([0.0, 0.0, 0.0], **{name: wrong})


def test_equal_lengths_are_accepted(make_episode: MakeEpisode) -> None:
    episode = make_episode(
        [0.0, 0.0],
        actions=np.zeros((2, 6)),
        values=np.zeros(2),
        scores=Gaussian(np.zeros((2, 6)), np.ones((2, 6))),
        digests=np.zeros(3, np.uint32),
        frames=np.zeros((3, 4, 4, 3), np.uint8),
    )
    assert episode.length == 2


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"terminated": True}, "terminated"),
        ({"terminated": False, "truncated": True}, "truncated"),
        ({"terminated": True, "truncated": True}, "terminated"),
        ({"terminated": False, "truncated": True, "cut_at": 27_000}, "cut at 27,000 steps"),
    ],
)
def test_ending_as_text(make_episode: MakeEpisode, fields: dict[str, Any], expected: str) -> None:
    assert make_episode(**fields).ending == expected


def test_episodes_are_frozen(make_episode: MakeEpisode) -> None:
    with pytest.raises(FrozenInstanceError):
        make_episode().seed = 3


@pytest.mark.parametrize(
    "rows",
    [
        [QValues(np.array([1.0, 2.0])), QValues(np.array([3.0, 4.0]))],
        [Probabilities(np.array([0.2, 0.8]), "softmax of q-values"), Probabilities(np.array([1.0, 0.0]))],
        [Gaussian(np.array([1.0]), np.array([0.1])), Gaussian(np.array([2.0]), np.array([0.2]))],
    ],
)
def test_rows_of_stacked_scores_are_the_scores(rows: list[Any]) -> None:
    stacked = stack_scores(rows)
    for index, row in enumerate(rows):
        result = row_of(stacked, index)
        assert type(result) is type(row)
        for field in ("values", "mean", "std"):
            if hasattr(row, field):
                assert np.array_equal(getattr(result, field), getattr(row, field))


def test_stacked_probabilities_keep_their_source() -> None:
    assert stack_scores([Probabilities(np.ones(1), "softmax of q-values")]).source == "softmax of q-values"


def test_stacking_no_rows_gives_none() -> None:
    assert stack_scores([]) is None


def test_strided_observations_must_match_the_steps() -> None:
    fields = {"actions": np.zeros(5), "rewards": np.zeros(5), "terminated": True, "observation_stride": 2}
    assert Episode(**fields, observations=np.zeros((3, 4), np.float32)).length == 5
    with pytest.raises(ValueError, match=r"observations has 2 entries .* must have 3"):
        Episode(**fields, observations=np.zeros((2, 4), np.float32))
