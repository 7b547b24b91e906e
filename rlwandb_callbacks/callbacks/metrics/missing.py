"""Messages about training metrics that a training did not have."""

from __future__ import annotations

from collections.abc import Sequence


def describe_missing_updates(batches: int, *, skipped_in_row: int, automatic_optimization: bool) -> str | None:
    """Returns why a training without updates has none; None if Lightning has said so.

    Args:
        batches: Training batches, ≥ 1.
        skipped_in_row: Latest steps in a row that a ``GradScaler`` skipped.
        automatic_optimization: Whether Lightning steps the optimizer: it warns if ``training_step`` returns None.
    """
    if skipped_in_row:
        return (
            f"GradScaler skipped all optimizer steps ({skipped_in_row} in a row), as gradients were NaN or infinite, "
            "so there are no updates."
        )
    if automatic_optimization:
        return None
    return (
        f"no optimizer of configure_optimizers stepped in {batches} batches, so there are no updates and no rows of "
        "training metrics. If the module changes its weights in another way, let configure_optimizers return None: "
        "every batch counts then."
    )


def describe_missing_metrics(names: Sequence[str]) -> str:
    """Returns that names in ``metric_list`` never had a value."""
    return (
        f"metric_list names {', '.join(names)}, but training_step never returned such a value and the module never "
        "logged one. Return it from training_step, call self.log, or correct the name."
    )
