"""Code of the worker process; imports the standard library only, so that thread limits are set before numpy loads."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from rlwandb_callbacks.errors import name_and_message
from rlwandb_callbacks.tracking.reply import pack_reply
from rlwandb_callbacks.tracking.worker_mark import Mark

NICENESS = 10
PARENT_CHECK_SECONDS = 2.0
SPAWNED_MAIN = "__mp_main__"  # name of the user's script in a spawned process (ddp_spawn); the worker has its own
LIBRARIES = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "NUMBA")
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in LIBRARIES}
# loky treats a worker that has grown by 300 MB as leaking, warns and replaces it; maps and videos may need more.
# Versions before 3.7 lack this setting.
ROOM_TO_GROW = {"LOKY_MAX_MEMORY_LEAK_SIZE": "2e9"}
COMPILED_CODE_FAILED = "compiled code failed in it, such as that of a simulator or a graphics library"
EXIT_CODE = re.compile(r"\{(\w+)\((-?\d+)\)")  # in messages of loky
SENT_FROM_OUTSIDE = ("SIGKILL", "SIGTERM", "SIGHUP", "SIGINT")
LIKELY_CAUSES = {
    "SIGKILL": "the system ended it, most likely as it had no memory left",
    "SIGTERM": "another process ended it",
    "EXIT": "code in it ended the process",
    **dict.fromkeys(("SIGABRT", "SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGTRAP"), COMPILED_CODE_FAILED),
}


class CannotUnpackError(Exception):
    """The worker cannot unpickle a job, for instance because a module is not on its search path."""


class WorkerDiedError(RuntimeError):
    """The worker process ended while it ran a job.

    Attributes:
        job: Name of the job; empty if it has none.
        is_from_outside: Whether a signal ended the process that other processes and the system send.
    """

    job = ""
    is_from_outside = False

    @classmethod
    def from_executor(cls, error: BaseException, job: str = "") -> WorkerDiedError:
        """Converts the error of an executor whose process has ended; loky's message has the name of the signal.

        Example:
            >>> WorkerDiedError.from_executor(RuntimeError("The exit codes of the workers are {SIGKILL(-9)}"))
            WorkerDiedError('The worker process ended (SIGKILL): the system ended it, most likely as it had no memory...
        """
        found = EXIT_CODE.search(str(error))
        work = f" while it made {job}" if job else ""
        if found is None:
            died = cls(f"The worker process ended{work}: {error}")
        else:
            name, code = found.groups()
            ending = f"exit code {code}" if name == "EXIT" else name
            cause = LIKELY_CAUSES.get(name, "the reason is not known")
            died = cls(f"The worker process ended ({ending}){work}: {cause}. Its last output on stderr may say more.")
            died.is_from_outside = name in SENT_FROM_OUTSIDE
        died.job = job
        return died


def reason_of(error: Exception) -> Exception:
    """Returns the error of a broken executor, or, if its message has the signal that ended a process, what that means.

    Example:
        >>> reason_of(RuntimeError("A process was terminated abruptly."))
        RuntimeError('A process was terminated abruptly.')
        >>> reason_of(RuntimeError("The exit codes of the workers are {SIGKILL(-9)}"))
        WorkerDiedError('The worker process ended (SIGKILL): the system ended it, most likely as it had no memory...
    """
    return WorkerDiedError.from_executor(error) if EXIT_CODE.search(str(error)) else error


class WorkersLostError(RuntimeError):
    """The engine of the user's executor has no workers left, so that its jobs would never be run."""


class JobCancelledError(RuntimeError):
    """An executor of the user cancelled a job before it was done."""

    @classmethod
    def of(cls, job: str, reason: Exception) -> JobCancelledError:
        """Makes the error from the name of the job, which may be empty, and the error of the executor.

        Example:
            >>> JobCancelledError.of("video/best of step 4", JobCancelledError())
            JobCancelledError('video/best of step 4 was cancelled in your executor, as shutdown(cancel_futures=True)...
        """
        said = f". It says: {reason}" if str(reason) else ""
        return cls(
            f"{job or 'A job'} was cancelled in your executor, as shutdown(cancel_futures=True) and the restart of a "
            f"cluster do, and is left out{said}"
        )


class JobStuckError(RuntimeError):
    """A job was not ready within its time limit.

    Attributes:
        job: Name of the job; empty if it has none.
    """

    job = ""

    @classmethod
    def after(cls, max_seconds: float, job: str, place: str) -> JobStuckError:
        """Makes the error from the time limit, the name of the job, and where it is, which may be empty.

        Example:
            >>> JobStuckError.after(600.0, "video/best of step 400", "it was in render (env.py, line 12)")
            JobStuckError('video/best of step 400 was not ready after 600 s (videos.max_seconds); it was in render...
        """
        where = f"; {place}" if place else ""
        stuck = cls(
            f"{job or 'A job'} was not ready after {max_seconds:g} s (videos.max_seconds){where}. If it is slow and "
            "does not hang, raise videos.max_seconds."
        )
        stuck.job = job
        return stuck


def become_worker(start_method: str | None = None, folder: str | None = None) -> None:
    """Lowers the priority of this process, ignores Ctrl-C, and exits when the training process has exited.

    Args:
        start_method: How environments start processes of their own, which loky would start otherwise. None for
            Python's default.
        folder: Folder of the marks of jobs, which is removed if the training process leaves it behind.
    """
    multiprocessing.set_start_method(start_method, force=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(AttributeError, OSError):  # Windows has neither, and a container may forbid both
        os.setpgid(0, 0)
        os.nice(NICENESS)
    threading.Thread(target=_leave_with, args=(os.getppid(), folder), daemon=True).start()


def _leave_with(parent: int, folder: str | None) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_SECONDS)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def run_packed(
    packed: bytes,
    search_path: Sequence[str],
    training_process: int,
    prepare: Callable[[], None] | None = None,
    mark: Mark | None = None,
    call: str = "",  # noqa: ARG001  # only its difference counts
) -> bytes:
    """Runs a callable that :func:`pack` pickled, with the modules on the search path of the training process.

    Args:
        packed: The pickled callable, which returns the bytes of a reply.
        search_path: ``sys.path`` of the training process.
        training_process: Id of the training process. In all others each error is a part of the reply, as executors
            would have to send it: with a CannotUnpackError if the callable cannot be unpickled there.
        prepare: Called before anything is unpickled, which may import packages that read environment variables.
        mark: Shows the training process when the callable started, and where it is stuck.
        call: Differs between calls, for executors that run equal calls once only.

    Raises:
        KeyboardInterrupt: By Ctrl-C.
        BaseException: In the training process, of types other than Exception: they may be meant to end it.
    """
    try:
        work = _unpacked(packed, search_path, prepare)
        with contextlib.nullcontext() if mark is None else mark.running():
            reply: bytes = work()
            return reply
    except KeyboardInterrupt:
        raise KeyboardInterrupt from None  # without the class and the arguments of another one
    except BaseException as error:
        if os.getpid() == training_process and not isinstance(error, Exception):
            raise
        return pack_reply({}, error)


def _unpacked(packed: bytes, search_path: Sequence[str], prepare: Callable[[], None] | None) -> Callable[[], bytes]:
    sys.path += [folder for folder in search_path if folder not in sys.path]
    if prepare is not None:
        prepare()
    try:
        work: Callable[[], bytes] = pickle.loads(packed)  # noqa: S301  # by the training process  # nosec B301
    except (Exception, SystemExit) as error:  # the import of a module may end the process
        raise CannotUnpackError(name_and_message(error)) from error
    return work


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
