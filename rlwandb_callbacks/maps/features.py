"""Observations and actions as feature vectors with meaningful distances: scaled, finite and of moderate width."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.action_spec import ActionSpec, DiscreteActions
from rlwandb_callbacks.core.episode import Floats

MIN_IMAGE_SIDE = 16
MAX_IMAGE_VALUES = 2_048
IMAGES_PER_CHUNK = 256
MAX_COLUMNS = 128
COMPONENTS = 50
MAX_FIT_ROWS = 5_000
ROWS_PER_CHUNK = 1_024
CONSTANT = 1e-6
TAIL_FRACTION = 0.001
MIN_ROWS_WITH_TAILS = 20
SAME_ROW = 1e-4
Features: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Scaler:
    """Mapping from observations to features, the same for the data set and for observations of a policy.

    The squared distance of two features is the mean, over the columns, of the squared difference in standard deviations
    of the data: observations that differ by one standard deviation in every column have a distance of 1.

    Args:
        shape: Shape of one observation.
        center: Shape ``[F]``: mean of the data.
        scale: Shape ``[F]``, > 0: standard deviation of the data (divisor K, the number of rows) times the square root
            of the number of columns that vary. A column that is constant in the data keeps its own unit.
        components: Shape ``[F, C]``: principal components of wide observations; None if all columns are kept.
    """

    shape: tuple[int, ...]
    center: Floats
    scale: Floats
    components: Floats | None = None

    def features(self, observations: NDArray[np.generic]) -> Features:
        """Maps observations, as :func:`flat_columns` accepts them, to features of shape ``[K, F]`` or ``[K, C]``."""
        chunks = []
        for start in range(0, len(observations), ROWS_PER_CHUNK):
            columns = flat_columns(observations[start : start + ROWS_PER_CHUNK], self.shape)
            scaled = (columns - self.center) / self.scale
            chunks.append((scaled if self.components is None else scaled @ self.components).astype(np.float32))
        return np.concatenate(chunks)


def fit_scaler(observations: NDArray[np.generic], *, seed: int) -> Scaler:
    """Fits a scaler to finite observations, ``[K, ...]``, K ≥ 1; the search for principal components is randomized.

    Example:
        >>> rows = np.array([[0.0, 7.0], [2.0, 7.0]])
        >>> fit_scaler(rows, seed=0).features(rows)
        array([[-1.,  0.],
               [ 1.,  0.]], dtype=float32)
    """
    shape = observations.shape[1:]
    columns = flat_columns(observations, shape)
    center, spread = _center_and_spread(columns)
    if is_image(shape):  # a pixel that hardly ever changes must not weigh as much as the agent
        spread = np.full_like(spread, np.sqrt(np.mean(spread**2)))
    magnitude = np.abs(center)
    varies = spread > CONSTANT * magnitude
    scale = np.where(varies, spread, np.maximum(1.0, CONSTANT * magnitude)) * np.sqrt(max(1, varies.sum()))
    components = None
    if columns.shape[1] > MAX_COLUMNS:
        rows = columns[evenly_spaced(len(columns), MAX_FIT_ROWS)]
        components = principal_components((rows - center) / scale, seed=seed)
    return Scaler(shape=shape, center=center, scale=scale, components=components)


def bulk_limits(columns: NDArray[np.floating]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Returns the smallest and largest value of each column, without the farthest 0.1 % (at least one) on either side.

    All values count if there are fewer than twenty rows.
    """
    count = len(columns)
    tail = max(1, round(TAIL_FRACTION * count)) if count >= MIN_ROWS_WITH_TAILS else 0
    ordered = np.partition(columns, (tail, count - 1 - tail), axis=0)
    return ordered[tail], ordered[count - 1 - tail]


def _center_and_spread(columns: Floats) -> tuple[Floats, Floats]:
    """Returns mean and standard deviation (divisor K) of the columns, tails moved to their limits if others vary."""
    low, high = bulk_limits(columns)
    kept = np.where(high > low, np.clip(columns, low, high), columns)
    return kept.mean(axis=0), kept.std(axis=0)


def flat_columns(observations: NDArray[np.generic], shape: tuple[int, ...]) -> Floats:
    """Returns observations as rows of numbers; images are downscaled.

    Args:
        observations: Shape ``[K, *shape]``, or the same with merged axes, such as ``[K, size]``.
        shape: Shape of one observation of the data set.

    Raises:
        ValueError: If the sizes differ, or the axes are in another order.
    """
    found_shape = observations.shape[1:]
    expected, found = math.prod(shape), math.prod(found_shape)
    if expected != found or not have_same_order(found_shape, shape):
        order = " with their axes in another order, such as channels first instead of last" * (expected == found)
        raise ValueError(
            f"An observation has {found:,} numbers (shape {found_shape}); those of the data set have {expected:,} "
            f"(shape {shape}){order}."
        )
    shaped = observations.reshape(-1, *shape)
    columns = downscale(shaped) if is_image(shape) else shaped.reshape(-1, expected)
    return columns.astype(np.float64)


