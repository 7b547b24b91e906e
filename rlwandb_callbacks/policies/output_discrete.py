"""Finite action spaces as independent categorical dimensions, and the scores that a policy may output for them.

``Discrete`` has one dimension, ``MultiDiscrete`` several, ``MultiBinary`` one with the options 0 and 1 per element.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces
from numpy.typing import NDArray
from torch.distributions import Bernoulli, Distribution, Independent

from rlwandb_callbacks.core.episode import Floats, Grouped, PolicyScores, PolicyStep, Probabilities, QValues
from rlwandb_callbacks.policies.output_distributions import (
    is_over_integers,
    probabilities_of,
    probabilities_of_integers,
)
from rlwandb_callbacks.policies.output_tensors import is_array, softmax, to_numpy
from rlwandb_callbacks.policies.scores import q_of_indices

LOG_PROB_TOLERANCE = 1e-2  # of half precision


@dataclass(frozen=True)
class CategoricalSpace:
    """A finite action space as independent categorical dimensions.

    Args:
        sizes: Number of options of each dimension.
        starts: Integer of the first option of each dimension.
        shape: Shape of one action; ``()`` for ``Discrete``.
        dtype: Dtype of an action.
        is_binary: Whether the space is ``MultiBinary``.
    """

    sizes: tuple[int, ...]
    starts: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_binary: bool = False

    @staticmethod
    def from_space(space: Space[Any]) -> CategoricalSpace | None:
        """Describes a finite Gymnasium space; returns None for other spaces."""
        if isinstance(space, spaces.Discrete):
            return CategoricalSpace((int(space.n),), (int(space.start),), (), np.dtype(np.int64))
        if isinstance(space, spaces.MultiDiscrete):
            sizes, starts = space.nvec.ravel().tolist(), space.start.ravel().tolist()
            return CategoricalSpace(tuple(sizes), tuple(starts), space.shape, np.dtype(space.dtype))
        if isinstance(space, spaces.MultiBinary):
            count = math.prod(space.shape)
            return CategoricalSpace((2,) * count, (0,) * count, space.shape, np.dtype(space.dtype), is_binary=True)
        return None

    @property
    def is_single(self) -> bool:
        """Whether the space is ``Discrete``."""
        return self.shape == ()

    def split_scores(self, output: Any, batch_size: int, meaning: str) -> list[Floats] | None:
        """Splits ``q_values``, ``logits`` or ``probs`` for B states by dimension, to ``[B, options]`` each.

        They are one array ``[B, sum(sizes)]`` or ``[B, *shape, max(sizes)]``, for probabilities and logits of
        ``MultiBinary`` also ``[B, *shape]``, or a list with an array per dimension. Returns None for other outputs.
        """
        if isinstance(output, list | tuple):
            columns = [to_numpy(part) for part in output] if all(map(is_array, output)) else []
        else:
            array = to_numpy(output)
            columns = self._split_array(array, batch_size, meaning) if array.dtype.kind == "f" else []
        expected = [(batch_size, size) for size in self.sizes]
        if [column.shape for column in columns] != expected or any(column.dtype.kind != "f" for column in columns):
            return None
        return [column.astype(np.float64) for column in columns]

    def _split_array(self, array: NDArray[Any], batch_size: int, meaning: str) -> list[NDArray[Any]]:
        count = len(self.sizes)
        if self.is_binary and meaning != "q_values" and array.shape == (batch_size, *self.shape):
            ones = array.reshape(batch_size, count)
            zeros = 1 - ones if meaning == "probs" else np.zeros_like(ones)
            return list(np.stack([zeros, ones], axis=-1).swapaxes(0, 1))
        if array.shape == (batch_size, sum(self.sizes)):
            return np.split(array, np.cumsum(self.sizes)[:-1], axis=1)
        if not self.is_single and array.shape == (batch_size, *self.shape, max(self.sizes)):
            padded = array.reshape(batch_size, count, -1)
            return [padded[:, i, :size] for i, size in enumerate(self.sizes)]
        return []

    def split_distribution(self, distribution: Any, batch_size: int) -> list[Floats] | None:
        """Splits the probabilities of a distribution, or of a list with one per dimension, by dimension."""
        if isinstance(distribution, list | tuple):
            if not distribution or not all(map(_has_probabilities, distribution)):
                return None
            sizes = self.sizes if len(self.sizes) == len(distribution) else [None] * len(distribution)
            probs = [probabilities_of(part, size) for part, size in zip(distribution, sizes, strict=True)]
            if self.is_binary and all(isinstance(part, Bernoulli) for part in distribution):
                return self.split_scores(torch.stack([p.reshape(len(p)) for p in probs], dim=1), batch_size, "probs")
            return self.split_scores(probs, batch_size, "probs")
        if self.is_single and isinstance(distribution, Distribution) and is_over_integers(distribution):
            return self._split_integers(distribution, batch_size)
        while isinstance(distribution, Independent):
            distribution = distribution.base_dist
        is_bernoulli = isinstance(distribution, Bernoulli)
        if not _has_probabilities(distribution) or (is_bernoulli and not self.is_binary):
            return None
        if self.is_binary and not is_bernoulli and distribution.probs.ndim != len(self.shape) + 2:
            return None
        options = self.sizes[0] if self.is_single else None
        return self.split_scores(probabilities_of(distribution, options), batch_size, "probs")

    def _split_integers(self, distribution: Distribution, batch_size: int) -> list[Floats] | None:
        """Reads a distribution over the actions of a ``Discrete`` space, or over their positions from 0."""
        size, start = self.sizes[0], self.starts[0]
        for first in dict.fromkeys((start, 0)):
            found = probabilities_of_integers(distribution, range(first, first + size), batch_size)
            if found is not None:
                return self.split_scores(found, batch_size, "probs")
        return None

    def act(self, scores: Sequence[QValues | Probabilities], *, samples: bool) -> PolicyStep:
        """Takes the best option of each dimension, or samples from its probabilities; q-values are always maximized.

        The scores of a dimension have the shape ``[B, options]``.
        """
        options = [_chosen_options(part, samples=samples) for part in scores]
        return PolicyStep(self.to_actions(np.stack(options, axis=1)), self.join(scores))

    def join(self, scores: Sequence[QValues | Probabilities]) -> PolicyScores:
        """Returns the scores of the whole action from those of its dimensions."""
        return scores[0] if self.is_single else Grouped(tuple(scores))

    def to_actions(self, options: NDArray[np.int64]) -> NDArray[Any]:
        """Converts indices of options ``[B, dimensions]`` to actions of the space."""
        actions = options + np.asarray(self.starts, dtype=np.int64)
        return actions.reshape(len(options), *self.shape).astype(self.dtype)

    def contains(self, actions: NDArray[Any]) -> NDArray[np.bool_]:
        """Returns which of B actions are in the space: shape ``[B]``."""
        options = self._to_options(actions)
        return np.asarray(np.all((options >= 0) & (options < np.asarray(self.sizes)), axis=1))

    def q_of(self, actions: NDArray[Any], q_values: Sequence[Floats]) -> Floats | None:
        """Returns Q(s, a), shape ``[B]``, the mean over the dimensions; None if an action is not in the space.

        The q-values of a dimension have the shape ``[B, options]``.
        """
        return q_of_indices(q_values, self._to_options(np.asarray(actions, dtype=np.int64)))

    def meaning_by_log_prob(
        self, scores: Sequence[Floats], actions: NDArray[Any], log_prob: NDArray[Any]
    ) -> str | None:
        """Returns whether scores are ``logits`` or ``probs`` by the log-probabilities of B actions.

        The scores of a dimension have the shape ``[B, options]``. ``log_prob`` has one number for each action, or for
        each of its dimensions. Returns None if it fits both, or neither.
        """
        if not self.contains(actions).all() or log_prob.size not in (len(actions), len(actions) * len(self.sizes)):
            return None
        options = self._to_options(actions).astype(np.int64)
        log_prob = log_prob.astype(np.float64).reshape(len(actions), -1).sum(axis=1)
        probs = {"logits": [softmax(part) for part in scores]}
        if all(np.all(part >= 0) and np.all(part.sum(axis=1) > 0) for part in scores):
            probs["probs"] = [part / part.sum(axis=1, keepdims=True) for part in scores]
        errors = {}
        for meaning, parts in probs.items():
            taken = [np.take_along_axis(part, options[:, [i]], axis=1)[:, 0] for i, part in enumerate(parts)]
            with np.errstate(divide="ignore", invalid="ignore"):
                errors[meaning] = float(np.max(np.abs(np.log(taken).sum(axis=0) - log_prob)))
        best, *others = sorted(errors, key=errors.__getitem__)
        is_certain = errors[best] < LOG_PROB_TOLERANCE and all(errors[best] < errors[each] / 4 for each in others)
        return best if is_certain else None

    def _to_options(self, actions: NDArray[Any]) -> NDArray[Any]:
        options: NDArray[Any] = np.asarray(actions).reshape(-1, len(self.sizes)) - np.asarray(self.starts)
        return options

    def from_one_hot(self, array: NDArray[Any], batch_size: int) -> NDArray[Any] | None:
        """Converts integers or booleans ``[B, sum(sizes)]`` with a 1 in each dimension to actions."""
        if array.shape != (batch_size, sum(self.sizes)) or array.dtype.kind not in "iub":
            return None
        parts = np.split(array, np.cumsum(self.sizes)[:-1], axis=1)
        return self.to_actions(np.stack([part.argmax(axis=-1) for part in parts], axis=1))


def _has_probabilities(distribution: Any) -> bool:
    return isinstance(distribution, Distribution) and isinstance(getattr(distribution, "probs", None), torch.Tensor)


def _chosen_options(scores: QValues | Probabilities, *, samples: bool) -> NDArray[np.int64]:
    if samples and isinstance(scores, Probabilities):
        return np.asarray(torch.multinomial(torch.from_numpy(scores.values), 1)[:, 0])
    return np.asarray(np.argmax(scores.values, axis=-1))
