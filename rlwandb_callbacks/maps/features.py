"""Rows of a data set as vectors whose distances mean something: scaled, finite, of moderate width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.action_spec import ActionSpec, DiscreteActions
from rlwandb_callbacks.core.episode import Floats
from rlwandb_callbacks.maps.image_features import is_picture, shrink

WIDE = 128
COMPONENTS = 50
MAX_FIT_ROWS = 5_000
CHUNK_ROWS = 1_024
CONSTANT = 1e-6
TAIL = 0.001
MIN_ROWS_WITH_TAILS = 20


@dataclass(frozen=True, kw_only=True)
class Scaler:
    """Maps observations to features, in the same way for the data set and for what comes later.

    The squared distance of two features is the mean, over the columns, of the squared difference in standard deviations
    of the data: 1 is what two observations differ by where every column is off by one standard deviation.

    Args:
        shape: Of one observation.
        center: Shape ``[F]``: the data's mean.
        scale: Shape ``[F]``, > 0: the data's standard deviation times the root of the number of columns that vary. A
            column that is constant in the data counts in its own unit.
        components: Shape ``[F, C]``: principal components of wide observations; None where all columns are kept.
    """

    shape: tuple[int, ...]
    center: Floats
    scale: Floats
    components: Floats | None = None

    def features(self, observations: NDArray[np.generic]) -> NDArray[np.float32]:
        """Maps observations.

        Args:
            observations: Shape ``[K, *shape]``, or the same with axes merged, such as ``[K, size]``.

        Returns:
            Shape ``[K, F]`` or ``[K, C]``.

        Raises:
            ValueError: If an observation has another size than those of the data, or its axes another order.
        """
        chunks = [observations[start : start + CHUNK_ROWS] for start in range(0, len(observations), CHUNK_ROWS)]
        return np.concatenate([self._of_few(chunk) for chunk in chunks or [observations]])

    def _of_few(self, observations: NDArray[np.generic]) -> NDArray[np.float32]:
        scaled = (columns_of(observations, self.shape) - self.center) / self.scale
        return (scaled if self.components is None else scaled @ self.components).astype(np.float32)


def fit_scaler(observations: NDArray[np.generic], *, seed: int) -> Scaler:
    """Learns from the observations of a data set how to map them.

    Args:
        observations: Shape ``[K, ...]``, finite, K ≥ 1.
        seed: Of the search for principal components.

    Example:
        >>> rows = np.array([[0.0, 7.0], [2.0, 7.0]])
        >>> fit_scaler(rows, seed=0).features(rows)
        array([[-1.,  0.],
               [ 1.,  0.]], dtype=float32)
    """
    shape = observations.shape[1:]
    columns = columns_of(observations, shape)
    center, spread = _center_and_spread(columns)
    if is_picture(shape):  # a pixel that hardly ever changes must not weigh as much as the agent
        spread = np.full_like(spread, np.sqrt(np.mean(spread**2)))
    magnitude = np.abs(center)
    varies = spread > CONSTANT * magnitude
    scale = np.where(varies, spread, np.maximum(1.0, CONSTANT * magnitude)) * np.sqrt(max(1, varies.sum()))
    components = None
    if columns.shape[1] > WIDE:
        few = columns[np.linspace(0, len(columns) - 1, min(MAX_FIT_ROWS, len(columns))).astype(np.int64)]
        components = principal_components((few - center) / scale, seed=seed)
    return Scaler(shape=shape, center=center, scale=scale, components=components)


def bulk_limits(columns: NDArray[np.floating]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """The smallest and largest value of each column without the farthest thousandth, at least one, on either side.

    Args:
        columns: Shape ``[K, F]``; with fewer than twenty rows, all count.
    """
    count = len(columns)
    left_out = max(1, round(TAIL * count)) if count >= MIN_ROWS_WITH_TAILS else 0
    ordered = np.partition(columns, (left_out, count - 1 - left_out), axis=0)
    return ordered[left_out], ordered[count - 1 - left_out]


def _center_and_spread(columns: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation without the farthest thousandth on either side, unless only that varies."""
    low, high = bulk_limits(columns)
    bulk = np.clip(columns, low, high)
    varies = high > low
    return (
        np.where(varies, bulk.mean(axis=0), columns.mean(axis=0)),
        np.where(varies, bulk.std(axis=0), columns.std(axis=0)),
    )


def columns_of(observations: NDArray[np.generic], shape: tuple[int, ...]) -> Floats:
    """Observations as rows of numbers; pictures are made smaller.

    Args:
        observations: Shape ``[K, *shape]``, or with axes merged.
        shape: Of one observation.

    Raises:
        ValueError: If the sizes do not agree, or the axes are in another order.
    """
    given = observations.shape[1:]
    expected, found = int(np.prod(shape)), int(np.prod(given))
    if expected != found or not in_one_order(given, shape):
        order = " with their axes in another order, such as channels first rather than last" * (expected == found)
        raise ValueError(
            f"An observation has {found:,} numbers (shape {given}); those of the data set have {expected:,} "
            f"(shape {shape}){order}."
        )
    shaped = observations.reshape(-1, *shape)
    columns = shrink(shaped) if is_picture(shape) else shaped.reshape(-1, expected)
    return columns.astype(np.float64)


def in_one_order(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether the numbers of two shapes of equal size come in the same order: one is the other with axes merged.

    Example:
        >>> in_one_order((4, 84, 84), (28_224,)), in_one_order((4, 3, 84, 84), (12, 84, 84))
        (True, True)
        >>> in_one_order((4, 84, 84), (84, 84, 4))
        False
    """
    ends, other_ends = (set(np.cumprod(sides).tolist()) - {1} for sides in (shape, other))
    return ends <= other_ends or other_ends <= ends


def principal_components(centered: Floats, *, seed: int) -> Floats:
    """The directions in which rows differ most, widest first.

    Args:
        centered: Shape ``[K, F]``, of mean zero.
        seed: Of the randomized search.

    Returns:
        Shape ``[F, C]`` with C = 50 or the smaller of K and F.
    """
    from sklearn.utils.extmath import randomized_svd

    _, _, directions = randomized_svd(centered, min(COMPONENTS, *centered.shape), random_state=seed)
    return np.asarray(directions.T, dtype=np.float64)


def action_features(actions: NDArray[np.generic], spec: ActionSpec) -> NDArray[np.float32]:
    """Actions as vectors whose variance is one in all, as that of observation features is: neither outweighs the other.

    Args:
        actions: Shape ``[K]``, integers, or ``[K, D]``.
        spec: Of these actions; integers of a discrete one become one-hot.

    Returns:
        Shape ``[K, D]``, or ``[K, number of actions that occur]``.
    """
    columns = np.asarray(actions).reshape(len(actions), -1)
    if isinstance(spec, DiscreteActions) and columns.shape[1] == 1:
        columns = (columns == np.unique(columns)).astype(np.float64)
        variance = columns.var(axis=0).sum()
        return np.asarray(columns / np.sqrt(variance if variance > 0 else 1.0), dtype=np.float32)
    return fit_scaler(columns, seed=0).features(columns)


def finite_rows(*arrays: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Tells which rows are finite in all arrays of equal length.

    Example:
        >>> finite_rows(np.array([[1.0, np.nan], [1.0, 2.0]]), np.array([0, 1]))
        array([False,  True])
    """
    checks: Sequence[NDArray[np.bool_]] = [
        np.isfinite(array).reshape(len(array), -1).all(axis=1)
        if array.dtype.kind == "f"
        else np.ones(len(array), dtype=bool)
        for array in arrays
    ]
    return np.asarray(np.logical_and.reduce(checks))
