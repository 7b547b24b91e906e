from __future__ import annotations

import numpy as np
import pytest

from rlwandb_callbacks.core.action_spec import ContinuousActions, DiscreteActions
from rlwandb_callbacks.maps.features import COMPONENTS, action_features, downscale, finite_rows, fit_scaler


def test_columns_of_any_unit_weigh_the_same_and_the_total_variance_is_one(rng: np.random.Generator) -> None:
    rows = rng.normal(size=(500, 3)) * [1e-6, 1.0, 1e6] + [0.0, -5.0, 1e7]
    features = fit_scaler(rows, seed=0).features(rows)
    assert np.allclose(features.var(axis=0), 1 / 3, rtol=0.02)
    assert np.allclose(features.mean(axis=0), 0, atol=0.01)


@pytest.mark.parametrize("constant", [0.0, 3.0, -1e6, 1e-9])
def test_a_constant_column_changes_no_distance(constant: float, rng: np.random.Generator) -> None:
    rows = rng.normal(size=(200, 2))
    with_constant = np.column_stack([rows, np.full(200, constant)])
    features = fit_scaler(with_constant, seed=0).features(with_constant)
    assert np.allclose(features[:, 2], 0, atol=1e-6)
    assert np.allclose(features[:, :2], fit_scaler(rows, seed=0).features(rows))


def test_a_new_value_in_a_constant_column_counts_in_its_own_unit(rng: np.random.Generator) -> None:
    rows = np.column_stack([rng.normal(size=200), np.zeros(200)])
    scaler = fit_scaler(rows, seed=0)
    usual, changed = scaler.features(np.array([[0.0, 0.0], [0.0, 5.0]]))
    assert np.linalg.norm(changed - usual) == pytest.approx(5.0)


def test_one_extreme_row_does_not_change_the_scale_of_the_others(rng: np.random.Generator) -> None:
    rows = rng.normal(size=(2_000, 2))
    extreme = rows.copy()
    extreme[7] = 1e20
    before, after = fit_scaler(rows, seed=0).features(rows), fit_scaler(extreme, seed=0).features(extreme)
    assert np.allclose(np.delete(before, 7, axis=0), np.delete(after, 7, axis=0), atol=0.05)


def test_a_column_that_is_rarely_nonzero_is_kept(rng: np.random.Generator) -> None:
    rows = np.zeros((5_000, 2))
    rows[:, 0] = rng.normal(size=5_000)
    rows[:3, 1] = 1.0
    features = fit_scaler(rows, seed=0).features(rows)
    assert features[0, 1] - features[10, 1] > 1


def test_components_of_wide_vectors_keep_their_distances(rng: np.random.Generator) -> None:
    few = rng.normal(size=(300, 5))
    wide = few @ rng.normal(size=(5, 400))
    features = fit_scaler(wide, seed=0).features(wide)
    assert features.shape == (300, COMPONENTS)
    scaled = (wide - wide.mean(axis=0)) / wide.std(axis=0) / np.sqrt(400)
    expected = np.linalg.norm(scaled[:50, None] - scaled[None, :50], axis=2)
    assert np.allclose(
        np.linalg.norm(features[:50, None] - features[None, :50], axis=2), expected, rtol=0.05, atol=0.05
    )


@pytest.mark.parametrize("shape", [(3, 64, 64), (64, 64, 3), (84, 84), (4, 84, 84)])
def test_images_differ_by_the_position_of_an_object(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    images = np.zeros((40, *shape), np.uint8)
    height, width = [axis for axis, side in enumerate(shape) if side >= 16]
    places = rng.integers(0, 2, size=40)
    for image, place in zip(images, places, strict=True):
        where: list[slice] = [slice(None)] * len(shape)
        where[height], where[width] = slice(20, 30), slice(10 + 30 * place, 20 + 30 * place)
        image[tuple(where)] = 200
    features = fit_scaler(images, seed=0).features(images)
    assert features.shape[1] <= COMPONENTS
    assert np.ptp(features[places == 0], axis=0).max() < 1e-3
    assert np.linalg.norm(features[places == 0][0] - features[places == 1][0]) > 0.5


def test_flat_observations_are_accepted_and_other_sizes_raise(rng: np.random.Generator) -> None:
    rows = rng.normal(size=(50, 2, 3))
    scaler = fit_scaler(rows, seed=0)
    assert np.array_equal(scaler.features(rows), scaler.features(rows.reshape(50, 6)))
    with pytest.raises(ValueError, match=r"has 5 numbers .* have 6"):
        scaler.features(np.zeros((1, 5)))


def test_downscaling_averages_whole_blocks(rng: np.random.Generator) -> None:
    image = rng.integers(0, 255, size=(1, 90, 90)).astype(np.float32)
    assert downscale(image)[0, 0] == pytest.approx(image[0, :2, :2].mean())
    assert np.allclose(downscale(np.ones((2, 85, 101, 3))), 1)


def test_actions_weigh_as_much_as_observations(rng: np.random.Generator) -> None:
    discrete = action_features(rng.integers(0, 5, size=400), DiscreteActions(tuple("abcde")))
    vector = action_features(rng.uniform(-1, 1, size=(400, 7)), ContinuousActions(-np.ones(7), np.ones(7)))
    assert discrete.shape == (400, 5)
    assert discrete.var(axis=0).sum() == pytest.approx(1, rel=0.01)
    assert vector.var(axis=0).sum() == pytest.approx(1, rel=0.02)


def test_discrete_actions_are_equally_far_apart() -> None:
    features = action_features(np.array([0, 1, 9]), DiscreteActions(tuple("abcdefghij")))
    distances = [np.linalg.norm(features[i] - features[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert np.allclose(distances, distances[0])


def test_an_action_that_never_changes_has_constant_features() -> None:
    assert not np.ptp(action_features(np.zeros(9, np.int64), DiscreteActions(("only",))), axis=0).any()


def test_finite_rows_finds_nan_and_infinity_in_any_array() -> None:
    observations = np.zeros((4, 2, 2))
    observations[1, 0, 1], observations[2, 1, 1] = np.nan, -np.inf
    assert finite_rows(observations, np.arange(4), np.array([0, 0, 0, np.inf])).tolist() == [True, False, False, False]
