"""Several evaluations in one training: by a mapping, by names, and by two callbacks in one Trainer."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from caught_warnings import package_warnings
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.cli import LightningCLI

from rlwandb_callbacks import ConfigError, Episode, EvaluationCallback, WandbRLCallback
from rlwandb_callbacks.testing import CorridorEnv, MemoryTracker, TinyQ, TinyValidatedQ, read_offline_run


class AlwaysRight(TinyValidatedQ):
    """Walks right: seed ``s`` of CorridorEnv has return ``2 + s % 5`` after as many steps."""

    def policy(self, observations: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"q_values": torch.tensor([[0.0, 1.5]]).expand(len(observations), 2)}


class WithoutValidation(AlwaysRight):
    """The same without a validation loop."""

    validation_step = TinyQ.validation_step
    val_dataloader = TinyQ.val_dataloader


NEAR = {"env": CorridorEnv, "policy": "policy", "seed": 0, "episodes": 2}  # returns 2 and 3
FAR = {"env": CorridorEnv, "policy": "policy", "seed": 3, "episodes": 2}  # returns 5 and 6
BOTH = {"evaluation": {"near": NEAR, "far": FAR}, "on_error": "raise"}


def callback_of(tracker: MemoryTracker, name: str | None, evaluation: dict[str, Any], **settings: Any) -> Any:
    cfg = {"on_error": "raise", "evaluation": {"name": name, **evaluation}, "video_logger": False, **settings}
    return WandbRLCallback(cfg, tracker=tracker)


def test_each_evaluation_of_a_mapping_has_keys_videos_and_files_of_its_own(fit: Any, tmp_path: Path) -> None:
    tracker = MemoryTracker()
    fit(AlwaysRight(), WandbRLCallback(BOTH | {"record_path": str(tmp_path)}, tracker=tracker))
    (row,) = tracker.by_update()
    assert (row["eval/near/return_mean"], row["eval/far/return_mean"]) == (2.5, 5.5)
    assert (row["q/near/mean"], row["q/far/mean"]) == (1.5, 1.5)
    assert row["policy/far/action_histogram"].counts.tolist() == [0, 11]
    assert row["video/near/best"].caption.startswith("near · best of 2 · return 3.00")
    assert row["video/far/worst"].caption.startswith("far · worst of 2 · return 5.00")
    assert Path(row["video/far/best"].path).name == "step_000000007_far_best.mp4"
    assert len({row[f"video/{name}/best"].path for name in ("near", "far")}) == 2
    assert not [key for key in row if key.startswith(("eval/", "video/")) and key.count("/") == 1]


def test_monitors_and_schedules_are_those_of_each_evaluation(fit: Any, tmp_path: Path) -> None:
    tracker = MemoryTracker()
    settings = BOTH["evaluation"] | {"near": NEAR | {"every_n_steps": 2}, "far": FAR | {"every_n_steps": 4}}
    best = ModelCheckpoint(tmp_path, monitor="eval/far/return_mean", mode="max")
    stop = EarlyStopping("eval/near/return_mean", mode="max", patience=1)
    callback = WandbRLCallback({"video_logger": False, "evaluation": settings}, tracker=tracker)
    trainer = fit(WithoutValidation(), callback, best, stop, enable_checkpointing=True, max_epochs=5)
    assert float(best.best_model_score) == 5.5
    assert trainer.current_epoch == 2  # the second equal return ends the training
    updates = {name: [r["time/updates"] for r in tracker.rows if f"eval/{name}/return_mean" in r] for name in settings}
    assert updates == {"near": [2, 4, 6, 8, 10, 12, 14, 16], "far": [4, 8, 12, 16]}


@pytest.mark.parametrize("key", ["eval/return_mean", "eval/loss"])
@pytest.mark.parametrize("is_logged", [False, True])
def test_only_monitors_of_a_missing_key_without_a_name_are_warned_of(
    fit: Any, tmp_path: Path, key: str, is_logged: bool
) -> None:
    class Logs(AlwaysRight):
        def on_validation_epoch_end(self) -> None:
            self.log(key if is_logged else "other", 1.0)

    class Reads(Callback):
        monitor = key

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(Logs(), WandbRLCallback(BOTH | {"video_logger": False}, tracker=MemoryTracker()), Reads())
    messages = [message for message in package_warnings(caught) if "monitors" in message]
    assert len(messages) == (key == "eval/return_mean" and not is_logged)
    assert all("Monitor eval/near/return_mean instead." in message for message in messages)


def test_checkpoint_of_an_unnamed_evaluation_is_resumed_by_a_mapping(fit: Any, tmp_path: Path) -> None:
    saved = ModelCheckpoint(tmp_path, save_last=True)
    fit(AlwaysRight(), callback_of(MemoryTracker(), None, NEAR), saved, enable_checkpointing=True)
    tracker = MemoryTracker()
    fit(
        AlwaysRight(),
        WandbRLCallback(BOTH | {"video_logger": False}, tracker=tracker),
        ModelCheckpoint(tmp_path, save_last=True),
        enable_checkpointing=True,
        ckpt_path=str(tmp_path / "last.ckpt"),
        max_epochs=2,
    )
    assert [row["time/updates"] for row in tracker.rows if "eval/near/return_mean" in row] == [16]
    assert tracker.rows[-1]["time/env_steps"] == 160


def test_warnings_and_errors_name_their_evaluation(fit: Any) -> None:
    evaluations = {"near": NEAR, "far": FAR | {"env": "Missing-v0"}}
    with pytest.raises(ConfigError, match=r"^Evaluation 'far': evaluation\.env 'Missing-v0' "):
        fit(AlwaysRight(), WandbRLCallback({"evaluation": evaluations}, tracker=MemoryTracker()))


def test_second_callback_of_a_trainer_adds_its_evaluation_and_repeats_no_row(fit: Any, tmp_path: Path) -> None:
    tracker = MemoryTracker()
    saved = ModelCheckpoint(tmp_path, monitor="eval/far/return_mean", mode="max")
    options = {"metrics": {"every_n_steps": 4}, "gradient_logger": True}
    first, second = (
        callback_of(tracker, name, evaluation, **options) for name, evaluation in [(None, NEAR), ("far", FAR)]
    )
    fit(AlwaysRight(), first, second, saved, enable_checkpointing=True)
    assert tracker.column("eval/return_mean") == [2.5]
    assert tracker.column("eval/far/return_mean") == [5.5]
    assert [row["time/updates"] for row in tracker.rows if "train/loss" in row] == [4, 8]
    assert (
        len(tracker.rows) == len({row["time/updates"] for row in tracker.rows if "eval/return_figure" not in row}) + 1
    )
    states = torch.load(saved.best_model_path)["callbacks"]
    assert {"rlwandb_callbacks.WandbRLCallback", "rlwandb_callbacks.WandbRLCallback.far"} <= states.keys()


def test_two_callbacks_without_a_name_share_their_counters_if_one_has_an_environment(fit: Any, tmp_path: Path) -> None:
    tracker = MemoryTracker()
    saved = ModelCheckpoint(tmp_path, save_last=True)
    fit(
        AlwaysRight(),
        callback_of(tracker, None, NEAR),
        callback_of(tracker, None, {}, plasticity={"enabled": True, "every_n_steps": 4}),
        saved,
        enable_checkpointing=True,
    )
    assert len(tracker.column("eval/return_mean")) == len(tracker.column("train/loss")) == 1
    assert [key for row in tracker.rows for key in row if key.startswith("plasticity/")]
    state = torch.load(saved.last_model_path)["callbacks"]["rlwandb_callbacks.WandbRLCallback"]
    assert state["rlwandb_callbacks.MetricsCallback"]["updates"] == 8
    assert "rlwandb_callbacks.PlasticityCallback" not in state  # it is that of the first one


def test_two_environments_without_a_name_are_refused_with_the_remedy(fit: Any) -> None:
    first, second = (callback_of(MemoryTracker(), None, each, executor="inline") for each in (NEAR, FAR))
    fit(AlwaysRight(), first, second)  # they write to different places
    tracker = MemoryTracker()
    with pytest.raises(ConfigError, match=r"both would log eval/return_mean\. Set evaluation\.name of one of them"):
        fit(AlwaysRight(), *(callback_of(tracker, None, each) for each in (NEAR, FAR)))


YAML = """
trainer:
  logger: false
  callbacks:
    - class_path: rlwandb_callbacks.WandbRLCallback
      init_args:
        cfg:
          evaluation: {policy: policy, episodes: 4}
        evaluations:
          near: {env: rlwandb_callbacks.testing:CorridorEnv}
          far: {env: rlwandb_callbacks.testing:CorridorEnv, env_kwargs: {render_mode: rgb_array}, seed: 3}
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # between Lightning and jsonargparse
def test_yaml_files_hold_several_evaluations_beside_the_settings_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["train.py"])
    file = tmp_path / "train.yaml"
    file.write_text(YAML)
    cli = LightningCLI(
        AlwaysRight,
        run=False,
        save_config_callback=None,
        seed_everything_default=False,
        args=["--config", str(file), "--trainer.callbacks.cfg.evaluation.episodes=2"],
    )
    (callback,) = [each for each in cli.trainer.callbacks if isinstance(each, WandbRLCallback)]
    near, far = callback.cfg.evaluations.values()
    assert [(each.name, each.episodes, each.seed, each.policy) for each in (near, far)] == [
        ("near", 2, 0, "policy"),
        ("far", 2, 3, "policy"),
    ]
    assert far.env_kwargs == {"render_mode": "rgb_array"}


