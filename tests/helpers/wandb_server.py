"""A W&B-compatible server on loopback behind a recording proxy, and programs that train against it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from wandb_answers import HISTORY, MissingAnswers
from wandb_proxy import Behavior, Fault, Kind, RecordingProxy, Request

API_KEY = "0123456789abcdef0123456789abcdef01234567"  # openwandb takes any key of the right length
# Ends with this process, however that ends: its standard input is closed then.
OPENWANDB = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True).start()
from openwandb.cli import main
main()
"""


class WandbServer:
    """openwandb behind a :class:`RecordingProxy`; :class:`MissingAnswers` answers what openwandb lacks.

    Args:
        backend_port: Port of openwandb.
        data_folder: Its data folder.
    """

    def __init__(self, backend_port: int, data_folder: Path) -> None:
        self._data_folder = data_folder
        self._answers = MissingAnswers()
        self.proxy = RecordingProxy(backend_port, self._answers.answer, self._answers.accept)
        self._answers.url = self.url

    @property
    def url(self) -> str:
        """Returns the address for ``WANDB_BASE_URL``."""
        return f"http://127.0.0.1:{self.proxy.port}"

    @property
    def requests(self) -> list[Request]:
        """Returns the requests since the last reset, in the order of their answers."""
        return self.proxy.requests

    @property
    def alerts(self) -> list[dict[str, Any]]:
        """Returns the alerts since the last reset: ``title``, ``text``, ``severity``, ``runName`` and others."""
        return self._answers.alerts

    def environment(self, folder: Path) -> dict[str, str]:
        """Returns environment variables for a program that is online at this server and has its home in ``folder``."""
        netrc = folder / "netrc"
        netrc.write_text(f"machine 127.0.0.1:{self.proxy.port}\n  login user\n  password {API_KEY}\n")
        netrc.chmod(0o600)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        direct = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        ours = {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": API_KEY, "NETRC": str(netrc), "HOME": str(folder)}
        return kept | threads | direct | ours

    def behave(
        self,
        fault: Fault,
        *,
        seconds: float = 1.0,
        status: int = 500,
        of: Literal["all"] | Kind = "all",
        share: float = 1.0,
    ) -> None:
        """Sets what happens to requests from now on.

        Args:
            fault: ``normal``; ``late`` answers after ``seconds``; ``never`` accepts and does not answer; ``status``
                answers ``status``; ``gone`` refuses connections.
            seconds: Delay of ``late``.
            status: HTTP status of ``status``.
            of: Kind of requests that are hit; others are answered.
            share: Share of these requests that are hit, drawn at random.
        """
        self.proxy.behave(Behavior(fault, seconds, status, of, share))

    def reset(self) -> None:
        """Answers normally again and forgets requests and alerts; runs stay."""
        self.behave("normal")
        self.proxy.requests.clear()
        self.proxy.unknown_operations.clear()
        self._answers.alerts.clear()

    def rows(self, run_id: str) -> list[dict[str, Any]]:
        """Returns the history rows of a run that the server has accepted, sorted by ``_step``."""
        lines = self._answers.lines.get(run_id, {}).get(HISTORY, {})
        return sorted((json.loads(line) for line in lines.values()), key=lambda row: row["_step"])

    def files(self, run_id: str) -> dict[str, bytes]:
        """Returns the files of a run at the server, by their paths in the run."""
        folders = (self._data_folder / "files").glob(f"*/*/{run_id}")
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for folder in folders
            for path in folder.rglob("*")
            if path.is_file()
        }

    def run_ids(self) -> list[str]:
        """Returns the ids of all runs with rows."""
        return list(self._answers.lines)


@contextmanager
def wandb_server() -> Iterator[WandbServer]:
    """Starts openwandb and the proxy, and stops both at the end."""
    with tempfile.TemporaryDirectory(prefix="openwandb-") as folder:
        port = free_port()
        arguments = [
            "serve",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--data-dir",
            folder,
            "--log-level",
            "warning",
        ]
        log = Path(folder) / "log.txt"
        with (
            log.open("wb") as output,
            subprocess.Popen(
                [sys.executable, "-c", OPENWANDB, *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=folder,
            ) as process,
        ):
            try:
                _wait_until_it_listens(port, process, log)
                server = WandbServer(port, Path(folder))
                try:
                    yield server
                finally:
                    server.proxy.close()
            finally:
                process.kill()


@dataclass(frozen=True)
class ProgramResult:
    """What a program returned.

    Attributes:
        returncode: Exit code; negative if a signal ended it.
        stdout: Standard output.
        stderr: Standard error.
        seconds: Time from start to exit.
    """

    returncode: int
    stdout: str
    stderr: str
    seconds: float


def run_program(
    program: Path | str,
    environment: dict[str, str],
    *,
    cwd: Path,
    timeout_seconds: float = 60.0,
    arguments: tuple[str, ...] = (),
) -> ProgramResult:
    """Runs a Python program to its end.

    Args:
        program: Path of a script, or source code.
        environment: Its environment variables.
        cwd: Its working folder.
        timeout_seconds: The program and all processes of its group are killed after this time.
        arguments: Arguments of the program.

    Raises:
        TimeoutError: If the program did not end; with its output.
    """
    source = [str(program)] if isinstance(program, Path) else ["-c", program]
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:  # W&B's process may hold pipes
        process = subprocess.Popen(
            [sys.executable, *source, *arguments],
            env=environment,
            cwd=cwd,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        try:
            process.wait(timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"The program did not end within {timeout_seconds} s.\n{_content(stderr)}") from None
        finally:
            if process.poll() is None:
                kill_group(process)
                process.wait()
        seconds = time.monotonic() - started
        return ProgramResult(process.returncode, _content(stdout), _content(stderr), seconds)


def _content(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


def kill_group(process: subprocess.Popen[Any]) -> None:
    """Kills a process that leads a session, with its children."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def free_port() -> int:
    """Returns a free port on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_it_listens(port: int, process: subprocess.Popen[bytes], log: Path, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return
        time.sleep(0.05)
    raise RuntimeError(f"openwandb did not start:\n{log.read_text()}")
