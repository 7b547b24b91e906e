"""Cost of drawing and recording episodes."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pygame
import pytorch_lightning as pl
import torch
from gymnasium.wrappers import RecordVideo
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from moviepy.video.io.ffmpeg_writer import FFMPEG_VideoWriter
from torch.utils.data import DataLoader

from benchmarks.lines import Line, Pair, profile_call
from benchmarks.memory import peak_bytes
from rlwandb_callbacks import EvaluationCallback
from rlwandb_callbacks.core.action_spec import DiscreteActions
from rlwandb_callbacks.core.episode import Episode, QValues
from rlwandb_callbacks.media.mp4 import video_writer
from rlwandb_callbacks.media.panel import Panel
from rlwandb_callbacks.testing import MemoryTracker

QUIET: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
STEPS, EPISODES, ACTIONS = 300, 10, 6
IMPORTED_BY_BOTH = FFMPEG_VideoWriter, pygame  # so that the imports are not measured


class Balancing(pl.LightningModule):
    """Module with a CartPole policy that balances, so that episodes are long."""

    def policy(self, observations: torch.Tensor) -> torch.Tensor:
        """Returns logits for pushing in the direction in which the pole falls."""
        lean = observations[:, 2] + 0.5 * observations[:, 3] + 0.05 * observations[:, 1]
        return torch.stack([-lean, lean], dim=1)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Does nothing."""

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader([0])  # type: ignore[arg-type]  # torch takes any sequence


def scores() -> np.ndarray:
    """Returns random scores of 300 steps."""
    return np.random.default_rng(0).normal(size=(STEPS, ACTIONS))


def frames_with_panels() -> Iterator[Any]:
    """Yields our frames with their panels."""
    values = scores()
    episode = Episode(actions=values.argmax(axis=1), rewards=np.ones(STEPS), terminated=True, scores=QValues(values))
    frame = np.zeros((400, 600, 3), np.uint8)
    panel = Panel.for_frames(frame, episode, DiscreteActions(tuple("abcdef")))
    return (panel.beside(frame, step) for step in range(STEPS + 1))


def draw_overlay() -> None:
    """Draws all frames and discards them."""
    for _ in frames_with_panels():
        pass


def write_overlay(folder: Path) -> None:
    """Draws all frames and encodes them."""
    with video_writer(folder / "ours.mp4", fps=30) as video:
        for frame in frames_with_panels():
            video.write(frame)


def write_action_gif(folder: Path) -> None:
    """Writes an animation of bars as DI-engine does: matplotlib's FuncAnimation, written by pillow."""
    logits = scores()
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    figure = Figure()
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_ylim(0, 1)
    bars = axes.bar(range(ACTIONS), probabilities[0])

    def draw(step: int) -> Any:
        for bar, probability in zip(bars, probabilities[step], strict=True):
            bar.set_height(probability)
        return bars

    FuncAnimation(figure, draw, frames=STEPS, blit=True).save(
        str(folder / "reference.gif"), writer=PillowWriter(fps=30)
    )


def seconds(work: Any, *arguments: Any) -> float:
    """Returns the wall seconds of a call."""
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


@cache
def overlay_seconds(_: int) -> tuple[float, float, float]:
    """Returns the wall seconds for 300 frames: our panels, our panels in a file, DI-engine's animation."""
    with tempfile.TemporaryDirectory() as folder:
        ours = seconds(draw_overlay), seconds(write_overlay, Path(folder))
        return *ours, seconds(write_action_gif, Path(folder))


def compare_overlay(pair: int) -> Pair:
    """Compares our panels with DI-engine's animation."""
    drawn, _, animated = overlay_seconds(pair)
    return drawn, animated


def compare_overlay_files(pair: int) -> Pair:
    """Compares our panels in a file with DI-engine's animation."""
    _, written, animated = overlay_seconds(pair)
    return written, animated


def compare_evaluation(_: int) -> Pair:
    """Compares the wall seconds of our evaluation with three overlay videos and of RecordVideo with ten plain ones."""
    return seconds(evaluate), seconds(record)


def compare_memory(_: int) -> Pair:
    """Compares the peak memory that each of them adds in a new process, ffmpeg included."""
    return peak_bytes("benchmarks.videos:evaluate"), peak_bytes("benchmarks.videos:record")


def settings_for(folder: str, executor: str) -> dict[str, Any]:
    """Returns the settings of the measured evaluations."""
    return {
        "action_logger": "q_value",
        "record_path": folder,
        "on_error": "raise",
        "executor": executor,
        "evaluation": {"env": "CartPole-v1", "policy": "policy", "episodes": EPISODES, "max_steps": STEPS},
    }


def evaluate() -> None:
    """Evaluates in a Trainer, in the foreground."""
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        tracker = MemoryTracker()
        trainer = pl.Trainer(
            accelerator="cpu", callbacks=[EvaluationCallback(settings_for(folder, "inline"), tracker=tracker)], **QUIET
        )
        trainer.validate(Balancing(), verbose=False)
        if len(tracker.column("video/best")) != 1:
            raise RuntimeError("The evaluation made no videos, so there is nothing to compare.")


def record() -> None:
    """Plays and records with Gymnasium's wrapper."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        env: Any = gym.make("CartPole-v1", render_mode="rgb_array", max_episode_steps=STEPS)
        env = RecordVideo(env, folder, episode_trigger=lambda _: True, disable_logger=True)
        policy = Balancing().policy
        for seed in range(EPISODES):
            observation, _ = env.reset(seed=seed)
            done = False
            while not done:
                action = int(policy(torch.as_tensor(observation)[None]).argmax())
                observation, _, terminated, truncated, _ = env.step(action)
                done = terminated or truncated
        env.close()


RECORD = "Gymnasium's `RecordVideo`, 10 videos, no overlay"
EVALUATION = "evaluation of 10 CartPole episodes of 300 steps with 3 overlay videos, in the foreground"
ANIMATION = "DI-engine's action gif (matplotlib's `FuncAnimation`, written by pillow)"
LINES = [
    Line(EVALUATION, RECORD, 0.4, compare_evaluation, profile=profile_call(evaluate)),
    Line(
        f"{EVALUATION}: peak memory",
        RECORD,
        0.3,
        compare_memory,
        unit="B",
        note="Memory added after all imports, ffmpeg included. On our side, ffmpeg takes 54 to 68 MiB, by the count of "
        "frames that its threads hold; 21 MiB of that is its program. Without ffmpeg on both sides, it is about 40 to "
        "50 against 212 MiB.",
    ),
    Line(
        "overlay of 300 frames",
        ANIMATION,
        0.02,
        compare_overlay,
        note="Our side draws the panels beside frames of 600 × 400 pixels. DI-engine's own function does not run with "
        "current packages, so its drawing method is reproduced here.",
        profile=profile_call(draw_overlay),
    ),
    Line("the same, with our frames encoded as mp4", ANIMATION, None, compare_overlay_files),
]
