"""Background jobs of a training: the executing process, the steps of their rows, and shutdown."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
import wandb
from failing_modules import RaisesInTraining

from rlwandb_callbacks import EvaluationCallback, WandbRLCallback
from rlwandb_callbacks.testing import CorridorEnv, MemoryTracker, TinyValidatedQ, read_offline_run

LABELS = ("best", "median", "worst")


class MarksProcess(CorridorEnv):
    """Environment whose frames show whether they were rendered outside the training process."""

    def render(self) -> Any:
        picture = super().render()
        if picture is not None:
            picture[:, :, 1:] = np.array([255 * (os.getpid() != int(os.environ["TRAINING_PID"]))] * 2, np.uint8)
        return picture


class SlowRender(CorridorEnv):
    """Environment whose render() takes 0.1 seconds."""

    def render(self) -> Any:
        time.sleep(0.1)
        return super().render()


@pytest.mark.parametrize(("executor", "in_other_process"), [("process", True), ("thread", False), ("inline", False)])
def test_videos_are_rendered_in_the_process_of_the_executor(
    fit: Any, decode: Any, monkeypatch: pytest.MonkeyPatch, executor: str, in_other_process: bool
) -> None:
    monkeypatch.setenv("TRAINING_PID", str(os.getpid()))
    fit(TinyValidatedQ(), WandbRLCallback(executor=executor, env=MarksProcess, policy="q_network", on_error="raise"))
    run = read_offline_run("wandb")
    for label in LABELS:
        _, frames = decode(run.media(f"video/{label}")[0])
        assert (frames[0, 10, 10, 1] > 128) == in_other_process
    assert "logging/errors" not in run.summary


def test_rows_from_the_worker_have_the_step_of_their_evaluation(fit: Any) -> None:
    callback = WandbRLCallback(
        executor="process", queue_size=9, env=SlowRender, policy="q_network", metrics={"every_n_steps": 1}
    )
    fit(TinyValidatedQ(batches=8), callback, val_check_interval=4, num_sanity_val_steps=0)
    run = read_offline_run("wandb")
    steps = {
        key: [row["trainer/global_step"] for row in run.history if key in row]
        for key in ("eval/return_mean", "video/best")
    }
    assert steps == {"eval/return_mean": [3, 7], "video/best": [3, 7]}
    positions = [index for index, row in enumerate(run.history) if "video/best" in row]
    training = [index for index, row in enumerate(run.history) if "train/loss" in row]
    assert positions[0] > training[4], "the first video came while training went on"
    assert run.summary["trainer/global_step"] == 7
    assert run.summary["time/updates"] == 8
    captions = [row["video/best"]["caption"] for row in run.history if "video/best" in row]
    assert captions[0].endswith("env step 40")


def test_full_queue_skips_and_counts_videos_but_logs_statistics(fit: Any) -> None:
    tracker = MemoryTracker()
    callback = EvaluationCallback(executor="process", queue_size=1, env=SlowRender, policy="q_network", tracker=tracker)
    with pytest.warns(UserWarning, match="was skipped, as the queue of videos and pictures is full"):
        fit(TinyValidatedQ(batches=8), callback, val_check_interval=1, num_sanity_val_steps=0)
    videos, skipped = len(tracker.column("video/best")), tracker.column("logging/skipped")
    assert len(tracker.column("eval/return_mean")) == 8
    assert videos >= 1
    assert skipped[-1] == 8 - videos


def test_full_queue_blocks_training_if_configured(fit: Any) -> None:
    tracker = MemoryTracker()
    callback = EvaluationCallback(
        executor="thread", queue_size=1, queue_full="wait", env=CorridorEnv, policy="q_network", tracker=tracker
    )
    fit(TinyValidatedQ(batches=6), callback, val_check_interval=1, num_sanity_val_steps=0)
    assert [row["trainer/global_step"] for row in tracker.rows if "video/best" in row] == [0, 1, 2, 3, 4, 5]
    assert not tracker.column("logging/skipped")


def test_jobs_that_exceed_finish_seconds_are_abandoned_and_counted(fit: Any) -> None:
    tracker = MemoryTracker()
    callback = EvaluationCallback(
        executor="process", finish_seconds=0.1, env=SlowRender, policy="q_network", tracker=tracker
    )
    with pytest.warns(UserWarning, match="were abandoned .1 in the queue"):
        fit(TinyValidatedQ(), callback)
    assert tracker.column("logging/skipped") == [1]
    assert not tracker.column("video/best")


@pytest.mark.parametrize(("error", "raised"), [(RuntimeError("boom"), RuntimeError), (KeyboardInterrupt(), SystemExit)])
def test_pending_videos_are_logged_after_an_exception_or_ctrl_c(
    fit: Any, monkeypatch: pytest.MonkeyPatch, error: Any, raised: Any
) -> None:
    # A slow machine needs more than 5 s to start the worker.
    monkeypatch.setattr("rlwandb_callbacks.callbacks.interruption.EXCEPTION_SECONDS", 60.0)
    callback = WandbRLCallback(executor="process", env=CorridorEnv, policy="q_network")
    with pytest.raises(raised):
        fit(RaisesInTraining(error, epoch=1), callback, max_epochs=2)
    run = read_offline_run("wandb")
    assert len(run.media("video/best")) == 1
    assert run.exit_code == 1


def test_user_executor_is_used_and_not_shut_down(fit: Any) -> None:
    tracker = MemoryTracker()
    with ThreadPoolExecutor(2) as executor:
        callback = EvaluationCallback(executor=executor, env=CorridorEnv, policy="q_network", tracker=tracker)
        fit(TinyValidatedQ(), callback)
        assert executor.submit(int, "7").result() == 7
    assert len(tracker.column("video/best")) == 1


def test_env_that_cannot_be_pickled_is_rendered_in_the_training_process_with_one_warning(fit: Any) -> None:
    class HasEnvFactory(TinyValidatedQ):
        def make_env(self, render_mode: str | None = None) -> CorridorEnv:
            return CorridorEnv(render_mode)

    tracker, module = MemoryTracker(), HasEnvFactory(batches=4)
    callback = EvaluationCallback(executor="process", env=module.make_env, policy="q_network", tracker=tracker)
    with pytest.warns(UserWarning, match="no worker could take the job") as caught:
        fit(module, callback, val_check_interval=2, num_sanity_val_steps=0)
    assert len([warning for warning in caught if "no worker" in str(warning.message)]) == 1
    assert len(tracker.column("video/best")) == 2


def test_statistics_are_logged_if_rendering_fails_in_the_worker(fit: Any, monkeypatch: Any) -> None:
    class RenderErrorEnv(CorridorEnv):
        def render(self) -> Any:
            raise RuntimeError("no display in the worker")

    tracker = MemoryTracker()
    callback = EvaluationCallback(executor="process", env=RenderErrorEnv, policy="q_network", tracker=tracker)
    with pytest.warns(UserWarning, match="no display in the worker"):
        fit(TinyValidatedQ(), callback)
    assert len(tracker.column("eval/return_mean")) == 1
    assert tracker.column("logging/errors") == [1]


class AbortsInRender(CorridorEnv):
    """Environment whose renderer ends the process, as MuJoCo's does without a display."""

    def render(self) -> Any:
        os.abort()