def have_same_order(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Returns whether two shapes of equal size hold their numbers in the same order: one is the other with merged axes.

    Example:
        >>> have_same_order((4, 84, 84), (28_224,)), have_same_order((4, 3, 84, 84), (12, 84, 84))
        (True, True)
        >>> have_same_order((4, 84, 84), (84, 84, 4))
        False
    """
    ends, other_ends = (set(np.cumprod(sides).tolist()) - {1} for sides in (shape, other))
    return ends <= other_ends or other_ends <= ends


def is_image(shape: tuple[int, ...]) -> bool:
    """Returns whether observations of a shape are images: two sides of at least 16.

    Example:
        >>> is_image((4, 84, 84)), is_image((64, 64, 3)), is_image((4, 17))
        (True, True, False)
    """
    return len(shape) in (2, 3) and sum(side >= MIN_IMAGE_SIDE for side in shape) >= 2


def downscale(images: NDArray[np.generic]) -> NDArray[np.float32]:
    """Averages blocks of pixels so that about 2,048 numbers are left of each image: ``[K, F]``.

    Example:
        >>> downscale(np.zeros((3, 84, 84, 4))).shape
        (3, 1764)
    """
    axes = sorted((np.argsort([-side for side in images.shape[1:]], kind="stable")[:2] + 1).tolist())
    block = math.ceil(math.sqrt(math.prod(images.shape[1:]) / MAX_IMAGE_VALUES))
    chunks = [images[start : start + IMAGES_PER_CHUNK] for start in range(0, len(images), IMAGES_PER_CHUNK)]
    return np.concatenate([_block_means(chunk, axes, block).reshape(len(chunk), -1) for chunk in chunks])


def _block_means(images: NDArray[np.generic], axes: list[int], block: int) -> NDArray[np.float32]:
    means: NDArray[np.float32] = images.astype(np.float32)
    for axis in axes:
        starts = np.arange(0, means.shape[axis], block)
        sizes = np.diff([*starts, means.shape[axis]]).astype(np.float32)
        totals = np.add.reduceat(means, starts, axis=axis)
        means = np.asarray(totals / sizes.reshape([-1 if i == axis else 1 for i in range(totals.ndim)]))
    return means


def principal_components(centered: Floats, *, seed: int) -> Floats:
    """Returns the 50 (or K or F, if smaller) directions of largest variance of ``[K, F]`` with mean zero as columns."""
    from sklearn.utils.extmath import randomized_svd

    _, _, directions = randomized_svd(centered, min(COMPONENTS, *centered.shape), random_state=seed)
    return np.asarray(directions.T, dtype=np.float64)


def action_features(actions: NDArray[np.generic], spec: ActionSpec) -> Features:
    """Returns actions as vectors with a total variance of one, like that of observations: both weigh the same.

    Discrete actions become one-hot vectors over the actions that occur.
    """
    columns = np.asarray(actions).reshape(len(actions), -1)
    if isinstance(spec, DiscreteActions) and columns.shape[1] == 1:
        columns = (columns == np.unique(columns)).astype(np.float64)
        variance = columns.var(axis=0).sum()
        return np.asarray(columns / np.sqrt(variance if variance > 0 else 1.0), dtype=np.float32)
    return fit_scaler(columns, seed=0).features(columns)


def finite_rows(*arrays: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Returns which rows are finite in all arrays of equal length.

    Example:
        >>> finite_rows(np.array([[1.0, np.nan], [1.0, 2.0]]), np.array([0, 1]))
        array([False,  True])
    """
    floats = [array.reshape(len(array), -1) for array in arrays if array.dtype.kind == "f"]
    is_finite = [np.isfinite(array).all(axis=1) for array in floats]
    return np.asarray(np.logical_and.reduce([np.ones(len(arrays[0]), bool), *is_finite]))


def distinct_rows(features: Features) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the ascending indices of the first row of each kind, ``[U]``, and the kind of each row, ``[K]``.

    Example:
        >>> distinct_rows(np.array([[5.0], [1.0], [5.0]], dtype=np.float32))
        (array([0, 1]), array([0, 1, 0]))
    """
    size = float(np.sqrt(np.mean(np.square(features, dtype=np.float64))))
    keys = np.round(features.astype(np.float64) / (SAME_ROW * size if size > 0 else 1.0)).astype(np.int64)
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return first[order], np.argsort(order)[inverse.reshape(-1)]


def evenly_spaced(count: int, limit: int) -> NDArray[np.int64]:
    """Returns indices of at most ``limit`` of ``count`` rows, evenly spaced.

    Example:
        >>> evenly_spaced(10, 4)
        array([0, 3, 6, 9])
    """
    return np.linspace(0, count - 1, min(count, limit)).astype(np.int64)
