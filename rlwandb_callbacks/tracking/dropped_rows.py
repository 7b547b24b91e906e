"""Notices rows that the user logs with ``step=`` and that W&B drops because of ours."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

HOOK = "_partial_history_callback"  # of a run, called by each run.log and wandb.log
MAX_KEYS = 3

_local = threading.local()  # whether this thread logs a row of ours


class DroppedRows:
    """Watches the steps of a run, until it is closed.

    W&B counts a step with each row, and drops a row whose ``step=`` is smaller than its count. A row counts as dropped
    because of ours if its step is not smaller than the count to which the user's own rows have led.

    Args:
        run: An open run. If W&B has changed the method that this class hooks into, nothing is noticed.

    Attributes:
        message: What happened to the first dropped row, and what to do; None if there was none.
        keys: Keys of all rows of the user.
        user_sets_steps: Whether the user has logged a row with ``step=``.
    """

    def __init__(self, run: Any) -> None:
        self._run = run
        self._step_without_ours = self._step
        self.message: str | None = None
        self.keys: set[str] = set()
        self.user_sets_steps = False
        self._original: Any = getattr(run, HOOK, None)
        if self._original is not None:
            setattr(run, HOOK, self._observe)

    @property
    def _step(self) -> int:
        return int(getattr(self._run, "_local_step", 0))

    @contextlib.contextmanager
    def ours(self) -> Iterator[None]:
        """Marks the rows that are logged in the block, on this thread, as ours."""
        _local.is_ours = True
        try:
            yield
        finally:
            _local.is_ours = False

    def _observe(self, row: Mapping[str, Any], step: int | None = None, commit: bool | None = None) -> Any:
        if not getattr(_local, "is_ours", False):
            self.keys.update(row)
            if step is not None:
                self.user_sets_steps = True
                if self.message is None and self._step_without_ours <= step < self._step:
                    self.message = _describe(row, step, self._step)
                self._step_without_ours = max(self._step_without_ours, step)
            if commit or (step is None and commit is None):
                self._step_without_ours += 1
        return self._original(row, step, commit)

    def close(self) -> None:
        """Ends watching."""
        if vars(self._run).get(HOOK) == self._observe:
            delattr(self._run, HOOK)


def _describe(row: Mapping[str, Any], step: int, latest: int) -> str:
    keys = ", ".join(repr(key) for key in list(row)[:MAX_KEYS]) + (", …" if len(row) > MAX_KEYS else "")
    return (
        f"W&B dropped the row with {keys} that your code logged with step={step}, as rows of this callback have moved "
        f"W&B's own step to {latest}. Log without step=, and put your step into the row as a value: "
        f"wandb.log({{..., 'my_step': {step}}}), and once run.define_metric({next(iter(row), 'my_key')!r}, "
        "step_metric='my_step'), which makes it the x axis."
    )
