"""What runs in the worker process. Imports nothing but the standard library, so that limits are set before numpy is."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

NICENESS = 10
PARENT_CHECK_SECONDS = 2.0
SPAWNED_MAIN = "__mp_main__"  # the user's script in a process that was spawned, as by ddp_spawn; the worker has another
LIBRARIES = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "NUMBA")
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in LIBRARIES}
# loky takes a worker that has grown by 300 MB for a leak, says so, and starts another; a map and videos may take more.
# Versions before 3.7 have no such setting.
ROOM_TO_GROW = {"LOKY_MAX_MEMORY_LEAK_SIZE": "2e9"}


class CannotUnpackError(Exception):
    """The worker lacks something that the work needs, such as a module that is not on its search path."""


def become_worker() -> None:
    """Steps back behind training: low priority, deaf to Ctrl-C in the terminal, gone when the training process is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(AttributeError, OSError):  # Windows has neither, and a container may forbid both
        os.setpgid(0, 0)
        os.nice(NICENESS)
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_SECONDS)
    os._exit(1)


def run_packed(packed: bytes, search_path: Sequence[str]) -> Any:
    """Runs a callable that :func:`pack` packed.

    Args:
        packed: The callable.
        search_path: ``sys.path`` of the training process, for the modules of the user's environments.

    Raises:
        CannotUnpackError: If it cannot be unpacked here.
    """
    sys.path += [folder for folder in search_path if folder not in sys.path]
    try:
        work = pickle.loads(packed)  # noqa: S301  # packed by the training process that started this one
    except Exception as error:
        raise CannotUnpackError(f"{type(error).__name__}: {error}") from error
    return work()


def pack(work: Any) -> bytes:
    """Packs a callable; what was defined in a script, a notebook or a function goes along by value.

    Raises:
        Exception: Of any kind, if something in it cannot be pickled.
    """
    import cloudpickle

    script = sys.modules.get(SPAWNED_MAIN)
    if script is None or SPAWNED_MAIN in cloudpickle.list_registry_pickle_by_value():
        return bytes(cloudpickle.dumps(work))
    cloudpickle.register_pickle_by_value(script)
    try:
        return bytes(cloudpickle.dumps(work))
    finally:
        cloudpickle.unregister_pickle_by_value(script)