def test_env_that_ends_the_worker_is_named_with_the_signal_and_training_goes_on(fit: Any) -> None:
    tracker = MemoryTracker()
    callback = EvaluationCallback(executor="process", env=AbortsInRender, policy="q_network", tracker=tracker)
    with pytest.warns(UserWarning, match="Making videos failed") as caught:
        fit(TinyValidatedQ(batches=6), callback, val_check_interval=2, num_sanity_val_steps=0)
    messages = [str(warning.message) for warning in caught if "failed, and training" in str(warning.message)]
    assert len(messages) == 1
    for fragment in ("AbortsInRender", "SIGABRT", "compiled code failed", "video_logger=False"):
        assert fragment in messages[0]
    assert len(tracker.column("eval/return_mean")) == 3


class HangsOnce(CorridorEnv):
    """Environment whose render() hangs in the first clip that is made of it."""

    def render(self) -> Any:
        if Path(os.environ["MARKS"], "hung").exists():
            return super().render()
        Path(os.environ["MARKS"], "hung").write_text("")
        return time.sleep(600)


def test_a_render_that_hangs_costs_one_video_and_is_named(
    fit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARKS", str(tmp_path))
    tracker = MemoryTracker()
    callback = EvaluationCallback(
        executor="process", env=HangsOnce, policy="q_network", tracker=tracker, videos={"max_seconds": 8}
    )
    with pytest.warns(UserWarning, match="Making videos failed") as caught:
        fit(TinyValidatedQ(), callback)
    (message,) = [str(warning.message) for warning in caught if "failed, and training" in str(warning.message)]
    for fragment in ("HangsOnce", "was not ready after 8 s (videos.max_seconds)", "in render (test_worker.py, line"):
        assert fragment in message
    assert sorted(len(tracker.column(f"video/{label}")) for label in LABELS) == [0, 1, 1]
    assert len(tracker.column("eval/return_figure")) == 1
    assert tracker.column("logging/errors") == [1]


class KillsWorkerOnce(CorridorEnv):
    """Environment that kills the process which renders it, as the system does without memory, but only once."""

    def render(self) -> Any:
        if not Path(os.environ["MARKS"], "killed").exists():
            Path(os.environ["MARKS"], "killed").write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().render()


def test_a_worker_that_is_killed_once_costs_no_video(fit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKS", str(tmp_path))
    tracker = MemoryTracker()
    callback = EvaluationCallback(
        executor="process", queue_size=9, env=KillsWorkerOnce, policy="q_network", tracker=tracker, on_error="raise"
    )
    fit(TinyValidatedQ(batches=6), callback, val_check_interval=2, num_sanity_val_steps=0)
    steps = [row["trainer/global_step"] for row in tracker.rows if "video/best" in row]
    assert steps == [1, 3, 5]
    assert [len(tracker.column(f"video/{label}")) for label in LABELS] == [3, 3, 3]


def test_a_pool_of_the_user_whose_process_is_killed_once_costs_no_video(
    fit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARKS", str(tmp_path))
    tracker = MemoryTracker()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        callback = EvaluationCallback(
            executor=executor, queue_size=9, env=KillsWorkerOnce, policy="q_network", tracker=tracker
        )
        with pytest.warns(UserWarning, match=r"your executor \(ProcessPoolExecutor\) failed to run a job") as caught:
            fit(TinyValidatedQ(batches=4), callback, val_check_interval=2, num_sanity_val_steps=0)
    assert sum("executor" in str(warning.message) for warning in caught) == 1
    assert [row["trainer/global_step"] for row in tracker.rows if "video/best" in row] == [1, 3]
    assert [len(tracker.column(f"video/{label}")) for label in LABELS] == [2, 2, 2]


class CancelsFirst(ThreadPoolExecutor):
    """Executor that cancels its first job, as a cluster does that is restarted."""

    is_new = True

    def submit(self, *arguments: Any, **keywords: Any) -> Any:
        if not self.is_new:
            return super().submit(*arguments, **keywords)
        self.is_new = False
        future: Future[Any] = Future()
        assert future.cancel()
        return future


def test_a_job_that_is_cancelled_is_told_with_the_reason_and_later_videos_are_made(fit: Any) -> None:
    tracker = MemoryTracker()
    with CancelsFirst(1) as executor:
        callback = EvaluationCallback(
            executor=executor, queue_size=9, env=CorridorEnv, policy="q_network", tracker=tracker
        )
        with pytest.warns(UserWarning, match="video/best of step 1, .* was cancelled in your executor") as caught:
            fit(TinyValidatedQ(batches=6), callback, val_check_interval=2, num_sanity_val_steps=0)
    assert sum("rlwandb" in str(warning.message) for warning in caught) == 1
    assert [row["trainer/global_step"] for row in tracker.rows if "video/best" in row] == [3, 5]


def test_without_ffmpeg_contact_sheets_are_logged_and_one_warning_names_the_cause(
    fit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/no/such/ffmpeg")
    callback = WandbRLCallback(executor="process", queue_size=9, env=CorridorEnv, policy="q_network")
    with pytest.warns(UserWarning, match="ffmpeg /no/such/ffmpeg cannot be started") as caught:
        fit(TinyValidatedQ(batches=4), callback, val_check_interval=2, num_sanity_val_steps=0)
    messages = [str(warning.message) for warning in caught if "failed, and training" in str(warning.message)]
    assert len(messages) == 1
    assert "Free space" not in messages[0]
    run = read_offline_run("wandb")
    assert [len(run.media(f"video/{label}_sheet")) for label in LABELS] == [2, 2, 2]
    assert [len(run.media(f"video/{label}")) for label in LABELS] == [0, 0, 0]


def test_what_a_killed_worker_left_is_removed_at_the_next_start(fit: Any, tmp_path: Path) -> None:
    folder = tmp_path / "videos" / "earlier"
    folder.mkdir(parents=True)
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom rlwandb_callbacks.media.mp4 import video_writer\n"
        "import numpy as np\n"
        "with video_writer(Path(sys.argv[1]), fps=9) as video:\n"
        "    while not list(Path(sys.argv[1]).parent.glob('.*.part.mp4')):  # ffmpeg opens it after some frames\n"
        "        video.write(np.zeros((64, 64, 3), np.uint8))\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(folder / "clip.mp4")], check=False, timeout=60)
    assert [path.suffixes[-2:] for path in folder.iterdir()] == [[".part", ".mp4"]]
    callback = EvaluationCallback(
        executor="process", env=CorridorEnv, policy="q_network", tracker=MemoryTracker(), record_path=str(folder.parent)
    )
    fit(TinyValidatedQ(), callback)
    assert list(folder.iterdir()) == []
    assert len(list(folder.parent.glob("*.mp4"))) == 3


def make_async_vector(render_mode: str | None = None) -> Any:
    return gym.vector.AsyncVectorEnv([partial(CorridorEnv, render_mode)] * 2)


def test_vector_with_subprocesses_has_videos(fit: Any) -> None:
    tracker = MemoryTracker()
    callback = EvaluationCallback(
        executor="process", env=make_async_vector, policy="q_network", tracker=tracker, on_error="raise"
    )
    fit(TinyValidatedQ(), callback)
    assert [len(tracker.column(f"video/{label}")) for label in LABELS] == [1, 1, 1]


def test_weights_do_not_depend_on_the_executor(fit: Any) -> None:
    def weights(executor: str) -> list[torch.Tensor]:
        torch.manual_seed(3)
        module = TinyValidatedQ()
        fit(module, WandbRLCallback(executor=executor, env=CorridorEnv, policy="q_network", tracker=MemoryTracker()))
        return list(module.state_dict().values())

    inline = weights("inline")
    assert all(torch.equal(*pair) for kind in ("process", "thread") for pair in zip(inline, weights(kind), strict=True))


SCRIPT = """
import gymnasium as gym
import pytorch_lightning as pl
from rlwandb_callbacks import WandbRLCallback
from rlwandb_callbacks.testing import CorridorEnv, TinyValidatedQ

print("the script runs")

class Mine(CorridorEnv):
    pass

gym.register("Mine-v0", "__main__:Mine")
callback = WandbRLCallback(env="Mine-v0", policy="q_network", action_logger=True, on_error="raise")
options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
pl.Trainer(max_epochs=1, callbacks=[callback], **options).fit(TinyValidatedQ())
"""


def test_script_without_main_guard_and_with_its_own_env_logs_videos(tmp_path: Path) -> None:
    Path("train.py").write_text(SCRIPT)
    process = subprocess.run([sys.executable, "train.py"], capture_output=True, text=True, check=False, timeout=120)
    assert process.returncode == 0, process.stderr[-3000:]
    assert process.stdout.count("the script runs") == 1
    assert "no worker" not in process.stderr
    assert len(read_offline_run("wandb").media("video/best")) == 1


def test_dask_workers_with_a_shared_folder_make_videos(fit: Any, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    tracker = MemoryTracker()
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        callback = EvaluationCallback(
            executor=client.get_executor(),
            env=CorridorEnv,
            policy="q_network",
            tracker=tracker,
            on_error="raise",
            record_path=str(tmp_path / "shared"),
        )
        fit(TinyValidatedQ(batches=4), callback, val_check_interval=2, num_sanity_val_steps=0)
        pids = client.run(os.getpid)
    assert len(pids) == 2
    assert os.getpid() not in pids.values()
    assert [row["trainer/global_step"] for row in tracker.rows if "video/best" in row] == [1, 3]
    assert all(Path(video.path).is_file() for video in tracker.column("video/best"))


def test_second_ctrl_c_while_waiting_for_jobs_finishes_the_run(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(jobs: Any, max_seconds: float) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("rlwandb_callbacks.tracking.job_queue.JobQueue.finish", interrupted)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(TinyValidatedQ(), WandbRLCallback(executor="thread", env=CorridorEnv, policy="q_network"))
    assert wandb.run is None
