"""Alerts of trainings that go wrong, read from the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
import wandb
from pytorch_lightning.loggers import WandbLogger

from rlwandb_callbacks import AlertCallback, EvaluationCallback, MetricsCallback, WandbRLCallback
from rlwandb_callbacks.core.values import Value
from rlwandb_callbacks.testing import CorridorEnv, MemoryTracker, TinyQ, TinyValidatedQ, read_offline_run

SETTINGS = {"on_error": "raise", "metrics": {"every_n_steps": 1}, "alerts": {"enabled": True}, "video_logger": False}


class Explodes(TinyQ):
    """Q-values grow by a factor of 1000 per batch, and the loss is NaN from the sixth batch on."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.q_network(batch[0]).mean() * (float("nan") if batch_idx >= 5 else 1.0)
        return {"loss": loss, "q_values": torch.full((3,), 1000.0**batch_idx)}


def test_an_offline_run_has_one_alert_for_each_rule(fit: Any) -> None:
    settings = {**SETTINGS, "video_logger": None, "alerts": {"enabled": True, "level": "ERROR"}}
    fit(Explodes(), WandbRLCallback(settings))
    alerts = read_offline_run("wandb").alerts
    assert [(alert.title, alert.level) for alert in alerts] == [
        ("Q-values explode", "ERROR"),
        ("A loss, gradient or q-value is not finite", "ERROR"),
    ]
    assert alerts[0].text == "train/q_value is 1e+09; the limit is ±1e+06 (update 4)."
    assert alerts[1].text.endswith("is nan (update 6).")


def test_metrics_are_checked_even_if_they_are_not_logged(fit: Any) -> None:
    tracker = MemoryTracker()
    fit(Explodes(), WandbRLCallback({**SETTINGS, "plot_logger": False}, tracker=tracker))
    assert [title for title, _, _ in tracker.alerts] == [
        "Q-values explode",
        "A loss, gradient or q-value is not finite",
    ]
    assert [key for row in tracker.by_update() for key in row if key.startswith("train/")] == []


def test_no_alert_for_a_healthy_training_or_when_off(fit: Any) -> None:
    healthy, off = MemoryTracker(), MemoryTracker()
    fit(TinyValidatedQ(), WandbRLCallback(SETTINGS, env=CorridorEnv, policy="q_network", tracker=healthy))
    fit(Explodes(), WandbRLCallback({"on_error": "raise"}, tracker=off))
    assert (healthy.alerts, off.alerts) == ([], [])


def test_rows_of_separate_callbacks_are_checked(fit: Any) -> None:
    tracker = MemoryTracker()
    settings = {name: value for name, value in SETTINGS.items() if name != "video_logger"}
    fit(Explodes(), AlertCallback(settings, tracker=tracker), MetricsCallback(settings, tracker=MemoryTracker()))
    assert [title for title, _, _ in tracker.alerts] == [
        "Q-values explode",
        "A loss, gradient or q-value is not finite",
    ]


class Forgets(TinyValidatedQ):
    """Goes right for two epochs, and stays in place afterwards."""

    def policy(self, observations: torch.Tensor) -> torch.Tensor:
        right = 1.0 if self.current_epoch < 2 else -1.0
        return torch.tensor([[0.0, right]]).expand(len(observations), 2)


def forgetting(tracker: MemoryTracker) -> WandbRLCallback:
    settings = {**SETTINGS, "evaluation": {"episodes": 2}}
    return WandbRLCallback(settings, env=CorridorEnv, policy="policy", tracker=tracker)


def test_falling_evaluation_returns_alert(fit: Any) -> None:
    tracker = MemoryTracker()
    fit(Forgets(batches=1), forgetting(tracker), max_epochs=5)
    assert [row["eval/return_mean"] for row in tracker.rows if "eval/return_mean" in row] == [2.5, 2.5, -20, -20, -20]
    ((title, text, level),) = tracker.alerts
    assert (title, level) == ("Returns have fallen from their best", "WARN")
    # The variance of 2, 3, 2, 3 is 1/3, and the mean one of the evaluations 1/4: 22.5 / sqrt((1/3 + 1/4) / 4) = 58.9.
    assert text == (
        "eval/return_mean is -20 over the latest two evaluations, and was 2.5 over the best two; the fall is 58.9 "
        "standard errors, and the limit is 4 (update 4)."
    )


