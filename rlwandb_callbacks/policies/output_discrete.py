"""The finite choices that an action consists of, and what a policy may say of each.

``Discrete`` is one choice, ``MultiDiscrete`` several, ``MultiBinary`` one between 0 and 1 per switch.
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
from rlwandb_callbacks.policies.output_tensors import softmax, to_numpy

SOFTMAX_OF_Q = "softmax of q-values"


@dataclass(frozen=True)
class Choices:
    """The finite choices of an action space.

    Args:
        sizes: Number of options of each choice.
        firsts: The integer that stands for the first option of each.
        shape: Of one action; ``()`` for ``Discrete``.
        dtype: Of an action.
        are_switches: Each choice is off or on.
    """

    sizes: tuple[int, ...]
    firsts: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    are_switches: bool = False

    @staticmethod
    def of(space: Space[Any]) -> Choices | None:
        """The choices of a space; None where it has none.

        Example:
            >>> Choices.of(spaces.MultiDiscrete([3, 4])).sizes
            (3, 4)
        """
        if isinstance(space, spaces.Discrete):
            return Choices((int(space.n),), (int(space.start),), (), np.dtype(np.int64))
        if isinstance(space, spaces.MultiDiscrete):
            sizes, firsts = space.nvec.ravel().tolist(), space.start.ravel().tolist()
            return Choices(tuple(sizes), tuple(firsts), space.shape, np.dtype(space.dtype))
        if isinstance(space, spaces.MultiBinary):
            count = math.prod(space.shape)
            return Choices((2,) * count, (0,) * count, space.shape, np.dtype(space.dtype), are_switches=True)
        return None

    @property
    def is_single(self) -> bool:
        """Whether it is the one choice of ``Discrete``."""
        return self.shape == ()

    def columns(self, given: Any, batch_size: int, meaning: str) -> list[Floats] | None:
        """Takes apart what a policy says of B states.

        Args:
            given: One tensor or array: ``[B, A]`` with all options in a row, or ``[B, choices, options]`` where choices
                have equally many; for switches also one number each. Or a list of one tensor ``[B, options]`` for each
                choice.
            batch_size: B.
            meaning: ``q_values``, ``logits`` or ``probs``.

        Returns:
            Shape ``[B, options]`` for each choice; None where the shapes are others.
        """
        if isinstance(given, list | tuple):
            columns = [to_numpy(part) for part in given] if all(map(_is_array, given)) else []
        else:
            array = to_numpy(given)
            columns = self._columns_of(array, batch_size, meaning) if array.dtype.kind == "f" else []
        expected = [(batch_size, size) for size in self.sizes]
        if [column.shape for column in columns] != expected or any(column.dtype.kind != "f" for column in columns):
            return None
        return [column.astype(np.float64) for column in columns]

    def _columns_of(self, array: NDArray[Any], batch_size: int, meaning: str) -> list[NDArray[Any]]:
        count = len(self.sizes)
        if self.are_switches and meaning != "q_values" and array.shape == (batch_size, *self.shape):
            on = array.reshape(batch_size, count)
            off = 1 - on if meaning == "probs" else np.zeros_like(on)
            return list(np.stack([off, on], axis=-1).swapaxes(0, 1))
        if array.shape == (batch_size, sum(self.sizes)):
            return np.split(array, np.cumsum(self.sizes)[:-1], axis=1)
        if not self.is_single and array.shape == (batch_size, *self.shape, max(self.sizes)):
            padded = array.reshape(batch_size, count, -1)
            return [padded[:, i, :size] for i, size in enumerate(self.sizes)]
        return []

    def columns_of_distribution(self, given: Any, batch_size: int) -> list[Floats] | None:
        """Probabilities of the options, from a distribution or a list with one for each choice."""
        if isinstance(given, list | tuple):
            if not all(map(_has_probabilities, given)):
                return None
            if self.are_switches and all(isinstance(each, Bernoulli) for each in given):
                return self.columns(_side_by_side([each.probs for each in given]), batch_size, "probs")
            return self.columns([each.probs for each in given], batch_size, "probs")
        while isinstance(given, Independent):
            given = given.base_dist
        if not _has_probabilities(given) or (isinstance(given, Bernoulli) and not self.are_switches):
            return None
        if self.are_switches and not isinstance(given, Bernoulli) and given.probs.ndim != len(self.shape) + 2:
            return None
        return self.columns(given.probs, batch_size, "probs")

    def act(self, scores: Sequence[QValues | Probabilities], *, samples: bool) -> PolicyStep:
        """Takes the best option of each choice, or draws one where ``samples`` and there are probabilities."""
        options = [_drawn(each) if samples and isinstance(each, Probabilities) else _best(each) for each in scores]
        return PolicyStep(self.actions_of(np.stack(options, axis=1)), self.joined(scores))

    def joined(self, scores: Sequence[QValues | Probabilities]) -> PolicyScores:
        """Scores of the whole action."""
        return scores[0] if self.is_single else Grouped(tuple(scores))

    def actions_of(self, options: NDArray[np.int64]) -> NDArray[Any]:
        """Turns indices of options ``[B, choices]`` into actions of the space."""
        actions = options + np.asarray(self.firsts, dtype=np.int64)
        return actions.reshape(len(options), *self.shape).astype(self.dtype)

    def hold(self, actions: NDArray[Any]) -> NDArray[np.bool_]:
        """Tells which of B actions consist of options: shape ``[B]``."""
        options = np.asarray(actions).reshape(-1, len(self.sizes)) - np.asarray(self.firsts)
        return np.asarray(np.all((options >= 0) & (options < np.asarray(self.sizes)), axis=1))

    def value_of(self, actions: NDArray[Any], columns: Sequence[Floats]) -> Floats | None:
        """Q(s, a) of actions, the mean over the choices where there are several.

        Args:
            actions: Of the space, a batch of B.
            columns: Q-values ``[B, options]`` for each choice.

        Returns:
            Shape ``[B]``; None where an action is none of the options.
        """
        if not self.hold(actions).all():
            return None
        options = np.asarray(actions, dtype=np.int64).reshape(-1, len(self.sizes)) - np.asarray(self.firsts)
        taken = [
            np.take_along_axis(q, index[:, None], axis=1)[:, 0] for q, index in zip(columns, options.T, strict=True)
        ]
        return np.asarray(np.mean(taken, axis=0), dtype=np.float64)

    def from_one_hot(self, array: NDArray[Any], batch_size: int) -> NDArray[Any] | None:
        """Reads integers or booleans ``[B, sum of options]`` with a 1 in each choice."""
        if array.shape != (batch_size, sum(self.sizes)) or array.dtype.kind not in "iub":
            return None
        parts = np.split(array, np.cumsum(self.sizes)[:-1], axis=1)
        return self.actions_of(np.stack([part.argmax(axis=-1) for part in parts], axis=1))


def shown_as_probabilities(scores: QValues) -> Probabilities:
    """The softmax of q-values, which says so."""
    return Probabilities(softmax(scores.values), SOFTMAX_OF_Q)


def _side_by_side(columns: Sequence[torch.Tensor]) -> torch.Tensor:
    """Shape ``[B, n]`` from n tensors of shape ``[B]`` or ``[B, 1]``."""
    return torch.stack([column.reshape(len(column)) for column in columns], dim=1)


def _is_array(part: Any) -> bool:
    return isinstance(part, torch.Tensor | np.ndarray)


def _has_probabilities(given: Any) -> bool:
    return isinstance(given, Distribution) and isinstance(getattr(given, "probs", None), torch.Tensor)


def _best(scores: QValues | Probabilities) -> NDArray[np.int64]:
    return np.asarray(np.argmax(scores.values, axis=-1))


def _drawn(scores: Probabilities) -> NDArray[np.int64]:
    return np.asarray(to_numpy(torch.multinomial(torch.from_numpy(scores.values), 1))[:, 0])
