"""A package with an environment that changes settings of the process, used for evaluation."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlwandb_callbacks import WandbRLCallback
from rlwandb_callbacks.testing import MemoryTracker, TinyQ

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
