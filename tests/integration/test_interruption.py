"""Trainings that an exception, Ctrl-C or SIGTERM ends: checkpoints come first, nothing waits, and rows are kept."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, OnExceptionCheckpoint
from pytorch_lightning.utilities.exceptions import SIGTERMException
from wandb_server import WandbServer, run_program

from rlwandb_callbacks import WandbRLCallback
from rlwandb_callbacks.testing import CorridorEnv, TinyValidatedQ, read_offline_run

pytestmark = [  # of Lightning, which takes a Trainer with OnExceptionCheckpoint for one that is resumed
    pytest.mark.filterwarnings("ignore:.*ckpt_path"),
    pytest.mark.filterwarnings("ignore:.*weights_only"),
]
SOON_SECONDS = 5.0  # at once, on a busy machine; what would be waited for takes 20 s and more
CHECKPOINT = "saved/on_exception.ckpt"
ENDINGS = [(RuntimeError, RuntimeError), (signal.SIGINT, SystemExit), (signal.SIGTERM, SystemExit)]
every_ending = pytest.mark.parametrize(("ending", "raised"), ENDINGS, ids=["exception", "SIGINT", "SIGTERM"])


def end_training(ending: Any) -> None:
    """Raises an exception, or sends a signal to this process."""
    if isinstance(ending, signal.Signals):
        os.kill(os.getpid(), ending)
    else:
        raise ending


def fit_with_checkpoint(fit: Any, *callbacks: pl.Callback, val_check_interval: int) -> None:
    """Trains with validations, and saves a checkpoint to the file ``CHECKPOINT`` if the training is interrupted."""
    fit(
        TinyValidatedQ(),
        *(*callbacks, OnExceptionCheckpoint("saved")),
        enable_checkpointing=True,
        val_check_interval=val_check_interval,
        num_sanity_val_steps=0,
    )


class Ends(pl.Callback):
    """Callback that ends the training after a batch, and notes when, and when the checkpoint of the end is written."""

    def __init__(self, ending: Any, batch_idx: int) -> None:
        self.ending, self.batch_idx = ending, batch_idx

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.batch_idx:
            self.ended_at = time.monotonic()
            end_training(self.ending)

    def on_save_checkpoint(self, *_: Any) -> None:
        self.saved_after = time.monotonic() - self.ended_at


class HeldRender(CorridorEnv):
    """Environment that renders nothing before a test ends."""

    released = threading.Event()

    def render(self) -> Any:
        self.released.wait(20)
        return super().render()


@pytest.fixture
def held() -> Iterator[None]:
    """Lets the thread that renders end after a test."""
    HeldRender.released.clear()
    yield
    HeldRender.released.set()


@pytest.fixture(autouse=True)
def outlives_sigterm() -> Iterator[None]:
    """Keeps this process alive if a signal comes when no training runs, after an error in a test."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    yield
    signal.signal(signal.SIGTERM, before)


@every_ending
@pytest.mark.filterwarnings("ignore:.*were abandoned")
def test_checkpoint_is_saved_before_videos_are_waited_for(
    fit: Any, held: None, ending: Any, raised: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits_seconds = 1.0
    monkeypatch.setattr("rlwandb_callbacks.callbacks.interruption.EXCEPTION_SECONDS", waits_seconds)
    ends = Ends(ending, batch_idx=6)
    callback = WandbRLCallback(executor="thread", env=HeldRender, policy="q_network", metrics={"every_n_steps": 2})
    with pytest.raises(raised):
        fit_with_checkpoint(fit, callback, ends, val_check_interval=4)
    seconds = time.monotonic() - ends.ended_at
    assert Path(CHECKPOINT).exists()
    assert ends.saved_after < SOON_SECONDS
    assert seconds < SOON_SECONDS + waits_seconds
    assert ending is signal.SIGTERM or seconds > waits_seconds
    run = read_offline_run("wandb")
    assert run.exit_code == 1
    assert [row["trainer/global_step"] for row in run.history if "train/loss" in row] == [1, 3, 5, 6][
        : len(run.history)
    ]
    assert [row["trainer/global_step"] for row in run.history if "eval/return_mean" in row] == [3]
    assert run.summary["logging/skipped"] == 1


@pytest.mark.filterwarnings("ignore:.*were abandoned")
def test_sigterm_ends_the_wait_at_the_end_of_a_training(fit: Any, held: None) -> None:
    class Terminates(pl.Callback):
        def teardown(self, *_: Any, **__: Any) -> None:
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()

    begun = time.monotonic()
    callback = WandbRLCallback(executor="thread", env=HeldRender, policy="q_network")
    with pytest.warns(UserWarning, match=r"were abandoned \(1 in the queue\)\. .* as the process was told to end"):
        fit(TinyValidatedQ(), Terminates(), callback)
    assert time.monotonic() - begun < 4 * SOON_SECONDS
    run = read_offline_run("wandb")
    assert run.exit_code == 0
    assert run.summary["logging/skipped"] == 1


@pytest.mark.parametrize(
    ("evaluation", "settings"),
    [(1, {"executor": "inline"}), (2, {"executor": "thread", "queue_full": "wait", "queue_size": 1})],
    ids=["videos in the training process", "a place in the queue"],
)
@pytest.mark.filterwarnings("ignore:.*abandoned")
def test_sigterm_ends_a_wait_within_the_training(
    fit: Any, held: None, evaluation: int, settings: dict[str, Any]
) -> None:
    signal_times: list[float] = []

    class Terminates(pl.Callback):
        num_evaluations = 0

        def on_validation_start(self, *_: Any) -> None:
            self.num_evaluations += 1
            if self.num_evaluations == evaluation:
                threading.Timer(1.0, self.terminate).start()

        def terminate(self) -> None:
            signal_times.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGTERM)

    callback = WandbRLCallback(settings, env=HeldRender, policy="q_network")
    with pytest.raises(SystemExit):
        fit_with_checkpoint(fit, callback, Terminates(), val_check_interval=2)
    assert time.monotonic() - signal_times[0] < 2 * SOON_SECONDS
    assert Path(CHECKPOINT).exists()
    run = read_offline_run("wandb")
    steps = [row["trainer/global_step"] for row in run.history if "eval/return_mean" in row]
    assert steps == [1, 3][:evaluation]
    assert run.summary["logging/skipped"] >= 1


