"""Falls of returns are found, and agents that do not change rarely cause one."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable

import numpy as np
import pytest

from rlwandb_callbacks.callbacks.alerts.return_history import KEPT, Fall, ReturnHistory, Returns, read_returns

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
RUNS, EVALUATIONS, EPISODES = 40, 50, 8


def read(episodes: np.ndarray) -> Returns:
    returns = read_returns(float(episodes.mean()), float(episodes.std()), len(episodes))
    assert returns is not None
    return returns


def first_fall(evaluations: np.ndarray) -> int | None:
    """Returns the index of the first evaluation, a row of returns, with which there is a fall."""
    history = ReturnHistory()
    for index, episodes in enumerate(evaluations):
        if history.add(read(episodes)) and history.fall(limit=4.0):
            return index
    return None


def success(probability: float) -> Draw:
    return lambda rng, shape: (rng.random(shape) < probability).astype(np.float64)


def normal(mean: float, std: float) -> Draw:
    return lambda rng, shape: rng.normal(mean, std, shape)


def exponential(mean: float) -> Draw:
    return lambda rng, shape: rng.exponential(mean, shape)


def heavy_tailed(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.standard_t(3, shape)


def improving(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.normal(0.0, 150.0, shape) + np.linspace(0.0, 1000.0, shape[0])[:, None]


def number_of_falls(draws: list[tuple[Draw, int]], episodes: int = EPISODES) -> int:
    rng = np.random.default_rng(0)
    runs = [np.concatenate([draw(rng, (count, episodes)) for draw, count in draws]) for _ in range(RUNS)]
    return sum(first_fall(run) is not None for run in runs)


@pytest.mark.parametrize(
    "draw",
    [*map(success, (0.1, 0.3, 0.5, 0.7, 0.9)), normal(0.0, 150.0), exponential(100.0), heavy_tailed, improving],
)
def test_agents_that_do_not_get_worse_rarely_fall(draw: Draw) -> None:
    assert number_of_falls([(draw, EVALUATIONS)]) <= 2


@pytest.mark.parametrize("episodes", [1, 2, 3, 5, 20])
def test_other_numbers_of_episodes_do_not_fall_more_often(episodes: int) -> None:
    draws = (success(0.3), success(0.97), normal(0.0, 150.0), exponential(100.0))
    assert sum(number_of_falls([(draw, EVALUATIONS)], episodes) for draw in draws) <= 0.05 * len(draws) * RUNS


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (success(0.7), success(0.1)),
        (normal(200.0, 50.0), normal(100.0, 50.0)),
        (normal(0.0, 150.0), normal(-300.0, 150.0)),
    ],
)
def test_large_falls_are_always_found(before: Draw, after: Draw) -> None:
    assert number_of_falls([(before, 30), (after, 20)]) == RUNS


def test_half_of_the_smaller_falls_are_found() -> None:
    assert number_of_falls([(success(0.5), 30), (success(0.1), 20)]) >= RUNS / 2


def test_the_distance_is_that_of_the_pooled_episodes() -> None:
    episodes = np.random.default_rng(3).normal(0.0, 20.0, (7, 6)) + np.array([0, 50, 51, 48, 48, -10, -9.0])[:, None]
    history = ReturnHistory()
    for each in episodes:
        history.add(read(each))
    best, latest = max((episodes[i : i + 2] for i in range(4)), key=np.mean), episodes[5:7]
    floor = max(np.median(episodes.var(axis=1, ddof=1)), episodes.var(axis=1, ddof=1).mean())
    error = math.sqrt(sum(max(pair.var(ddof=1), floor) / pair.size for pair in (best, latest)))
    expected = Fall(latest.mean(), best.mean(), (best.mean() - latest.mean()) / error, 4.0)
    assert tuple(history.fall(limit=4.0) or ()) == pytest.approx(tuple(expected))


def test_the_best_two_do_not_overlap_the_latest_two() -> None:
    history = ReturnHistory()
    for mean in (0.0, 0.0, 200.0, 100.0, 0.0):
        history.add(Returns(mean, 1.0, 8))
    fall = history.fall(limit=1e-3)
    assert fall is not None
    assert (fall.latest, fall.best) == (50.0, 100.0)


def equal(mean: float, std: float) -> Draw:
    return lambda rng, shape: np.repeat(rng.normal(mean, std, (shape[0], 1)), shape[1], axis=1)


@pytest.mark.parametrize("jitter", [0.0025, 0.01, 0.05, 0.2])
@pytest.mark.parametrize("episodes", [1, 2, 8])
def test_equal_episodes_that_vary_between_evaluations_rarely_fall(jitter: float, episodes: int) -> None:
    assert number_of_falls([(equal(200.0, 200.0 * jitter), EVALUATIONS)], episodes) <= (4 if jitter > 0.1 else 0)


@pytest.mark.parametrize("jitter", [0.0, 0.01, 0.1])
@pytest.mark.parametrize("evaluations", [4, 30])
def test_falls_of_equal_episodes_are_found(jitter: float, evaluations: int) -> None:
    parts = [(equal(500.0, 500.0 * jitter), evaluations), (equal(100.0, 100.0 * jitter), 20)]
    assert number_of_falls(parts) >= 0.95 * RUNS


def test_a_fall_from_returns_that_were_all_0_is_without_noise() -> None:
    history = ReturnHistory()
    for mean in (0.0, 0.0, 0.0, -20.0, -20.0):
        history.add(Returns(mean, 0.0, 2))
    assert history.fall(limit=4.0) == Fall(-20.0, 0.0, math.inf, 4.0)


def test_policies_whose_returns_always_jump_do_not_fall() -> None:
    history = ReturnHistory()
    for mean in (500.0, 100.0, 300.0, 450.0, 50.0, 500.0, 200.0, 100.0):
        history.add(Returns(mean, 0.0, 8))
        assert history.fall(limit=4.0) is None or len(history.state()["kept"]) < 6


def test_a_fall_that_is_only_rounding_is_none() -> None:
    history = ReturnHistory()
    for mean in (0.3, 0.3, 0.1 + 0.2, 0.1 + 0.2, 0.3, 0.3):
        history.add(Returns(mean, 0.0, 4))
    assert history.fall(limit=4.0) is None


def test_evaluations_weigh_by_their_episodes() -> None:
    history = ReturnHistory()
    for mean, count in ((10.0, 30), (50.0, 10), (0.0, 1), (0.0, 9)):
        history.add(Returns(mean, 2.0, count))
    fall = history.fall(limit=1.0)
    assert fall is not None
    assert (fall.latest, fall.best) == (0.0, 20.0)


def test_the_limit_grows_with_the_number_of_evaluations_and_the_history_does_not() -> None:
    history = ReturnHistory()
    for _ in range(KEPT):
        history.add(Returns(100.0, 1.0, 8))
    size = len(pickle.dumps(history.state()))
    for _ in range(2_500 - KEPT - 2):
        history.add(Returns(100.0, 1.0, 8))
    assert len(pickle.dumps(history.state())) <= size + 8
    history.add(Returns(0.0, 1.0, 8))
    history.add(Returns(0.0, 1.0, 8))
    fall = history.fall(limit=4.0)
    assert fall is not None
    assert fall.limit == pytest.approx(4.0 * math.sqrt(2.0))  # 2,500 is the square of 50


def test_a_mean_without_a_count_is_one_return() -> None:
    returns = read_returns(3.0, 2.0, math.nan)
    assert returns is not None
    assert (returns.mean, returns.episodes) == (3.0, 1.0)
    assert math.isnan(returns.variance)


def test_returns_whose_squares_are_too_large_do_not_fall() -> None:
    history = ReturnHistory()
    for mean in (1e308, -1e308, 1e200, 1e200, -1e308, -1e308, math.nan):
        returns = read_returns(mean, 1e200, 8)
        if returns is not None:
            history.add(returns._replace(variance=0.0))
            assert history.fall(limit=4.0) is None
