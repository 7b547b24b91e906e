"""What drawing and recording episodes costs."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.wrappers import RecordVideo
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import nn

from rlwandb_callbacks.config import as_config
from rlwandb_callbacks.core.actions import DiscreteActions
from rlwandb_callbacks.core.episode import Episode, QValues
from rlwandb_callbacks.core.evaluation import Evaluation
from rlwandb_callbacks.core.overlay import annotate
from rlwandb_callbacks.evaluator import Evaluator
from rlwandb_callbacks.isolation import undisturbed
from rlwandb_callbacks.recorder import Recorder, Shelf

STEPS, EPISODES = 300, 10


class Balancing(nn.Module):
    """A CartPole policy that balances, so that episodes last."""

    def policy(self, observations: torch.Tensor) -> torch.Tensor:
        """Pushes to the side to which the pole falls."""
        lean = observations[:, 2] + 0.5 * observations[:, 3] + 0.05 * observations[:, 1]
        return torch.stack([-lean, lean], dim=1)


class Strict:
    """Lets no trouble pass."""

    def report(self, what: str, error: Exception) -> None:
        """Raises it."""
        raise error

    def warn_once(self, message: str, *, kind: str) -> None:
        """Raises it."""
        raise RuntimeError(message)


def compare_overlay() -> tuple[float, float]:
    """Seconds for the panels of 300 frames: ours, matplotlib redrawing bars."""
    scores = np.random.default_rng(0).normal(size=(STEPS, 6))
    episode = Episode(actions=scores.argmax(axis=1), rewards=np.ones(STEPS), terminated=True, scores=QValues(scores))
    frame = np.zeros((400, 600, 3), np.uint8)
    started = time.perf_counter()
    for _ in annotate((frame for _ in range(STEPS + 1)), episode, DiscreteActions(tuple("abcdef"))):
        pass
    ours = time.perf_counter() - started
    return ours, matplotlib_seconds(scores)


def matplotlib_seconds(scores: np.ndarray) -> float:
    """Seconds to draw each row of scores as a bar chart."""
    started = time.perf_counter()
    figure = Figure(figsize=(6, 4))
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for row in scores:
        axes.clear()
        axes.barh(range(len(row)), row)
        canvas.draw()
    return time.perf_counter() - started


def compare_evaluation() -> tuple[float, float]:
    """Wall seconds: our evaluation with three overlay videos, RecordVideo with ten bare ones."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        evaluate(Path(folder))
        ours = time.perf_counter() - started
        started = time.perf_counter()
        record(Path(folder) / "theirs")
        return ours, time.perf_counter() - started


def evaluate(folder: Path) -> None:
    """Plays and records as EvaluationCallback does."""
    evaluation = {"episodes": EPISODES, "max_steps": STEPS}
    cfg = as_config({"action_logger": "q_value", "evaluation": evaluation}, env="CartPole-v1", policy="policy")
    with undisturbed(Balancing(), seed=0):
        recorder, evaluator = Recorder(cfg, Strict(), makes_clips=True), Evaluator(cfg, Balancing())
        evaluation = Evaluation([each.episode for each in evaluator.play()], 0.99, evaluator.actions)
        chosen, shelf = recorder.choose(evaluation.episodes), Shelf(folder, 0, None)
        recorder.report(evaluation, chosen, {}, make_env=evaluator.make_env, fps=evaluator.fps, shelf=shelf)()


def record(folder: Path) -> None:
    """Plays and records as Gymnasium does."""
    env: Any = gym.make("CartPole-v1", render_mode="rgb_array", max_episode_steps=STEPS)
    env = RecordVideo(env, str(folder), episode_trigger=lambda _: True, disable_logger=True)
    policy = Balancing().policy
    for seed in range(EPISODES):
        observation, _ = env.reset(seed=seed)
        ended = False
        while not ended:
            action = int(policy(torch.as_tensor(observation)[None]).argmax())
            observation, _, terminated, truncated, _ = env.step(action)
            ended = terminated or truncated
    env.close()
