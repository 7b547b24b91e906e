"""W&B's own process (wandb-core), which serves all runs of a Python process; W&B has no public way to reach it."""

from __future__ import annotations

import atexit
import contextlib
import logging
import threading
from typing import Any

import wandb

from rlwandb_callbacks.tracking.variables import without_refused_variables

MAX_END_SECONDS = 5.0
"""Time in which W&B's process ends when it is told to; one that waits for its server may need days."""


def find_process() -> Any:
    """Returns the ``subprocess.Popen`` of W&B's process; None if there is none, or if W&B keeps it elsewhere."""
    with contextlib.suppress(Exception):  # the parts of W&B below are not public
        service: Any = wandb.setup().assert_service()
        return service._proc._process  # noqa: SLF001  # as above
    return None


def end_process() -> None:
    """Ends W&B's process, so that the next run starts another one; it is killed if it does not end in time.

    It may have ended already. The settings of W&B are kept, and with them the account of ``wandb.login``.
    """
    settings = wandb.setup().settings.model_copy()
    process = find_process()
    if process is not None:
        timer = threading.Timer(MAX_END_SECONDS, process.kill)
        timer.daemon = True
        timer.start()
    try:
        with contextlib.suppress(Exception, SystemExit):  # it cannot be told, or its exit code is not 0
            wandb.teardown()
    finally:
        if process is not None:
            timer.cancel()
    with without_refused_variables():
        wandb.setup(settings)


def stop_telemetry() -> None:
    """Stops W&B's reports about itself: the exit of the process waits 10 s for them while the server is silent."""
    with contextlib.suppress(Exception):  # newer versions only, and not public
        from wandb.analytics.opentelemetry import opentelemetry_proxy as telemetry

        proxy: Any = telemetry.get_open_telemetry_proxy()
        telemetry.disable()
        if proxy is not None:
            for registered in (proxy, proxy._meter_provider, proxy._logger_provider):  # noqa: SLF001  # as above
                atexit.unregister(registered.shutdown)


def silence_log_errors() -> None:
    """Lets W&B's log of its own work lose lines on a full disk, where Python would print a traceback for each line.

    W&B also captures and logs what is printed, so that each traceback would cause further ones.
    """
    for handler in logging.getLogger("wandb").handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handleError = _ignore  # type: ignore[method-assign]  # of this handler only


def _ignore(record: logging.LogRecord) -> None:
    """Takes the place of a handler's report that a record could not be written."""
