from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.evaluation.observation_buffer import ObservationBuffer, flat
from rlwandb_callbacks.maps.data_map import DataMap
from rlwandb_callbacks.maps.ood_distance import measure_reference
from rlwandb_callbacks.maps.policy_on_map import MAX_STATES, VisitedStates, place, visited_states

MakeMap = Callable[..., DataMap]


def visits(observations: np.ndarray) -> VisitedStates:
    count = len(observations)
    flat_rows = np.asarray(observations, np.float32).reshape(count, -1)
    return VisitedStates(
        observations=flat_rows,
        episodes=np.zeros(count, np.int64),
        steps=np.arange(count),
        lengths=np.full(count, count),
    )


def walks(episodes: int, steps: int, seed: int) -> np.ndarray:
    """Slow random walks, in which neighbors in time are neighbors in space."""
    rng = np.random.default_rng(seed)
    starts = rng.normal(size=(episodes, 1, 3))
    return (starts + 0.02 * rng.normal(size=(episodes, steps, 3)).cumsum(axis=1)).reshape(-1, 3)


def test_nearest_states_are_found_exactly() -> None:
    rng = np.random.default_rng(0)
    queries, base = (rng.normal(size=(rows, 4)).astype(np.float32) for rows in (1_100, 70))
    indices, distances = measure_reference(base, np.arange(70)).nearest(queries, 3)
    expected = np.linalg.norm(queries[:, None].astype(np.float64) - base[None], axis=2)
    assert np.array_equal(indices, expected.argsort(axis=1)[:, :3])
    assert np.allclose(distances, np.sort(expected, axis=1)[:, :3])


def test_distances_between_states_are_exact_beside_an_outlier() -> None:
    rows = np.array([[0.0], [1.0], [3.0], [1e15]], np.float32)
    assert measure_reference(rows, np.zeros(4, np.int64)).distances[:3].tolist() == [1, 1, 2]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_ratio_is_near_one_for_new_episodes_of_the_same_kind(seed: int, make_data_map: MakeMap) -> None:
    data_map = make_data_map(walks(40, 25, seed=0), per_episode=25)
    assert 0.7 < place(visits(walks(40, 25, seed=seed)), data_map).ratio < 1.4


@pytest.mark.parametrize("per_episode", [10, 60, 600])
def test_the_ratio_is_one_for_all_states_of_the_data(per_episode: int, make_data_map: MakeMap) -> None:
    states = np.random.default_rng(0).normal(size=(600, 3))
    data_map = make_data_map(states, per_episode=per_episode)
    assert place(visits(states), data_map).ratio == pytest.approx(1, abs=0.05)
    assert place(visits(states[::7]), data_map).ratio == pytest.approx(1, abs=0.3)


def test_the_ratio_grows_with_the_distance_from_the_data(make_data_map: MakeMap) -> None:
    states = np.random.default_rng(0).normal(size=(300, 3))
    data_map = make_data_map(states)
    ratios = [place(visits(states + shift), data_map).ratio for shift in (0.0, 5.0, 50.0)]
    assert ratios[0] < 1.2
    assert 5 < ratios[1] < ratios[2] / 5


def test_a_policy_so_far_away_that_features_overflow_has_an_infinite_distance(make_data_map: MakeMap) -> None:
    data = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32) * 1e-3
    observations = np.full((20, 3), 1e37, np.float32)
    places = np.arange(20)
    visited = VisitedStates(observations=observations, episodes=places * 0, steps=places, lengths=places * 0 + 20)
    with np.errstate(over="ignore"):
        placed = place(visited, make_data_map(data))
    assert np.isinf(placed.numbers()["dataset/ood_distance"])
    assert np.isfinite(placed.points).all()


def test_the_ratio_is_finite_for_repeated_states(make_data_map: MakeMap) -> None:
    cells = np.eye(16)[np.random.default_rng(0).integers(0, 8, size=400)]
    data_map = make_data_map(cells)
    assert place(visits(cells[:50]), data_map).ratio == pytest.approx(1)
    assert place(visits(np.eye(16)[8:]), data_map).ratio > 10


def test_the_ratio_is_one_if_half_of_the_states_are_duplicates(make_data_map: MakeMap) -> None:
    rng = np.random.default_rng(0)
    half = rng.normal(size=(200, 3))
    states = np.concatenate([half, half, rng.normal(size=(200, 3))])
    data_map = make_data_map(states)
    assert place(visits(states), data_map).ratio == pytest.approx(1, abs=0.05)
    assert place(visits(states + 20), data_map).ratio > 5


def test_a_constant_column_of_the_data_counts_if_the_policy_changes_it(make_data_map: MakeMap) -> None:
    states = np.column_stack([np.random.default_rng(0).normal(size=(300, 2)), np.zeros(300)])
    moved = states + np.array([0, 0, 3.0])
    assert place(visits(moved), make_data_map(states)).ratio > 5


def test_a_single_state_of_data_gives_finite_numbers(make_data_map: MakeMap) -> None:
    data_map = make_data_map(np.ones((1, 3)))
    for shift in (0.0, 1.0):
        assert all(np.isfinite(list(place(visits(np.ones((2, 3)) + shift), data_map).numbers().values())))


def test_the_unit_of_distances_is_a_standard_deviation_per_column(make_data_map: MakeMap) -> None:
    states = np.random.default_rng(0).normal(size=(400, 2)) * [1e-3, 1e3]
    numbers = place(visits(np.array([[0.1, 0.0]])), make_data_map(states)).numbers()
    assert numbers["dataset/ood_distance"] == pytest.approx(100 / np.sqrt(2), rel=0.1)


