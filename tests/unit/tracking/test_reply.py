"""Errors and values that cross between processes, of classes that do not exist, or fail, on the other side."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from functools import partial
from typing import Any

import numpy as np
import pytest

from rlwandb_callbacks.core.values import Scalar
from rlwandb_callbacks.errors import EnvError, RemoteError, RenderError, name_and_message
from rlwandb_callbacks.tracking.reply import pack_reply, portable_error, unpack_reply
from rlwandb_callbacks.tracking.result import from_bytes, run_to_bytes
from rlwandb_callbacks.tracking.worker_process import CannotUnpackError, JobStuckError, run_packed


class TwoArguments(Exception):  # noqa: N818
    """Pickles, and does not unpickle."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)


class NoText(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise TwoArguments(1, "no text")


class EndsPickling(Exception):  # noqa: N818
    def __reduce__(self) -> Any:
        raise KeyError("planted")


class NoLicenseError(EnvError):
    """An error of a foreign class below one of this package."""


def call(error: BaseException) -> Any:
    raise error


def test_errors_of_python_and_of_this_package_arrive_as_they_are() -> None:
    stuck = JobStuckError("stuck")
    stuck.job = "video/best"
    errors = [OSError(28, "No space left on device", "/data/a.mp4"), KeyError(3), RenderError("no display"), stuck]
    for error in errors:
        _, found = unpack_reply(pack_reply({}, error))
        assert type(found) is type(error)
        assert (str(found), vars(found)) == (str(error), vars(error))


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TwoArguments(3, "planted"), "TwoArguments: planted"),
        (EndsPickling("planted"), "EndsPickling: planted"),
        (NoLicenseError("planted"), "NoLicenseError: planted"),
        (ValueError(np.float32(2.0)), "ValueError: 2.0"),
        (ValueError("planted", TwoArguments(3, "inside")), "ValueError: ('planted', TwoArguments('inside'))"),
        (SystemExit(3), "SystemExit: 3"),
        (NoText("planted"), "NoText."),
        (ValueError("start " + "y" * 3_000_000 + " end"), "ValueError: start … end"),
    ],
)
def test_other_errors_arrive_as_text(error: BaseException, text: str) -> None:
    _, found = unpack_reply(pack_reply({}, error))
    assert type(found) is RemoteError
    assert str(found) == name_and_message(found) == text
    assert type(portable_error(error)) is RemoteError


def test_an_error_from_another_process_shows_where_it_was_raised() -> None:
    try:
        call(TwoArguments(3, "planted"))
    except TwoArguments as error:
        _, found = unpack_reply(pack_reply({}, error))
    assert found is not None
    assert "test_reply.py" in str(found.__cause__)
    assert "in call" in str(found.__cause__)


UNPACK = """
import sys
from rlwandb_callbacks.tracking.reply import unpack_reply
print(repr(unpack_reply(sys.stdin.buffer.read())[1]))
"""


def test_a_process_without_the_class_of_an_error_reads_its_text() -> None:
    reply = pack_reply({}, TwoArguments(3, "planted"))
    command = [sys.executable, "-c", UNPACK]
    read = subprocess.run(command, input=reply, capture_output=True, check=True, timeout=60)
    assert read.stdout.decode().strip() == "RemoteError('TwoArguments: planted')"


def test_a_value_that_does_not_cross_costs_no_other_value() -> None:
    jobs = [partial(dict, {"a": Scalar(1.0), "broken": TwoArguments(3, "x"), "b": Scalar(2.0)})]
    result = from_bytes(run_to_bytes(jobs))
    assert result.values == {"a": Scalar(1.0), "b": Scalar(2.0)}
    assert str(result.error).startswith("broken cannot be unpickled: TypeError: ")
    result = from_bytes(run_to_bytes([partial(dict, a=Scalar(1.0), lock=threading.Lock())]))
    assert result.values == {"a": Scalar(1.0)}
    assert str(result.error).startswith("lock cannot be pickled: TypeError: ")


def test_arrays_that_have_crossed_can_be_written_to() -> None:
    array = from_bytes(run_to_bytes([partial(dict, a=np.zeros(10))])).values["a"]
    array[0] = 1.0  # type: ignore[index]  # any value


class Unpicklable:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        return call, (self.error,)


@pytest.mark.parametrize("error", [ValueError("planted"), SystemExit("planted")])
def test_a_job_that_cannot_be_unpickled_is_an_error_in_the_reply(error: BaseException) -> None:
    reply = run_packed(pickle.dumps(Unpicklable(error)), [], os.getppid())
    assert repr(unpack_reply(reply)[1]) == repr(CannotUnpackError(f"{type(error).__name__}: planted"))


class EndsProcess(BaseException):
    """May be meant to end the process, as what a signal handler raises."""


def test_only_the_training_process_is_ended_by_what_a_job_raises() -> None:
    packed = pickle.dumps(partial(call, EndsProcess("planted")))
    assert repr(unpack_reply(run_packed(packed, [], os.getppid()))[1]) == "RemoteError('EndsProcess: planted')"
    with pytest.raises(EndsProcess):
        run_packed(packed, [], os.getpid())