def test_second_callback_alone_logs_everything(fit: Any) -> None:
    tracker = MemoryTracker()
    first, second = callback_of(tracker, None, NEAR), callback_of(tracker, "far", FAR)
    fit(AlwaysRight(), first, second)
    tracker.rows.clear()
    fit(AlwaysRight(), second, log_every_n_steps=4)
    assert [row["time/updates"] for row in tracker.rows if "train/loss" in row] == [4, 8]
    assert tracker.column("eval/far/return_mean") == [5.5]
    assert tracker.column("eval/return_mean") == []


def test_callbacks_with_trackers_of_their_own_log_everything_twice(fit: Any) -> None:
    trackers = MemoryTracker(), MemoryTracker()
    fit(AlwaysRight(), *(callback_of(t, name, NEAR) for t, name in zip(trackers, (None, "far"), strict=True)))
    assert [len(tracker.column("train/loss")) for tracker in trackers] == [1, 1]


def test_two_evaluations_with_one_name_are_refused_before_the_first_step(fit: Any) -> None:
    tracker = MemoryTracker()
    module = AlwaysRight()
    with pytest.raises(ConfigError, match=r"both would log eval/return_mean\. Set evaluation\.name of one of them"):
        fit(module, callback_of(tracker, None, NEAR), EvaluationCallback({"evaluation": FAR}, tracker=tracker))
    assert module.env_steps == 0