@pytest.mark.parametrize(("moment", "steps", "exit_code"), [("batch", 7, 1), ("end", 8, 0)])
def test_a_process_is_gone_soon_after_sigterm_with_its_rows(moment: str, steps: int, exit_code: int) -> None:
    program = Path(__file__).parents[1] / "programs" / "terminated.py"
    process = subprocess.run(
        [sys.executable, program, moment], capture_output=True, check=False, text=True, timeout=120
    )
    ended_at = time.time()
    (signal_at,) = re.findall(r"signal at ([\d.]+)", process.stdout)
    assert ended_at - float(signal_at) < 3 * SOON_SECONDS, process.stderr
    assert process.returncode == {"batch": 0, "end": -signal.SIGTERM}[moment]
    assert Path(CHECKPOINT).exists() == (moment == "batch")
    run = read_offline_run("wandb")
    assert run.exit_code == exit_code
    assert len(run.column("train/loss")) == steps
    assert run.summary["logging/skipped"] >= 1


class SlowSteps(CorridorEnv):
    """Environment that ends the training in its 20th step of the second evaluation, and counts all steps of it."""

    ending: Any = None
    evaluations: int = 0
    steps: int = 0

    @classmethod
    def begin(cls, ending: Any) -> type[SlowSteps]:
        return type("SlowSteps", (cls,), {"ending": ending, "evaluations": 0, "steps": 0})

    def step(self, action: Any) -> Any:
        kind = type(self)
        if kind.evaluations == 2:
            kind.steps += 1
            if kind.steps == 20:
                kind.ended_at = time.monotonic()
                end_training(kind.ending)
        return super().step(action)


class CountsEvaluations(pl.Callback):
    """Callback that tells an environment of the evaluations."""

    def __init__(self, env: type[SlowSteps]) -> None:
        self.env = env

    def on_validation_start(self, *_: Any) -> None:
        self.env.evaluations += 1


@pytest.mark.parametrize("executor", ["inline", "thread"])
@pytest.mark.filterwarnings("ignore:.*were abandoned")
def test_evaluation_stops_at_the_next_step_after_sigterm(fit: Any, executor: str) -> None:
    env = SlowSteps.begin(signal.SIGTERM)
    callback = WandbRLCallback(executor=executor, env=env, policy="q_network", evaluation={"episodes": 40})
    stopping = EarlyStopping("eval/return_mean", mode="max", patience=9)
    with pytest.raises(SIGTERMException):
        fit_with_checkpoint(fit, CountsEvaluations(env), callback, stopping, val_check_interval=4)
    assert env.steps <= 20 + 8, "each of the environments that play side by side may take one more step"
    run = read_offline_run("wandb")
    assert [row["trainer/global_step"] for row in run.history if "eval/return_mean" in row] == [3]
    assert "logging/errors" not in run.summary
    state = torch.load(CHECKPOINT, weights_only=False)
    (saved,) = [each for key, each in state["callbacks"].items() if key.startswith("EarlyStopping")]
    assert saved["wait_count"] == 0
    assert state["global_step"] == 8


def kill_and_resume(environment: dict[str, str], folder: Path) -> None:
    program = Path(__file__).parents[1] / "programs" / "killed.py"
    for returncode in (-signal.SIGKILL, 0):
        result = run_program(program, environment, cwd=folder, timeout_seconds=120)
        assert result.returncode == returncode, result.stderr


def steps_of(rows: Iterable[dict[str, Any]], key: str) -> list[int]:
    return [row["trainer/global_step"] for row in rows if key in row]


def test_an_offline_run_that_is_killed_and_resumed_has_each_row_once(tmp_path: Path) -> None:
    kill_and_resume(dict(os.environ), tmp_path)
    runs = [read_offline_run(folder) for folder in sorted(Path("wandb").glob("offline-run-*-taken1"))]
    assert [run.exit_code for run in runs] == [None, 0]
    rows = [row for run in runs for row in run.history]
    assert steps_of(rows, "train/loss") == list(range(8))
    assert steps_of(rows, "eval/return_mean") == [1, 3, 5, 7]


@pytest.mark.long
@pytest.mark.timeout(300)
def test_an_online_run_that_is_killed_and_resumed_has_each_row_once(server: WandbServer, tmp_path: Path) -> None:
    sends_each_second = {"WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1"}  # by default every 15 s
    kill_and_resume({**server.environment(tmp_path), **sends_each_second}, tmp_path)
    rows = server.rows("taken1")
    assert [row["_step"] for row in rows] == list(range(len(rows)))
    assert steps_of(rows, "train/loss") == list(range(8))
    assert steps_of(rows, "eval/return_mean") == [1, 3, 5, 7]
