"""Finds out whether a row of a policy's output depends on other rows of the batch."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from rlwandb_callbacks.core.episode import PolicyStep
from rlwandb_callbacks.policies.adapters.recurrent_state import StateShapeError
from rlwandb_callbacks.policies.dry_run_messages import ROWS_ARE_MIXED, STATE_HAS_NO_ROWS
from rlwandb_callbacks.policies.questions import Questions, Starts
from rlwandb_callbacks.policies.step_comparison import Comparison, changes_in_row, differ_on_average, fields_of

STEPS_OF_RECURRENT = 3
DRAWS = 64
TOLERANCE_BETWEEN_ROWS = 1e-4  # at least; products of matrices round each row in another order
SLACK_FOR_ROUNDING = 10.0  # times the change of the output at a change of the observations by their rounding


def row_mixing(questions: Questions, stable: Collection[str], *, staggered: bool) -> str | None:
    """Asks with each row among others, and among copies of itself.

    Args:
        questions: Asks the policy.
        stable: Fields of the output that do not depend on random numbers; only these are compared.
        staggered: Whether episodes will start while others continue.

    Returns:
        Why the policy must be called once per environment; None if rows are independent.
    """
    if questions.batch_size == 1:
        return None
    count = STEPS_OF_RECURRENT if questions.is_recurrent else 1
    batches = [questions.observations, questions.rotated, questions.observations][:count]
    all_start = questions.all_start()
    first_row = (np.arange(questions.batch_size) == 0) & staggered
    try:
        is_mixed = _differs_among_others(questions, stable, batches, [all_start, first_row, ~all_start][:count])
    except StateShapeError as error:
        return STATE_HAS_NO_ROWS.format(reason=error)
    return ROWS_ARE_MIXED if is_mixed else None


def _differs_among_others(questions: Questions, stable: Collection[str], batches: list[object], starts: Starts) -> bool:
    batches, starts, together = questions.with_noise(batches, starts)
    moved = questions.ask_moved(batches, starts) or together
    tolerance = max(TOLERANCE_BETWEEN_ROWS, questions.tolerance)
    for row in {questions.batch_size - 1, questions.batch_size // 2, 0}:
        rows = [row] * questions.batch_size
        copies = [questions.rows(batch, rows) for batch in batches]
        of_row = [np.full(questions.batch_size, starting[row]) for starting in starts]
        masks = None if questions.masks is None else questions.masks[rows]
        apart = questions.ask(*copies, starts=of_row, masks=masks)
        is_equal = all(
            _is_equal(*steps, row=row, stable=stable, tolerance=tolerance)
            for steps in zip(together, apart, moved, strict=True)
        )
        if not is_equal and (stable or _differs_on_average(questions, copies[0], row)):
            return True
    return False


def _is_equal(
    together: PolicyStep, apart: PolicyStep, moved: PolicyStep, *, row: int, stable: Collection[str], tolerance: float
) -> bool:
    """Returns whether a row is equal among others and among copies, and the copies are equal to each other."""
    slack = {name: SLACK_FOR_ROUNDING * size for name, size in changes_in_row(together, moved, row).items()}
    names, compared = fields_of(together).keys(), set(stable)
    if "mean" in names - stable:  # the action may be an average of samples too, with other noise in each row
        compared -= {name for name in names if name.startswith("action")}
    return Comparison(tolerance, row, stable, slack).are_equal(together, apart) and Comparison(
        tolerance, None, compared, slack
    ).has_equal_rows(apart)


def _differs_on_average(questions: Questions, copies: object, row: int) -> bool:
    """Asks a policy that samples often, as the samples of a row may depend on how many numbers others drew."""
    ours, theirs = (
        [questions.ask(batch, seed=seed)[0] for seed in range(DRAWS)] for batch in (questions.observations, copies)
    )
    return differ_on_average(ours, theirs, row)
