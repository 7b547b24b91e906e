from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from rlwandb_callbacks.datasets import open_dataset
from rlwandb_callbacks.datasets.episode_boundaries import EpisodeBoundaries, StepBlock, boundary_warnings, find_episodes


def block(rewards: Any, terminated: Any, truncated: Any, last: Any = None) -> StepBlock:
    terminated, truncated = np.asarray(terminated, dtype=bool), np.asarray(truncated, dtype=bool)
    last = terminated | truncated if last is None else np.asarray(last, dtype=bool)
    return StepBlock(rewards=np.asarray(rewards, dtype=float), terminated=terminated, truncated=truncated, last=last)


def of_lengths(lengths: list[int], *, by: str = "terminated") -> EpisodeBoundaries:
    last = np.zeros(sum(lengths), dtype=bool)
    last[np.cumsum(lengths) - 1] = True
    none = np.zeros(len(last), dtype=bool)
    return find_episodes([block(none, last if by == "terminated" else none, last if by == "truncated" else none)])


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 400])
def test_block_size_changes_nothing(size: int) -> None:
    rng = np.random.default_rng(1)
    rewards, terminated, truncated = rng.normal(size=400), rng.random(400) < 0.05, rng.random(400) < 0.05
    found = find_episodes(
        block(rewards[low : low + size], terminated[low : low + size], truncated[low : low + size])
        for low in range(0, 400, size)
    )
    edges = [0, *(np.flatnonzero(terminated | truncated) + 1).tolist(), 400]
    edges = sorted(set(edges))
    assert found.starts.tolist() == edges[:-1]
    assert found.summaries.lengths.tolist() == np.diff(edges).tolist()
    expected = [rewards[low:high].sum() for low, high in itertools.pairwise(edges)]
    np.testing.assert_allclose(found.summaries.returns, expected, atol=1e-12)
    ends = np.array(edges[1:]) - 1
    np.testing.assert_array_equal(found.summaries.terminated, terminated[ends])
    np.testing.assert_array_equal(found.summaries.truncated, truncated[ends])


def test_the_last_episode_may_lack_its_end_and_a_nan_stays_in_its_episode() -> None:
    found = find_episodes([block([1, np.nan, 2, 3, 4], [0, 1, 0, 1, 0], [0] * 5)]).summaries
    assert found.lengths.tolist() == [2, 2, 1]
    assert np.isnan(found.returns[0])
    assert found.returns[1:].tolist() == [5.0, 4.0]
    assert found.terminated.tolist() == [True, True, False]
    assert not found.truncated.any()


@pytest.mark.parametrize(
    ("lengths", "marks_timeouts", "part"),
    [
        ([200, 768_000, 300], False, "Episode 1 has 768,000 steps, which is a bug in the file"),
        ([200, 768_000, 300], True, "Episode 1 has 768,000 steps, and no step is marked as cut off by a time limit"),
        ([768_000] * 3, True, "768,000 steps"),
        ([100] * 30 + [6_000], False, "no time limits"),
        ([1] * 50, True, "Every step is marked"),
        ([100, 1, 80, 1], True, "the row of its last observation"),
        ([200] * 10, False, "done after exactly 200 steps: probably a time limit"),
    ],
)
def test_ends_that_look_wrong_are_reported(lengths: list[int], marks_timeouts: bool, part: str) -> None:
    (warning,) = boundary_warnings(of_lengths(lengths), marks_timeouts=marks_timeouts)
    assert part in warning
    assert warning.endswith(".")


@pytest.mark.parametrize(
    ("lengths", "by", "marks_timeouts"),
    [
        ([1000] * 20, "truncated", True),
        ([1000] * 20, "terminated", True),
        ([150_000, 100], "truncated", True),
        ([10, 500, 20, 9], "terminated", False),
        ([100] * 30 + [6_000], "terminated", True),
        ([3, 1, 4, 1], "terminated", True),
    ],
)
def test_plausible_ends_are_not_reported(lengths: list[int], by: str, marks_timeouts: bool) -> None:
    assert boundary_warnings(of_lengths(lengths, by=by), marks_timeouts=marks_timeouts) == ()


def test_an_open_last_step_is_not_called_the_row_of_a_last_observation() -> None:
    last = np.isin(np.arange(22), [9, 10, 20])
    found = find_episodes([block(last, last, last & False)])
    assert found.summaries.lengths.tolist() == [10, 1, 10, 1]
    assert boundary_warnings(found, marks_timeouts=True) == ()


def test_missing_ends_and_ends_within_episodes_are_reported() -> None:
    (none,) = boundary_warnings(find_episodes([block([0] * 9, [0] * 9, [0] * 9)]), marks_timeouts=True)
    assert "all 9 steps count as one episode" in none
    inside = find_episodes([block([0] * 3, [1, 1, 0], [0, 0, 1], last=[0, 0, 1])])
    assert inside.marks_inside == 2
    assert "2 steps are marked" in boundary_warnings(inside, marks_timeouts=True)[0]


def test_warnings_about_one_step_are_singular() -> None:
    (none,) = boundary_warnings(find_episodes([block([0], [0], [0])]), marks_timeouts=True)
    assert "the only step counts as one episode" in none
    (inside,) = boundary_warnings(find_episodes([block([0] * 2, [1, 0], [0, 1], last=[0, 1])]), marks_timeouts=True)
    assert inside == "1 step is marked as the end of an episode although its episode goes on in the file."


LONG = 150_000  # steps of 83 minutes of a robot at 30 frames a second
COUNT = 2 * LONG
LAST = np.arange(COUNT) % LONG == LONG - 1
TOLD: dict[str, dict[str, Any]] = {
    "ids": {"episode_ids": np.repeat([0, 1], LONG)},
    "one id": {"episode_index": np.zeros(COUNT, int)},
    "lengths": {"terminals": LAST, "episode_lengths": np.array([LONG, LONG])},
    "cumulative ends": {"episode_ends": np.array([LONG, COUNT])},
    "first steps": {"is_first": np.roll(LAST, 1)},
    "time limits": {"terminals": LAST & False, "timeouts": LAST},
}


@pytest.mark.parametrize("marks", TOLD.values(), ids=TOLD.keys())
def test_long_episodes_are_not_doubted_where_marks_tell_of_them(marks: dict[str, Any]) -> None:
    rows = np.arange(COUNT, dtype=np.float32)
    data = open_dataset({"observations": rows[:, None], "actions": rows[:, None], "rewards": rows} | marks)
    assert data.episodes().lengths.tolist() == ([COUNT] if "episode_index" in marks else [LONG, LONG])
    assert data.warnings == ()


@pytest.mark.parametrize("is_cut", [True, False])
def test_long_episodes_are_not_doubted_where_each_is_a_group(is_cut: bool, write_hdf5: Any) -> None:
    last = np.arange(LONG) == LONG - 1
    episode = {"observations": np.zeros((LONG + 1, 1)), "actions": np.ones((LONG, 1)), "rewards": np.ones(LONG)}
    episode |= {"terminations": last & False, "truncations": last & is_cut}
    data = open_dataset(write_hdf5({"episode_0": episode}))
    assert data.episodes().lengths.tolist() == [LONG]
    assert data.warnings == ()


def test_long_episodes_are_doubted_where_only_terminal_states_are_marked() -> None:
    rows = np.arange(COUNT, dtype=np.float32)
    data = open_dataset({"obs": rows[:, None], "action": rows[:, None], "reward": rows, "terminal": LAST})
    warning, _ = data.warnings
    assert "Episode 0 has 150,000 steps" in warning
    assert "save episode_ids beside it" in warning
