"""Recognizes scores without a name that are probabilities, as those of a network that ends in a softmax."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import Floats

SUM_TOLERANCE = 1e-5
HALF_PRECISION_TOLERANCE = 2 * float(np.finfo(np.float16).eps)
BFLOAT16_TOLERANCE = 2 * 2.0**-7
MANY = 12  # different numbers between 0 and 1; fewer may be logits or q-values that happen to be there
NO_LONGER_PROBABILITIES = (
    "Its scores were read as probabilities, since all numbers were at least 0 and summed to 1, and those of a later "
    "batch do not. They are read as {meaning} from now on. Return a mapping with 'probs', 'logits' or 'q_values' to "
    "state what they are."
)
PROBABILITIES_NAMED_Q = (
    "Its scores are at least 0 and sum to 1 in every batch, as probabilities do, and are read as q-values because of "
    "the name of the policy. Return {'probs': …} if they are probabilities, or set action_logger to 'q_value' if they "
    "are q-values."
)


class ProbabilityRows:
    """Whether the scores that a policy outputs without a name are probabilities in every batch.

    This is a property of the policy and not of a batch: it is decided once, from all batches of the dry run (or from
    the first batch, if there is no dry run), and revoked by the first later batch that contradicts it. Scores of
    ``MultiBinary`` are probabilities of 1 if they are between 0 and 1.

    Attributes:
        is_trial: Whether a dry run collects batches, and the decision is not made yet.
    """

    def __init__(self) -> None:
        self.is_trial = False
        self._has_rows = self._is_contradicted = self._is_binary = False
        self._numbers: set[float] = set()  # in the last columns
        self._decision: bool | None = None

    def add(self, columns: Sequence[Floats], *, is_binary: bool) -> None:
        """Adds a batch, with an array ``[B, options]`` for each dimension of the action.

        Those of ``MultiBinary`` contain the numbers of the policy in their last column.
        """
        self._has_rows, self._is_binary = True, is_binary
        if self._is_contradicted or not all(map(_are_probabilities, columns)):
            self._is_contradicted = True
        elif len(self._numbers) < MANY:
            self._numbers.update(float(number) for column in columns for number in column[:, -1])

    def are_probabilities(self) -> bool:
        """Returns whether the scores are probabilities; False during a dry run."""
        if self.is_trial:
            return False
        self._decide()
        return bool(self._decision) and not self._is_contradicted

    def were_probabilities(self) -> bool:
        """Returns whether scores were read as probabilities, and later ones are none.

        Scores of 0 and 1 alone do not count, as their most likely action is the same if they are logits.
        """
        return bool(self._decision) and self._is_contradicted and not self._numbers <= {0.0, 1.0}

    def have_many_numbers(self) -> bool:
        """Returns whether there are many different probabilities, as those of a softmax, and not of a constant."""
        return len(self._numbers) >= MANY

    def end_trial(self) -> None:
        """Decides from the batches of a dry run; without any, the first batch decides."""
        self.is_trial = False
        self._decide()

    def _decide(self) -> None:
        if self._has_rows and self._decision is None:
            self._decision = not self._is_contradicted and (not self._is_binary or self._has_binary_evidence())

    def _has_binary_evidence(self) -> bool:
        """Returns whether numbers between 0 and 1 are no logits: there are many of them, or all are 0 or 1."""
        return self.have_many_numbers() or self._numbers == {0.0, 1.0}


def _are_probabilities(rows: Floats) -> bool:
    is_close = np.abs(rows.sum(axis=-1) - 1) <= _sum_tolerance(rows)
    return bool(np.all(rows >= 0) and np.all(is_close))


def _sum_tolerance(rows: Floats) -> float:
    """Returns the largest error of a sum of probabilities in the precision in which they were rounded.

    The dtype does not state it: a policy may convert its output to float32.
    """
    if np.array_equal(rows.astype(np.float16), rows):
        return HALF_PRECISION_TOLERANCE
    return BFLOAT16_TOLERANCE if _are_bfloat16(rows) else SUM_TOLERANCE


def _are_bfloat16(rows: Floats) -> bool:
    single: NDArray[np.float32] = np.ascontiguousarray(rows, dtype=np.float32)
    return np.array_equal(single, rows) and not np.any(single.view(np.uint32) & 0xFFFF)
