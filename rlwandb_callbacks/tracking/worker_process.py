"""Code of the worker process; imports the standard library only, so that thread limits are set before numpy loads."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

NICENESS = 10
PARENT_CHECK_SECONDS = 2.0
SPAWNED_MAIN = "__mp_main__"  # name of the user's script in a spawned process (ddp_spawn); the worker has its own
LIBRARIES = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "NUMBA")
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in LIBRARIES}
# loky treats a worker that has grown by 300 MB as leaking, warns and replaces it; maps and videos may need more.
# Versions before 3.7 lack this setting.
ROOM_TO_GROW = {"LOKY_MAX_MEMORY_LEAK_SIZE": "2e9"}
COMPILED_CODE_FAILED = "compiled code failed in it, such as that of a simulator or a graphics library"
LIKELY_CAUSES = {
    "SIGKILL": "the system ended it, most likely as it had no memory left",
    "SIGTERM": "another process ended it",
    "EXIT": "code in it ended the process",
    **dict.fromkeys(("SIGABRT", "SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGTRAP"), COMPILED_CODE_FAILED),
}


class CannotUnpackError(Exception):
    """The worker cannot unpickle a job, for instance because a module is not on its search path."""


class WorkerDiedError(RuntimeError):
    """The worker process ended while it ran a job."""

    @classmethod
    def from_executor(cls, error: BaseException) -> WorkerDiedError:
        """Converts the error of an executor whose process has ended; loky's message has the name of the signal.

        Example:
            >>> WorkerDiedError.from_executor(RuntimeError("The exit codes of the workers are {SIGKILL(-9)}"))
            WorkerDiedError('The worker process ended (SIGKILL): the system ended it, most likely as it had no memory...
        """
        found = re.search(r"\{(\w+)\((-?\d+)\)", str(error))
        if found is None:
            return cls(f"The worker process ended: {error}")
        name, code = found.groups()
        ending = f"exit code {code}" if name == "EXIT" else name
        cause = LIKELY_CAUSES.get(name, "the reason is not known")
        return cls(f"The worker process ended ({ending}): {cause}. Its last output on stderr may say more.")


def become_worker(start_method: str | None = None) -> None:
    """Lowers the priority of this process, ignores Ctrl-C, and exits when the training process has exited.

    Args:
        start_method: How environments start processes of their own, which loky would start otherwise. None for
            Python's default.
    """
    multiprocessing.set_start_method(start_method, force=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(AttributeError, OSError):  # Windows has neither, and a container may forbid both
        os.setpgid(0, 0)
        os.nice(NICENESS)
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_SECONDS)
    os._exit(1)


def run_packed(packed: bytes, search_path: Sequence[str], prepare: Callable[[], None] | None = None) -> Any:
    """Runs a callable that :func:`pack` pickled, with the modules on the search path of the training process.

    Args:
        packed: The pickled callable.
        search_path: ``sys.path`` of the training process.
        prepare: Called before anything is unpickled, which may import packages that read environment variables.

    Raises:
        CannotUnpackError: If it cannot be unpickled in this process.
    """
    sys.path += [folder for folder in search_path if folder not in sys.path]
    if prepare is not None:
        prepare()
    try:
        work = pickle.loads(packed)  # noqa: S301  # pickled by the training process that started this one
    except Exception as error:
        raise CannotUnpackError(f"{type(error).__name__}: {error}") from error
    return work()


def pack(work: Any) -> bytes:
    """Pickles a callable; definitions of a script, a notebook or a function are pickled by value.

    Raises:
        Exception: Of any type, if a part of it cannot be pickled.
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
