from __future__ import annotations

import math

import numpy as np
import pytest

from rlwandb_callbacks.core.histograms import count_actions, histogram

ODD_SAMPLES = {
    "one": [3.0],
    "constant": [2.5] * 7,
    "zero": [0.0] * 4,
    "two": [1.0, 2.0],
    "huge": [1e300, -1e300, 5.0],
    "huge and constant": [1e300] * 3,
    "largest and constant": [1.7976931348623157e308] * 3,
    "largest and smallest": [1.7976931348623157e308, -1.7976931348623157e308],
    "next to each other": [1.0, np.nextafter(1.0, 2.0), 1.0],
    "close together": [1e16, 1e16 + 2, 1e16 + 4],
    "smallest numbers": [0.0, 5e-324, 1e-323],
    "with holes": [1.0, math.nan, 4.0, math.inf, -math.inf, 2.0],
    "bimodal": [0.0] * 50 + [1.0] * 50,
}


@pytest.mark.parametrize("samples", ODD_SAMPLES.values(), ids=ODD_SAMPLES.keys())
def test_every_finite_sample_is_counted_between_ascending_edges(samples: list[float]) -> None:
    counted = histogram(np.array(samples))
    finite = [sample for sample in samples if math.isfinite(sample)]
    assert counted.counts.sum() == len(finite)
    assert len(counted.edges) == len(counted.counts) + 1
    assert (counted.edges[:-1] < counted.edges[1:]).all()
    assert counted.edges[0] <= min(finite) <= max(finite) <= counted.edges[-1]


@pytest.mark.parametrize("samples", [[], [math.nan], [math.inf, -math.inf, math.nan]])
def test_no_finite_samples_give_none(samples: list[float]) -> None:
    assert histogram(np.array(samples)) is None


@pytest.mark.parametrize("value", [0.0, -7.0, 1e300, 1e-300])
def test_equal_samples_fill_one_bin(value: float) -> None:
    counted = histogram(np.full(5, value), bins=64)
    assert counted.counts.tolist() == [5]
    width = max(1.0, 0.01 * abs(value))
    assert counted.edges.tolist() == pytest.approx([value - width / 2, value + width / 2])


@pytest.mark.parametrize(("count", "bins"), [(2, 3), (8, 4), (27, 6), (1000, 20), (100_000, 64)])
def test_the_number_of_bins_follows_rices_rule_up_to_64(count: int, bins: int) -> None:
    assert len(histogram(np.arange(count)).counts) == bins


def test_the_number_of_bins_can_be_set_and_the_last_bin_includes_the_maximum() -> None:
    counted = histogram(np.array([[0, 1], [1, 4]]), bins=4)
    assert counted.counts.tolist() == [1, 2, 0, 1]
    assert counted.edges.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("actions", "first", "n", "expected"),
    [
        ([1, 1, 0], 0, 3, [1, 2, 0]),
        ([], 0, 2, [0, 0]),
        ([5, 7, 7], 5, 3, [1, 0, 2]),
        ([-1, 0, -1], -1, 2, [2, 1]),
    ],
)
def test_each_action_has_a_bin_centered_on_it(actions: list[int], first: int, n: int, expected: list[int]) -> None:
    counted = count_actions(np.array(actions), first=first, n=n)
    assert counted.counts.tolist() == expected
    assert ((counted.edges[:-1] + counted.edges[1:]) / 2).tolist() == list(range(first, first + n))
