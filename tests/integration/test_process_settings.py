"""A package with an environment that changes settings of the process, used for evaluation."""

from __future__ import annotations

import os
import random
import signal
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlwandb_callbacks import WandbRLCallback
from rlwandb_callbacks.testing import CorridorEnv, MemoryTracker, TinyQ

PACKAGE = """
import warnings

import gymnasium
import numpy
import torch


def change(message):
    warnings.filterwarnings("ignore", message=message)
    numpy.seterr(all="raise")
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(3)


change("imported")


class Careless(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), numpy.float32)
    action_space = gymnasium.spaces.Discrete(2)
    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode=None):
        change("made")
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        change("reset")
        super().reset(seed=seed)
        return self.np_random.random(2, numpy.float32), {}

    def step(self, action):
        change("step")
        return numpy.zeros(2, numpy.float32), 1.0, True, False, {}

    def render(self):
        change("render")
        return (numpy.arange(64 * 64 * 3) % 255).astype(numpy.uint8).reshape(64, 64, 3)
"""


def test_settings_that_an_environment_changes_are_put_back(
    fit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "careless_environment.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    seen: list[Any] = []

    class Checks(TinyQ):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            seen.append((torch.get_default_dtype(), torch.get_num_threads(), np.geterr()["divide"]))
            return super().training_step(batch, batch_idx)

    expected = torch.float32, torch.get_num_threads(), np.geterr()["divide"]
    tracker = MemoryTracker()
    cfg = {"on_error": "raise", "evaluation": {"every_n_steps": 2, "episodes": 2}}
    callback = WandbRLCallback(cfg, env="careless_environment:Careless", policy="q_network", tracker=tracker)
    fit(Checks(batches=4), callback)
    assert tracker.column("eval/return_mean") == [1.0, 1.0]
    assert "video/best" in {key for row in tracker.rows for key in row}
    assert seen == [expected] * 4
    hidden = {entry[1].pattern for entry in warnings.filters if entry[1] is not None}
    assert hidden.isdisjoint({"imported", "made", "reset", "step", "render"})


class Disturbing(CorridorEnv):
    """Environment that seeds global generators, changes the working folder and takes a signal."""

    def disturb(self) -> None:
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002  # as environments do
        torch.manual_seed(1)
        os.chdir(Path(__file__).parent)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.disturb()
        return super().reset(seed=seed, options=options)

    def close(self) -> None:
        self.disturb()
        super().close()


class Draws(TinyQ):
    """Module that notes random numbers, the working folder and the handler of SIGTERM at each batch."""

    def __init__(self) -> None:
        super().__init__(batches=6)
        self.seen: list[Any] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        numbers = torch.rand(()).item(), np.random.random(), random.random()  # noqa: NPY002  # the global generator
        self.seen.append((*numbers, Path.cwd(), signal.getsignal(signal.SIGTERM) is signal.SIG_DFL))
        return super().training_step(batch, batch_idx)


def test_videos_that_the_training_process_makes_leave_training_as_it_is(
    fit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def seen(*callbacks: Any) -> list[Any]:
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002  # as above
        random.seed(0)
        module = Draws()
        fit(module, *callbacks)
        return module.seen

    cfg = {"on_error": "raise", "executor": "inline", "evaluation": {"every_n_steps": 2, "episodes": 1}}
    tracker = MemoryTracker()
    callback = WandbRLCallback(cfg, env=Disturbing, policy="q_network", tracker=tracker)
    assert seen(callback) == seen()
    assert "video/best" in {key for row in tracker.rows for key in row}
