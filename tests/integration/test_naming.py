"""Rows under the names of other libraries, in a real run."""

from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning as pl
import wandb
from pytorch_lightning.loggers import WandbLogger

from rlwandb_callbacks import MetricsCallback, WandbRLCallback
from rlwandb_callbacks.core.key_names import Naming
from rlwandb_callbacks.core.presets import PRESETS
from rlwandb_callbacks.testing import CorridorEnv, MemoryTracker, TinyQ, TinyValidatedQ, read_offline_run

SETTINGS = {"on_error": "raise", "metrics": {"every_n_steps": 2}, "evaluation": {"episodes": 2}}
GROUPS = {"train", "losses", "charts", "rollout"}
AXES = {"time/env_steps", "time/updates", "trainer/global_step"}


def keys_by_update(history: list[dict[str, Any]], updates: str) -> list[set[str]]:
    """Returns the keys of each update, of which files are in a row of their own."""
    keys: dict[float, set[str]] = {}
    for row in history:
        keys.setdefault(row[updates], set()).update(key for key in row if not key.startswith("_"))
    return list(keys.values())


def train(fit: Any, preset: str | None, **keywords: Any) -> None:
    pl.seed_everything(3, verbose=False)
    settings = {**SETTINGS, "naming": preset, "video_logger": False}
    callback = WandbRLCallback(settings, env=CorridorEnv, policy="q_network", **keywords)
    checkpoint = pl.callbacks.ModelCheckpoint("best", monitor="eval/return_mean", mode="max")
    fit(TinyValidatedQ(batches=4), callback, checkpoint, enable_checkpointing=True)
    assert checkpoint.best_model_score is not None


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_rename_keys_of_rows_but_not_of_monitors(fit: Any, preset: str) -> None:
    naming, plain = Naming(preset, "dqn"), MemoryTracker()
    train(fit, None, tracker=plain)
    train(fit, preset, run={"step_metric": "time/env_steps"})
    run = read_offline_run("wandb")
    renamed = keys_by_update(run.history, naming.key("time/updates"))
    axes = [naming.axes(dict.fromkeys(AXES, 0.0), row.keys() - AXES) for row in plain.rows]
    assert renamed == [{naming.key(key) for key in row} | axes[i].keys() for i, row in enumerate(plain.rows)]
    for key in ("train/loss", "eval/return_mean"):
        assert run.column(naming.key(key)) == plain.column(key), key
    for key in AXES:
        assert list(dict.fromkeys(run.column(naming.key(key)))) == plain.column(key), key
    for key in set().union(*plain.rows) - AXES:
        is_of_evaluation = preset == "torchrl" and naming.key(key).startswith("eval/")
        expected = "eval/step" if is_of_evaluation else naming.key("time/env_steps")
        assert run.metrics[naming.key(key)].step_metric == expected, key
    assert {run.metrics[naming.key(key)].step_metric for key in AXES} == {""}


class Provides(TinyQ):
    """Returns given values in each batch."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        super().__init__(batches=len(rows))
        self.rows = rows

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return {"loss": super().training_step(batch, batch_idx)["loss"], **self.rows[batch_idx]}


class PPO(Provides):
    """A module with the name of an algorithm."""


def columns(fit: Any, module: Any, naming: str) -> set[str]:
    tracker = MemoryTracker(naming)
    settings = {"on_error": "raise", "naming": naming, "metrics": {"every_n_steps": 1}}
    fit(module, WandbRLCallback(settings, tracker=tracker))
    return {key for row in tracker.rows for key in row if key.split("/")[0] in GROUPS}


def test_names_follow_the_algorithm(fit: Any) -> None:
    ppo = {"actor_loss": 1.0, "critic_loss": 2.0, "entropy": 0.5}
    assert {"train/policy_gradient_loss", "train/value_loss"} <= columns(fit, PPO([ppo] * 2), "sb3")
    td3 = [{"critic_loss": 2.0, "q1": 1.0, "q2": 1.5}, {"critic_loss": 2.0, "q1": 1.0, "q2": 1.5, "actor_loss": 3.0}]
    names = {"losses/loss", "losses/qf_loss", "losses/qf1_values", "losses/qf2_values", "losses/actor_loss"}
    assert columns(fit, Provides(td3), "cleanrl") == names | {"charts/learning_rate", "train/grad_norm"}
    sac = {"actor_loss": 1.0, "critic_loss": 2.0, "alpha": 0.2, "q_value": 1.0}
    names = {"actor_loss", "q_loss", "alpha", "q_value", "loss", "lr", "grad_norm", "step"}
    assert columns(fit, Provides([sac] * 2), "torchrl") == {f"train/{name}" for name in names}


def test_sb3_has_running_means_of_the_last_hundred_episodes(fit: Any) -> None:
    script = [{"episode_return": [float(i), float(i)], "episode_length": [i + 1, i + 1]} for i in range(80)]
    script[79] |= {"is_success": [True, False]}
    module = Provides([*script, {}, {}])
    fit(module, WandbRLCallback({"on_error": "raise", "naming": "sb3", "metrics": {"every_n_steps": 40}}))
    run = read_offline_run("wandb")
    assert run.column("rollout/ep_rew_mean") == [19.5, 54.5]  # of batches 0 to 39, and of 30 to 79
    assert run.column("rollout/ep_len_mean") == [20.5, 55.5]
    assert run.column("rollout/success_rate") == [0.5]
    assert run.column("rollout/return_mean") == [19.5, 59.5]  # since the row before
    assert run.column("global_step") == [400, 800, 820]
    assert not {"time/total_timesteps", "train/n_updates"} & {key for row in run.history for key in row}


def test_a_tracker_receives_renamed_keys(fit: Any) -> None:
    tracker = MemoryTracker(naming="di-engine")
    fit(TinyQ(batches=2), MetricsCallback({**SETTINGS, "naming": "di-engine"}, tracker=tracker))
    assert tracker.column("target q_value")
    assert tracker.column("train iter") == [2]
    with pytest.raises(ValueError, match="'reward' is not a valid key"):
        tracker.write({"trainer/global_step": 0}, {"reward": None})  # type: ignore[dict-item]  # on purpose


def test_a_key_that_the_module_logs_under_its_new_name_is_written_once(fit: Any) -> None:
    class Logs(TinyQ):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("losses/td_loss", 7.0)
            return super().training_step(batch, batch_idx)

    callback = MetricsCallback({"on_error": "raise", "naming": "cleanrl", "metrics": {"every_n_steps": 1}})
    fit(Logs(batches=3), callback, logger=WandbLogger(), log_every_n_steps=1)
    wandb.finish()
    assert read_offline_run("wandb").column("losses/td_loss") == [7.0, 7.0, 7.0]
