"""Finishes a W&B run within a time limit.

``run.finish()`` returns once W&B's server has everything. While the server is away that takes days, and W&B's setting
``finish_timeout`` does not always end it: its clock starts when W&B's own process comes to the end of the run, and an
alert that cannot be sent keeps the process from getting there. W&B's hook at the exit of Python waits in the same way.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import wandb

from rlwandb_callbacks.tracking.exit_wait import end_wait_at_exit
from rlwandb_callbacks.tracking.sync_commands import explained_sync_command, run_folder, sync_command
from rlwandb_callbacks.tracking.upload_errors import describe_upload_errors
from rlwandb_callbacks.tracking.wait_limit import CHECK_SECONDS, WaitLimit
from rlwandb_callbacks.tracking.wandb_process import end_process, stop_telemetry

MIN_SECONDS = 5.0
"""Time for W&B even if none is left, or SIGTERM allows none: a run that W&B finishes is complete at once everywhere."""


class _Finishing(threading.Thread):
    """Calls ``run.finish`` in a thread, as the call cannot be interrupted.

    Args:
        run: Run to finish.
        exit_code: Its exit code, 0 for success.

    Attributes:
        error: What the call raised, if it did.
    """

    def __init__(self, run: Any, exit_code: int) -> None:
        super().__init__(name="rlwandb-finish", daemon=True)
        self._run, self._exit_code = run, exit_code
        self.error: BaseException | None = None

    def run(self) -> None:
        """Finishes the run."""
        try:
            self._run.finish(exit_code=self._exit_code)
        except BaseException as error:  # noqa: BLE001  # raised by the caller, or dropped if it has given up
            self.error = error


def finish_run(run: Any, exit_code: int, limit: WaitLimit) -> bool:
    """Finishes a run and returns whether W&B has sent everything in time.

    If it has not, W&B closes the run's file, which then holds all rows, and sends no more; the process can exit and
    open other runs, and further runs that are open in it go on. Ctrl-C ends the wait in the same way.

    Args:
        run: Run to finish.
        exit_code: Its exit code, 0 for success.
        limit: Time for it; W&B gets at least ``MIN_SECONDS``.
    """
    finishing = _Finishing(run, exit_code)
    finishing.start()
    no_earlier_than = time.monotonic() + MIN_SECONDS
    try:
        while finishing.is_alive():
            rest = max(limit.turn_seconds(), min(no_earlier_than - time.monotonic(), CHECK_SECONDS))
            if rest <= 0:
                break
            finishing.join(rest)
    except BaseException:  # Ctrl-C
        _give_up(run)
        raise
    if finishing.is_alive():
        _give_up(run)
        return False
    if isinstance(finishing.error, TimeoutError):  # by W&B's setting finish_timeout_raises
        return False
    if finishing.error is not None:
        if isinstance(finishing.error, ConnectionError):
            end_process()  # the next run needs another one
        _forget(run)
        raise finishing.error
    return not getattr(run, "_finish_timed_out", False)


def _give_up(run: Any) -> None:
    """Makes W&B close a run at once, whatever was not sent, and forget it."""
    stop_telemetry()
    with contextlib.suppress(Exception):  # the parts of W&B below are not public
        if can_abort():
            end_wait_at_exit()
            wandb.setup().assert_service().inform_finish(run_id=run.id)
    _forget(run)


def _forget(run: Any) -> None:
    """Ends the use of a run as ``wandb.run``."""
    with contextlib.suppress(Exception):
        from wandb.sdk.lib import module

        if wandb.run is run:
            module.unset_globals()  # type: ignore[no-untyped-call]  # W&B has no annotation for it


def can_abort() -> bool:
    """Returns whether the installed W&B ends uploads when it is asked to; it came with this setting."""
    return "finish_timeout" in wandb.Settings.model_fields


def describe_unsent(run: Any) -> str:
    """Returns what to do about a run that W&B has not sent in time, as a message."""
    done = "written" if run.offline else f"sent {run.settings.base_url}"
    message = (
        f"W&B had not {done} everything of run {run.id} in the time that the end of training has for it "
        "(finish_seconds; a few seconds after an exception, Ctrl-C or SIGTERM)."
    )
    return f"{message} {_remedy(run)}"


def describe_interrupted(run: Any) -> str:
    """Returns what to do about a run for which Ctrl-C has ended the wait, as a message."""
    return f"Ctrl-C has ended the wait for W&B, which had not finished run {run.id}. {_remedy(run)}"


def describe_given_up(run: Any) -> str | None:
    """Returns what to do about a run that has finished although W&B gave up sending a part; None if it did not."""
    message = describe_upload_errors(run)
    return message and f"{message} {_where_it_is(run)}"


def _remedy(run: Any) -> str:
    if not can_abort():
        return "This version of W&B keeps the process from exiting until it has; W&B 0.27 and later do not."
    return _where_it_is(run)


def _where_it_is(run: Any) -> str:
    return f"Its rows and files are in {run_folder(run)}. To send them later: {explained_sync_command(run)}"


def describe_wait(run: Any) -> str:
    """Returns what to do about a process that W&B keeps from ending, as it still sends a run that stays open."""
    message = (
        f"W&B is still sending run {run.id} to {run.settings.base_url} and keeps this process from ending until it has "
        "sent it. Ctrl-C ends the process."
    )
    if not can_abort():
        return message
    return (
        f"{message} The run is in {run_folder(run)}; to send it later: {sync_command(run)}. The environment "
        "variable WANDB_FINISH_TIMEOUT=60 limits the wait to 60 s, unless an alert cannot be sent."
    )
