from __future__ import annotations

import math

import numpy as np
import pytest

from rlwandb_callbacks.media.figures import prediction_against_return, return_distribution

RED = (0xD1, 0x49, 0x5B)  # color of the mean


@pytest.mark.parametrize(
    "returns",
    [
        [3.0],
        [2.0, 2.0, 2.0],
        [-1e300, 1e300],
        [0.0, 5e-324],
        [1.0, math.nan, math.inf],
        [math.nan],
        list(range(200)),
    ],
)
def test_figures_of_any_returns_have_one_size(returns: list[float]) -> None:
    picture = return_distribution(returns, title="Returns")
    assert (picture.shape, picture.dtype) == ((450, 800, 3), np.uint8)
    assert picture.std() > 0


def column_of_the_mean(returns: list[float]) -> float:
    red = (return_distribution(returns, title="") == RED).all(axis=-1)
    red = red[100:300]  # neither title nor legend
    return float(np.median(np.nonzero(red)[1]))


def test_the_mean_moves_with_the_returns() -> None:
    assert (
        column_of_the_mean([0.0, 0.0, 0.0, 10.0])
        < column_of_the_mean([0.0, 10.0])
        < column_of_the_mean([0.0, 10.0, 10.0])
    )


def test_figures_are_deterministic_and_depend_on_the_returns() -> None:
    first = return_distribution([1.0, 2.0, 3.0], title="Returns")
    assert np.array_equal(first, return_distribution([1.0, 2.0, 3.0], title="Returns"))
    assert not np.array_equal(first, return_distribution([1.0, 2.5, 3.0], title="Returns"))


def test_returns_that_are_not_finite_are_left_out_and_the_legend_says_so() -> None:
    finite = return_distribution([1.0, 2.0, 4.0], title="Returns")
    some = return_distribution([1.0, math.nan, 2.0, math.inf, 4.0], title="Returns")
    legend = 410  # row of pixels where it begins
    assert np.array_equal(finite[:legend], some[:legend])
    assert not np.array_equal(finite[legend:], some[legend:])


def height_of_the_mean_above_the_line(prediction: float, actual_return: float) -> float:
    picture = prediction_against_return(np.array([prediction]), np.array([actual_return]), quantity="V(s)", title="")
    drawn = picture[:520].astype(int)  # without the legend
    is_line = (drawn[..., 2] - drawn[..., 0] > 25) & (drawn[..., 2] < 140)
    line_rows, line_columns = np.nonzero(is_line)
    slope, shift = np.polyfit(line_columns, line_rows, 1)
    rows, columns = np.nonzero((drawn == RED).all(axis=-1))
    return float((slope * columns + shift - rows).mean())


def test_predictions_that_are_too_high_are_above_the_line_and_too_low_below() -> None:
    assert height_of_the_mean_above_the_line(5.0, 1.0) > 100
    assert height_of_the_mean_above_the_line(1.0, 5.0) < -100
    assert abs(height_of_the_mean_above_the_line(3.0, 3.0)) < 3


@pytest.mark.parametrize(
    ("predictions", "returns"),
    [([0.0], [0.0]), ([1e308, -1e308], [-1e308, 1e308]), ([5e-324], [0.0]), ([1e6] * 20_000, [1.0] * 20_000)],
)
def test_figures_of_any_predictions_have_one_size(predictions: list[float], returns: list[float]) -> None:
    picture = prediction_against_return(np.array(predictions), np.array(returns), quantity="V(s)", title="bias")
    assert (picture.shape, picture.dtype) == ((600, 700, 3), np.uint8)
    assert picture.std() > 0