def test_a_resumed_training_falls_from_the_best_of_the_first(fit: Any) -> None:
    first, second = MemoryTracker(), MemoryTracker()
    trainer = fit(Forgets(batches=1), forgetting(first), max_epochs=3)
    trainer.save_checkpoint("first.ckpt")
    fit(Forgets(batches=1), forgetting(second), max_epochs=4, ckpt_path="first.ckpt")
    assert first.alerts == []
    assert [title for title, _, _ in second.alerts] == ["Returns have fallen from their best"]


def test_alerts_are_not_repeated_after_a_resume_but_in_a_new_fit(fit: Any) -> None:
    first, second, third = MemoryTracker(), MemoryTracker(), MemoryTracker()
    trainer = fit(Explodes(), WandbRLCallback({**SETTINGS, "video_logger": None}, tracker=first))
    trainer.save_checkpoint("first.ckpt")
    resumed = WandbRLCallback({**SETTINGS, "video_logger": None}, tracker=second)
    fit(Explodes(), resumed, max_epochs=2, ckpt_path="first.ckpt")
    assert len(first.alerts) == 2
    assert len(second.column("train/loss")) == 8
    assert second.alerts == []
    again = AlertCallback(SETTINGS | {"video_logger": None}, tracker=third)
    for _ in range(2):
        fit(Explodes(), again, MetricsCallback({"metrics": {"every_n_steps": 1}}, tracker=MemoryTracker()))
    assert len(third.alerts) == 4  # a second fit is a second training


class WithoutAlerts:
    """A tracker without alerts."""

    def write(self, axes: Mapping[str, float], values: Mapping[str, Value]) -> None:
        pass

    def flush(self) -> None:
        pass


def test_alerts_become_warnings_if_the_tracker_has_none(fit: Any) -> None:
    with pytest.warns(UserWarning, match="Q-values explode: train/q_value is"):
        fit(Explodes(batches=5), WandbRLCallback({**SETTINGS, "video_logger": None}, tracker=WithoutAlerts()))


def test_an_alert_that_cannot_be_sent_does_not_end_training(fit: Any) -> None:
    class Broken(MemoryTracker):
        def alert(self, title: str, text: str, level: str) -> None:
            raise OSError("no network")

    tracker = Broken()
    with pytest.warns(UserWarning, match="no network"):
        fit(Explodes(), WandbRLCallback({**SETTINGS, "video_logger": None, "on_error": "warn"}, tracker=tracker))
    assert max(tracker.column("logging/errors")) == 2


def test_listeners_are_removed_after_training(fit: Any) -> None:
    metrics, alerts = MetricsCallback(tracker=MemoryTracker()), AlertCallback(tracker=MemoryTracker())
    fit(TinyQ(), metrics, alerts)
    assert metrics.session.listeners == alerts.session.listeners == []


def test_rows_of_a_separate_evaluation_callback_are_checked(fit: Any) -> None:
    tracker = MemoryTracker()
    alone = EvaluationCallback({"video_logger": False}, env=CorridorEnv, policy="q_network", tracker=MemoryTracker())
    fit(TinyValidatedQ(), AlertCallback({"alerts": {"max_q_value": 1e-9}}, tracker=tracker), alone)
    assert [title for title, _, _ in tracker.alerts] == ["Q-values explode"]


def test_metrics_that_the_module_logs_to_a_wandb_logger_are_checked(fit: Any) -> None:
    class LogsItself(Explodes):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            outputs = super().training_step(batch, batch_idx)
            self.log("train/q_value", outputs["q_values"].mean())
            return outputs["loss"]

    fit(LogsItself(), WandbRLCallback({**SETTINGS, "video_logger": None}), logger=WandbLogger(), log_every_n_steps=1)
    wandb.finish()
    assert "Q-values explode" in [alert.title for alert in read_offline_run("wandb").alerts]