def test_states_of_the_data_are_placed_on_themselves_and_close_states_nearby(make_data_map: MakeMap) -> None:
    states = np.random.default_rng(0).normal(size=(80, 4))
    data_map = make_data_map(states)
    assert np.allclose(place(visits(states), data_map).points, data_map.states)
    near = place(visits(states + 0.01), data_map).points
    width = np.ptp(data_map.states, axis=0).max()
    assert np.median(np.linalg.norm(near - data_map.states, axis=1)) < 0.2 * width


def test_observations_of_another_size_raise(make_data_map: MakeMap) -> None:
    with pytest.raises(ValueError, match="has 5 numbers"):
        place(visits(np.zeros((1, 5))), make_data_map())


@pytest.mark.parametrize(
    ("shape", "of_data", "fits"),
    [
        ((20, 24, 3), (20, 24, 3), True),
        ((3, 20, 24), (20, 24, 3), False),
        ((20, 24, 3), (3, 20, 24), False),
        ((20, 24), (20, 24, 1), True),
        ((2, 3, 20, 24), (6, 20, 24), True),
        ((20 * 24 * 3,), (20, 24, 3), True),
        ((2, 3), (3, 2), False),
    ],
)
def test_axes_in_another_order_raise(
    shape: tuple[int, ...], of_data: tuple[int, ...], fits: bool, make_data_map: MakeMap
) -> None:
    rng = np.random.default_rng(0)
    data_map = make_data_map(rng.normal(size=(60, *of_data)))
    buffer = ObservationBuffer(max_bytes=1_000_000)
    for _ in range(4):
        buffer.append(rng.normal(size=shape))
    kept, _ = buffer.kept(3)
    assert kept is not None
    visited = visited_states([episode(kept, 3)])
    assert visited is not None
    if fits:
        assert place(visited, data_map).distances.shape == (3,)
        return
    with pytest.raises(ValueError, match="axes in another order") as caught:
        place(visited, data_map)
    assert str(shape) in str(caught.value)
    assert str(of_data) in str(caught.value)


def test_distances_between_states_exclude_the_same_episode() -> None:
    rows = np.repeat(np.arange(6.0), 10)[:, None] + 0.001 * np.tile(np.arange(10.0), 6)[:, None]
    apart = measure_reference(rows.astype(np.float32), np.repeat(np.arange(6), 10))
    together = measure_reference(rows.astype(np.float32), np.zeros(60, np.int64))
    assert apart.mean_distance == pytest.approx(1, abs=0.02)
    assert together.mean_distance == pytest.approx(0.001, rel=0.1)


def episode(observations: np.ndarray | None, steps: int, stride: int = 1) -> Episode:
    return Episode(
        actions=np.zeros(steps),
        rewards=np.zeros(steps),
        terminated=True,
        observations=observations,
        observation_stride=stride,
    )


def test_visited_states_have_the_index_and_step_of_their_episode() -> None:
    found: Any = visited_states(
        [episode(np.zeros((3, 2), np.float32), 5, stride=2), episode(None, 4), episode(np.ones((2, 2), np.float32), 2)]
    )
    assert found.episodes.tolist() == [0, 0, 0, 2, 2]
    assert found.steps.tolist() == [0, 2, 4, 0, 1]
    assert found.lengths.tolist() == [5, 5, 5, 2, 2]


def test_visited_states_are_finite_and_thinned() -> None:
    rows = np.zeros((3 * MAX_STATES, 1), np.float32)
    rows[:MAX_STATES] = np.nan
    found: Any = visited_states([episode(rows, len(rows))])
    assert len(found) == MAX_STATES
    assert found.steps[0] == MAX_STATES
    assert found.steps[-1] == len(rows) - 1
    assert visited_states([episode(rows[:5], 5)]) is None


def test_there_are_no_visited_states_without_observations_of_one_shape() -> None:
    assert visited_states([]) is None
    assert visited_states([episode(None, 3)]) is None
    assert visited_states([episode(np.zeros((1, 2), np.float32), 1), episode(np.zeros((1, 3), np.float32), 1)]) is None


@pytest.mark.parametrize("steps", [1, 2, 7, 8, 9, 100, 1_001])
def test_an_observation_buffer_is_bounded_and_evenly_spaced(steps: int) -> None:
    buffer = ObservationBuffer(max_bytes=8 * 2 * 4)
    for step in range(steps + 1):
        buffer.append(np.array([step, -step]))
    kept, stride = buffer.kept(steps)
    assert kept is not None
    assert len(kept) <= 8
    assert kept[:, 0].tolist() == list(range(0, steps, stride))
    assert stride == 1 or len(kept) >= 4
    assert episode(kept, steps, stride).length == steps


def test_an_observation_larger_than_the_limit_is_kept_once() -> None:
    buffer = ObservationBuffer(max_bytes=1)
    for _ in range(5):
        buffer.append(np.zeros(10))
    kept, _ = buffer.kept(4)
    assert kept is not None
    assert kept.shape == (1, 10)


def test_dicts_and_tuples_of_observations_become_one_vector() -> None:
    nested = {"z": (np.array([[1.0, 2.0]]), 3), "a": {"y": 4.0, "b": 5}}
    assert flat(nested).tolist() == [5, 4, 1, 2, 3]


def test_texts_in_observations_are_left_out_as_in_minari_data() -> None:
    buffer = ObservationBuffer(max_bytes=1_000)
    for step in range(3):
        buffer.append({"mission": "go to the red door"[:step], "position": np.array([step, 1.0])})
    kept, _ = buffer.kept(2)
    assert kept is not None
    assert kept.tolist() == [[0, 1], [1, 1]]


def test_observations_of_several_shapes_are_not_kept() -> None:
    buffer = ObservationBuffer(max_bytes=1_000)
    for length in (1, 2, 3):
        buffer.append(tuple(range(length)))
    assert buffer.kept(2) == (None, 1)
