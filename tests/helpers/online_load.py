"""Trains against a server that fails, and reports what it cost and what was lost."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wandb_server import WandbServer, run_program

from rlwandb_callbacks.testing import read_offline_run

PROGRAM = Path(__file__).parents[1] / "programs" / "online_load.py"
FAULTS: dict[str, dict[str, Any]] = {
    "normal": {"fault": "normal"},
    "gone": {"fault": "gone"},
    "silent": {"fault": "never"},
    "slow": {"fault": "late", "seconds": 1.0},
    "429 at random": {"fault": "status", "status": 429, "share": 0.5},
    "500 at random": {"fault": "status", "status": 500, "share": 0.5},
}


@dataclass(frozen=True)
class LoadReport:
    """What a training against a failing server cost and lost.

    Attributes:
        returncode: Exit code of the program.
        longest_hook_seconds: Longest time that a hook took between start and end of training, in seconds.
        longest_hook: Name of this hook.
        missing_updates: Updates without their metrics in the local file.
        missing_evaluations: Evaluations without their numbers in the local file.
        missing_pictures: Evaluations without their figure of returns in the local file.
        missing_videos: Evaluations without their best video in the local file.
        seconds: Time of the program, in seconds.
        stderr: Standard error of the program.
    """

    returncode: int
    longest_hook_seconds: float
    longest_hook: str
    missing_updates: int
    missing_evaluations: int
    missing_pictures: int
    missing_videos: int
    seconds: float
    stderr: str


def train_against(
    server: WandbServer,
    fault: str,
    folder: Path,
    *,
    updates: int,
    evaluations: int,
    finish_seconds: float,
    executor: str,
    timeout_seconds: float,
) -> LoadReport:
    """Trains with a fault that begins once the run is open at the server.

    Args:
        server: The server; it answers normally again afterwards.
        fault: A key of ``FAULTS``.
        folder: Working folder of the program.
        updates: Number of updates.
        evaluations: Number of evaluations.
        finish_seconds: Setting of the callback.
        executor: Setting of the callback.
        timeout_seconds: Longest time of the program, in seconds.
    """
    ended = threading.Event()
    injector = threading.Thread(target=_inject_when_open, args=(server, FAULTS[fault], ended))
    injector.start()
    try:
        result = run_program(
            PROGRAM,
            server.environment(folder),
            cwd=folder,
            timeout_seconds=timeout_seconds,
            arguments=(str(updates), str(evaluations), str(finish_seconds), executor),
        )
    finally:
        ended.set()
        injector.join()
        server.behave("normal")
    if not result.stdout.strip():
        raise RuntimeError(f"The program ended with {result.returncode}:\n{result.stderr}")
    report = json.loads(result.stdout.splitlines()[-1])
    run = read_offline_run(folder / report["folder"], wait_seconds=1.0)
    return LoadReport(
        returncode=result.returncode,
        longest_hook_seconds=report["longest"],
        longest_hook=report["hook"],
        missing_updates=updates - len(run.column("train/loss")),
        missing_evaluations=evaluations - len(run.column("eval/return_mean")),
        missing_pictures=evaluations - len(run.column("eval/return_figure")),
        missing_videos=evaluations - len(run.column("video/best")),
        seconds=result.seconds,
        stderr=result.stderr,
    )


def _inject_when_open(server: WandbServer, fault: dict[str, Any], ended: threading.Event) -> None:
    while not ended.is_set():
        if any(request.kind == "file_stream" for request in list(server.requests)):
            server.behave(**fault)
            return
        time.sleep(0.02)
