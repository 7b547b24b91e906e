"""Environment steps that a module logs, as the axis ``time/env_steps``."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from rlwandb_callbacks import MetricsCallback
from rlwandb_callbacks.testing import MemoryTracker, TinyActorCritic


class LogsPerEpoch(TinyActorCritic):
    """Takes 1,000 environment steps a batch, and logs their number so that Lightning keeps one value per epoch."""

    def __init__(self, name: str = "env_steps", batches: int = 16, **options: Any) -> None:
        super().__init__(batches)
        self.name, self.options = name, {"on_step": False, "on_epoch": True, **options}
        self.count = torch.zeros(())

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.count += 1_000  # in place: the logged tensor changes with it
        self.log(self.name, self.count, **self.options)
        return super().training_step(batch, batch_idx)


class LogsAtEpochEnd(LogsPerEpoch):
    """Logs the number when an epoch ends."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.count += 1_000
        return TinyActorCritic.training_step(self, batch, batch_idx)

    def on_train_epoch_end(self) -> None:
        self.log(self.name, self.count)


def run(fit: Any, module: Any, every_n_steps: int = 4, **trainer: Any) -> MemoryTracker:
    tracker = MemoryTracker()
    cfg = {"on_error": "raise", "metrics": {"every_n_steps": every_n_steps}}
    fit(module, MetricsCallback(cfg, tracker=tracker), **trainer)
    return tracker


@pytest.mark.parametrize("name", ["env_steps", "total_env_steps", "train/env_steps"])
@pytest.mark.parametrize("options", [{}, {"reduce_fx": "max"}, {"on_step": True}, {"batch_size": 3}])
def test_the_latest_value_of_an_epoch_counts_and_not_its_mean(fit: Any, name: str, options: dict[str, Any]) -> None:
    tracker = run(fit, LogsPerEpoch(name, **options), max_epochs=2)
    steps = dict(zip(tracker.column("time/updates"), tracker.column("time/env_steps"), strict=True))
    assert steps == {update: 1_000 * update for update in steps}
    assert max(steps) == 32


def test_values_that_are_logged_when_an_epoch_ends(fit: Any) -> None:
    tracker = run(fit, LogsAtEpochEnd(batches=4), max_epochs=3)
    assert tracker.column("time/env_steps")[-1] in (8_000, 12_000)  # the third end comes after the last row
    assert max(tracker.column("time/env_steps")) <= 12_000


def test_counts_of_other_stages_are_no_steps_of_training(fit: Any) -> None:
    assert run(fit, LogsPerEpoch("eval/env_steps")).column("time/env_steps") == []


def test_lightnings_own_mean_is_as_without_this_package_and_nothing_of_it_is_kept(fit: Any) -> None:
    plain = fit(LogsPerEpoch())
    module, tracker = LogsPerEpoch(), MemoryTracker()
    followed = fit(module, MetricsCallback({"on_error": "raise"}, tracker=tracker))
    assert followed.callback_metrics["env_steps"] == plain.callback_metrics["env_steps"] == 8_500
    results = followed.fit_loop.epoch_loop._results
    assert all("forward" not in vars(item) for item in results.values())
    copy.deepcopy(followed.callbacks[0])
