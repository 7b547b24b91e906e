"""Environments that hang during a training: it goes on as if there were no evaluation."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from caught_warnings import package_warnings

from rlwandb_callbacks import EvaluationCallback, WandbRLCallback
from rlwandb_callbacks.testing import CorridorEnv, MemoryTracker, TinyValidatedQ, read_offline_run

pytestmark = pytest.mark.timeout(180)


class HangsInTraining(CorridorEnv):
    """Env whose episodes do not end once training has begun, but for the first two."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.seed = seed
        return super().reset(seed=seed)

    def step(self, action: Any) -> Any:
        if self.seed is not None and self.seed > 1 and Path("training").exists():
            time.sleep(1e6)
        return super().step(action)


class LetsEnvHang(TinyValidatedQ):
    """Module whose evaluations hang."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        Path("training").touch()


def evaluation(env: Any, **settings: Any) -> dict[str, Any]:
    return {"env": env, "policy": "q_network", "episodes": 4, "num_envs": 1, "max_seconds": 1.0, **settings}


def trained(fit: Any, *callbacks: Any) -> tuple[list[torch.Tensor], Any]:
    torch.manual_seed(7)
    module = LetsEnvHang()
    fit(module, *callbacks, max_epochs=2, num_sanity_val_steps=0)
    return [parameter.detach().clone() for parameter in module.parameters()], torch.get_rng_state()


def test_training_ends_with_the_rows_of_what_was_played(fit: Any) -> None:
    callback = WandbRLCallback(executor="inline", evaluation=evaluation(HangsInTraining))
    with pytest.warns(UserWarning, match="rlwandb") as caught:
        with_callback, random_state = trained(fit, callback)
    run = read_offline_run("wandb")
    assert run.column("eval/episodes_count") == [2, 2]
    assert run.exit_code == 0
    (warning,) = package_warnings(caught)
    assert "2 episodes are left out" in warning
    assert "step() of the environment (step 1 of the episode with seed 2) had not returned" in warning
    assert "in step: time.sleep(1e6)" in warning
    assert signal.getsignal(signal.SIGURG) is signal.SIG_DFL
    without, random_state_without = trained(fit)
    assert all(map(torch.equal, with_callback, without))
    assert torch.equal(random_state, random_state_without)


class HangsInRender(CorridorEnv):
    """Env that cannot render the states of episodes."""

    def render(self) -> Any:
        if self.hangs:
            time.sleep(1e6)
        return super().render()

    hangs = False

    def step(self, action: Any) -> Any:
        self.hangs = Path("training").exists()
        return super().step(action)


@pytest.mark.parametrize("cannot_be_sent", [False, True], ids=["inline", "fallback"])
def test_hanging_render_in_the_training_process_costs_the_videos(fit: Any, cannot_be_sent: bool) -> None:
    lock = threading.Lock()  # cannot be pickled

    def make(render_mode: str | None = None) -> Any:
        with lock:
            return HangsInRender(render_mode)

    tracker = MemoryTracker()
    callback = EvaluationCallback(
        {
            "executor": "process" if cannot_be_sent else "inline",
            "evaluation": evaluation(make if cannot_be_sent else HangsInRender, max_seconds=60),
            "videos": {"max_seconds": 0.5, "select": "best"},
        },
        tracker=tracker,
    )
    with pytest.warns(UserWarning, match="rlwandb") as caught:
        trained(fit, callback)
    (warning,) = [each for each in package_warnings(caught) if "Making videos failed" in each]
    assert "video/best of step" in warning
    assert "had not returned at the time limit of 0.5 s, in test_time_limit.py" in warning
    rows = tracker.by_update()
    assert [row["eval/episodes_count"] for row in rows if "eval/episodes_count" in row] == [4, 4]
    assert not [key for row in rows for key in row if key.startswith("video/")]
