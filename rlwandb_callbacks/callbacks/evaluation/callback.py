"""Plays evaluation episodes, and logs returns, videos and the outputs of the policy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_info

from rlwandb_callbacks.callbacks.base import RLCallback
from rlwandb_callbacks.callbacks.evaluation.distributed import (
    DistributedEvaluation,
    EvaluationResult,
    Problem,
    choose_episodes,
)
from rlwandb_callbacks.callbacks.evaluation.monitors import (
    Monitor,
    Placeholders,
    describe_first_value,
    find_monitors,
    never_saving_checkpoints,
)
from rlwandb_callbacks.callbacks.evaluation.schedule import EvaluationSchedule
from rlwandb_callbacks.callbacks.evaluation.videos import VideoMode, drawing_jobs
from rlwandb_callbacks.callbacks.lightning_namespaces import is_a
from rlwandb_callbacks.callbacks.lightning_results import computed_metrics
from rlwandb_callbacks.callbacks.ranks import Ranks, sendable
from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.core.files import check_writable
from rlwandb_callbacks.core.values import DEFAULT_FPS, Scalar, Value
from rlwandb_callbacks.evaluation.evaluator import Evaluator
from rlwandb_callbacks.evaluation.preserved_state import preserved_state
from rlwandb_callbacks.evaluation.summary import Evaluation, infer_action_spec, left_out_histograms
from rlwandb_callbacks.evaluation.video_mode import Diverged, Mode
from rlwandb_callbacks.tracking.result import Job

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

SHARDING_STRATEGIES = ("FSDPStrategy", "ModelParallelStrategy", "DeepSpeedStrategy")
NEVER_SAVES = (
    "ModelCheckpoint(monitor={key!r}) saves when validation ends, and this training has no validation loop, so it "
    "keeps no best policy. Leave save_on_train_epoch_end at None or set it to True, and check_val_every_n_epoch to 1."
)


class EvaluationCallback(RLCallback):
    """Plays complete episodes when validation ends, and logs them.

    A module without a validation loop is evaluated every ``evaluation.every_n_steps`` updates and when its last epoch
    ends, before checkpoints are saved. A module whose training stops before its first validation is evaluated then too.
    The numbers (``eval/…``, ``q/…``, ``policy/…``) are added to the Trainer's metrics, so that
    ``ModelCheckpoint(monitor="eval/return_mean")`` and ``EarlyStopping`` find them. A module without an environment may
    return ``{"episodes": [Episode, …]}`` from ``validation_step`` instead.

    Example:
        >>> EvaluationCallback(env="CartPole-v1", policy="q_network").cfg.evaluation.env
        'CartPole-v1'
    """

    def __init__(self, cfg: Any = None, **keywords: Any) -> None:
        super().__init__(cfg, **keywords)
        self._evaluator: Evaluator | None = None
        self._videos = VideoMode(self.session)
        self._given_episodes: list[Episode] = []
        self._start_schedule()

    def _start_schedule(self, updates: int = 0, monitors: Sequence[Monitor] = ()) -> None:
        self._placeholders = Placeholders(monitors)
        self._schedule = EvaluationSchedule(self.cfg.evaluation.every_n_steps, updates=updates, monitors=monitors)

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the evaluator, which holds the module's policy."""
        return {**super().__getstate__(), "_evaluator": None, "_given_episodes": []}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Drops the environment of an earlier training."""
        self._evaluator = None
        super().setup(trainer, pl_module, stage)

    def connect(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds the run, and checks that videos can be written."""
        super().connect(trainer, pl_module, stage)
        makes_videos = self.cfg.video_logger is not False and self.session.tracker is not None
        self._videos.start(makes_videos=makes_videos)
        if makes_videos and self.cfg.evaluation.env is not None:
            check_writable(self.cfg.record_path, setting="record_path")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Makes the environment and calls the policy once, so that errors are raised before the first step."""
        super().on_fit_start(trainer, pl_module)
        self._start_schedule()
        self._prepare(trainer, pl_module)
        if self.cfg.evaluation.env is None and self.cfg.evaluation.policy is not None:
            self.session.errors.warn_once(
                "evaluation.policy is set and evaluation.env is not, so no episodes are played. Set "
                "evaluation.env too.",
                kind="policy without env",
            )

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepares for ``trainer.validate``, where no fit has started."""
        self._given_episodes = []
        self.session.count_from_checkpoint(trainer)
        if not trainer.sanity_checking:
            self._prepare(trainer, pl_module)

    def _prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._evaluator is not None or self.cfg.evaluation.env is None:
            return
        if any(is_a(trainer.strategy, name) for name in SHARDING_STRATEGIES):
            self.session.errors.warn_once(
                f"{type(trainer.strategy).__name__} distributes parameters over processes, so that no process can play "
                "on its own; no evaluation episodes are played.",
                kind="sharded",
            )
            return
        error: Exception | None = None
        try:
            with self._preserved_state(pl_module):
                self._evaluator = Evaluator(self.cfg, pl_module, self.session.errors.warn_once)
                if self._videos.state.mode is not Mode.NUMBERS and not self._evaluator.can_render():
                    self._videos.start(makes_videos=False)
        except Exception as caught:  # noqa: BLE001  # raised below, on all ranks
            error = caught
        Ranks(trainer).raise_together(error)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sets the schedule, and says when what monitors our numbers finds the first one."""
        super().on_train_start(trainer, pl_module)
        monitors = find_monitors(trainer, pl_module) if self.cfg.evaluation.env is not None else []
        self._start_schedule(self.session.counters.updates, monitors)
        if monitors:
            rank_zero_info(f"rlwandb: {describe_first_value(monitors, trainer, self.cfg.evaluation.every_n_steps)}")
            for key in never_saving_checkpoints(trainer):
                self.session.errors.warn_once(NEVER_SAVES.format(key=key), kind=f"checkpoint {key}")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Evaluates modules without a validation loop when an evaluation is due."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self._schedule.due_after_batch(trainer, self.session.counters.updates, batch_idx):
            self._evaluate(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluates where a monitor needs a number, and after the last epoch, while checkpoints can still see it."""
        if self._schedule.due_after_epoch(trainer, self.session.counters.updates):
            self._evaluate(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluates what no epoch's end has seen: a training that was stopped there, and averaged weights."""
        if self._schedule.due_after_training(trainer, self.session.counters.updates):
            self._evaluate(trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collects the episodes that ``validation_step`` may return."""
        given = outputs.get("episodes") if isinstance(outputs, Mapping) else None
        if not isinstance(given, list | tuple) or trainer.sanity_checking:
            return
        episodes = [episode for episode in given if isinstance(episode, Episode)]
        if len(episodes) < len(given):
            self.session.errors.warn_once(
                "validation_step returned 'episodes' that are not rlwandb_callbacks.Episode instances; they are left "
                "out.",
                kind="given episodes",
            )
        self._given_episodes += episodes

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluates."""
        if not trainer.sanity_checking:
            self._evaluate(trainer, pl_module)

    def _evaluate(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Plays on all ranks, logs on rank zero, and publishes the numbers on all ranks."""
        if getattr(trainer, "fast_dev_run", False):
            return
        ranks = Ranks(trainer)
        given = [episode for of_rank in ranks.gather(self._given_episodes) for episode in of_rank]
        self._given_episodes = []
        self._schedule.mark(self.session.counters.updates)
        if self._evaluator is None and not given:
            self._publish(trainer, {})
            return
        with self.session.timer.running():
            numbers: dict[str, float] = {}
            problems: list[Problem] = []
            raises = self.cfg.on_error == "raise"
            try:
                played = self._play(pl_module, ranks, given)
                problems += played.problems
                if ranks.is_zero and not raises:  # before the row, which counts them
                    self._report(problems)
                    problems.clear()
                if ranks.is_zero:
                    self._videos.update(played)
                if ranks.is_zero and played.episodes:
                    numbers = self._log(trainer, pl_module, played)
            except Exception as error:  # noqa: BLE001  # all ranks must come to the next exchange
                problems.append(("The evaluation", sendable(error, ranks)))
            numbers, problems = ranks.broadcast((numbers, problems))
            self._publish(trainer, numbers)
            if ranks.is_zero or raises:
                self._report(problems)

    def _report(self, problems: Iterable[Problem]) -> None:
        for what, error in problems:
            self.session.errors.report_error(what, error)

    def _play(self, pl_module: LightningModule, ranks: Ranks, given: list[Episode]) -> EvaluationResult:
        if given or self._evaluator is None:
            makes_videos = self._videos.state.mode is not Mode.NUMBERS
            chosen, problem = choose_episodes(given, self.cfg, ranks) if makes_videos else ({}, None)
            problems = [problem] if problem else []
            return EvaluationResult(given, None, Mode.RECORD, self._videos.state, chosen, problems=problems)
        keeps_observations = self.session.wants_observations
        preserved = partial(self._preserved_state, pl_module)
        distributed = DistributedEvaluation(self.cfg, self._evaluator, preserved, ranks, keeps_observations)
        return distributed.play(self._videos.state)

    def _preserved_state(self, pl_module: LightningModule) -> AbstractContextManager[None]:
        warn = partial(self.session.errors.warn_once, kind="buffer")
        cfg = self.cfg.evaluation
        return preserved_state(pl_module, seed=cfg.seed, policy=cfg.policy, warn=warn)

    def _publish(self, trainer: Trainer, numbers: Mapping[str, float]) -> None:
        """Adds finite numbers to the Trainer's metrics, and placeholders for those that are monitored in vain."""
        finite = {key: number for key, number in numbers.items() if math.isfinite(number)}
        published = self._placeholders.next(trainer) | finite
        tensors = {key: torch.tensor(number, dtype=torch.float32) for key, number in published.items()}
        computed_metrics(trainer).update(tensors)

    def _log(self, trainer: Trainer, pl_module: LightningModule, played: EvaluationResult) -> dict[str, float]:
        """Writes the row of numbers and queues the pictures; returns the numbers."""
        evaluator = None if played.make_env is None else self._evaluator
        actions = infer_action_spec(played.episodes) if evaluator is None else evaluator.env.actions
        evaluation = Evaluation(played.episodes, discount_factor(self.cfg.evaluation.gamma, pl_module), actions)
        numbers = evaluation.numbers()
        values: dict[str, Value] = {key: Scalar(number) for key, number in numbers.items()}
        jobs: list[Job] = []
        if self.session.tracker is not None:  # before the row, so that the row counts their errors
            with self.session.errors.guard("Drawing the evaluation"):
                values |= evaluation.distributions(with_returns=self.cfg.return_logger)
            if (warning := left_out_histograms(actions)) is not None:
                self.session.errors.warn_once(warning, kind="left out histograms")
            with self.session.errors.guard("Drawing the evaluation"):
                fps = DEFAULT_FPS if evaluator is None else evaluator.env.fps
                axes = self.session.counters.axes(trainer, pl_module)
                jobs = drawing_jobs(self.session, axes, evaluation, played, fps)
        with self.session.errors.guard("Logging the evaluation"):
            self.session.write(trainer, pl_module, values)
        if jobs:
            diverged = Diverged(played.played_in, reuses_envs=evaluator is not None and evaluator.reuses_envs)
            env_name = "" if played.make_env is None else played.make_env.name
            on_result = partial(self._videos.take_result, diverged, env_name)
            self.session.submit(trainer, pl_module, "Drawing the evaluation", jobs, on_result=on_result)
        return numbers

    def finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drops the references to the module."""
        self._evaluator, self._given_episodes = None, []


def discount_factor(configured: float | None, module: torch.nn.Module) -> float | None:
    """Returns gamma of the config, else of the module's hyper-parameters or attribute ``gamma``, else None."""
    hyper_parameters = getattr(module, "hparams", {})
    given = (configured, hyper_parameters.get("gamma"), getattr(module, "gamma", None))
    candidates = (value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else value for value in given)
    known = (value for value in candidates if isinstance(value, int | float) and not isinstance(value, bool))
    return next((float(value) for value in known if 0 <= value <= 1), None)
