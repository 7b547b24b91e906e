"""What happens when a process ends while W&B is still sending a run.

W&B's own hook waits at the exit of Python until everything is sent. Hooks run in reverse order, so those that are
registered here, after a run was opened, run before it. What they set a time for is done by a thread beside W&B's hook;
the thread is started before, as Python 3.12 starts none at its exit.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import queue
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, TypeAlias

import wandb

from rlwandb_callbacks.core.output import unfailing_output
from rlwandb_callbacks.tracking.wandb_process import find_process

ABORT_SECONDS = 16.0
"""Time that W&B has, at the exit of Python, to end after a run was given up. It writes its file every 15 s."""
EXPLAIN_SECONDS = 20.0
"""Time after which a process that W&B keeps from ending says so."""

Timed: TypeAlias = tuple[float, Callable[[], object]]
_explained: set[str] = set()  # ids of runs


def end_wait_at_exit() -> None:
    """Ends W&B's process at the exit of Python if it does not end by itself, unless runs are open then."""
    _timer()
    atexit.unregister(_end_service)
    atexit.register(_end_service)


def explain_wait_at_exit(run: Any, message: str) -> None:
    """Prints a message, at the exit of Python, if W&B keeps the process from ending and a run is open then."""
    if run.id not in _explained and not run.offline:
        _explained.add(run.id)
        _timer()
        atexit.register(_explain, weakref.ref(run), message)


def _explain(run: weakref.ref[Any], message: str) -> None:
    if not getattr(run(), "_is_finished", True):
        _timer().put((EXPLAIN_SECONDS, functools.partial(_explain_if_alive, find_process(), message)))


def _explain_if_alive(process: Any, message: str) -> None:
    """Prints a message unless W&B's process has ended, so that it is other code that keeps this one from ending."""
    if process is None or process.poll() is None:
        with unfailing_output():
            wandb.termlog(f"rlwandb: {message}")


def _end_service() -> None:
    with contextlib.suppress(Exception):  # whether runs are open is not public
        process = find_process()
        if process is not None and wandb.setup().most_recent_active_run is None:
            _timer().put((ABORT_SECONDS, process.kill))


@functools.cache
def _timer() -> queue.SimpleQueue[Timed]:
    """Returns a queue for a thread that calls functions after a time in seconds, one after the other."""
    timed: queue.SimpleQueue[Timed] = queue.SimpleQueue()

    def call_all() -> None:
        while True:
            seconds, function = timed.get()
            time.sleep(seconds)
            function()

    threading.Thread(target=call_all, name="rlwandb-exit", daemon=True).start()
    return timed