def test_one_run_holds_all_evaluations_with_their_step_metric(fit: Any) -> None:
    first = WandbRLCallback({"video_logger": False, "evaluation": NEAR, "run": {"mode": "offline"}})
    second = WandbRLCallback({"video_logger": False, "evaluation": FAR | {"name": "far"}})
    fit(AlwaysRight(), first, second)
    assert first.run_folder == second.run_folder
    run = read_offline_run(first.run_folder)
    assert (run.column("eval/return_mean"), run.column("eval/far/return_mean")) == ([2.5], [5.5])
    assert run.metrics["eval/far/return_mean"].step_metric == "trainer/global_step"
    assert run.config["rlwandb"]["further_evaluations"]["far"]["seed"] == 3


def test_given_episodes_are_shown_once(fit: Any) -> None:
    class Gives(AlwaysRight):
        def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
            return {
                "episodes": [Episode(actions=torch.zeros(1).numpy(), rewards=torch.ones(1).numpy(), terminated=True)]
            }

    tracker = MemoryTracker()
    fit(Gives(), callback_of(tracker, None, {}), callback_of(tracker, "far", FAR))
    assert (tracker.column("eval/return_mean"), tracker.column("eval/far/return_mean")) == ([1.0], [5.5])


def test_alerts_see_named_evaluations(fit: Any) -> None:
    tracker = MemoryTracker()
    alerts = {"enabled": True, "max_q_value": 1.0}
    fit(
        AlwaysRight(),
        WandbRLCallback(BOTH | {"video_logger": False, "plot_logger": False, "alerts": alerts}, tracker=tracker),
    )
    assert [(title, text.partition(";")[0]) for title, text, _ in tracker.alerts] == [
        ("Q-values explode", "q/near/mean is 1.5")
    ]


def test_warnings_of_one_evaluation_do_not_keep_back_those_of_another(fit: Any) -> None:
    class Blind(CorridorEnv):
        metadata = {"render_modes": []}  # noqa: RUF012  # gymnasium's own form

    def blind() -> CorridorEnv:
        return Blind()

    evaluations = {"near": NEAR | {"env": blind}, "far": FAR | {"env": blind}}
    with pytest.warns(UserWarning, match="no videos are made") as caught:
        fit(AlwaysRight(), WandbRLCallback({"evaluation": evaluations}, tracker=MemoryTracker()))
    messages = [message for message in package_warnings(caught) if "no videos are made" in message]
    assert [message.partition(": evaluation.env")[0] for message in messages] == [
        "rlwandb: evaluation 'near'",
        "rlwandb: evaluation 'far'",
    ]
