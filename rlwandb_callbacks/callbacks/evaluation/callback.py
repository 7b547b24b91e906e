"""Plays evaluation episodes, and logs returns, videos and what the policy thought."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlwandb_callbacks.callbacks.base import RLCallback
from rlwandb_callbacks.callbacks.evaluation.distributed import DistributedEvaluation, EvaluationResult
from rlwandb_callbacks.callbacks.ranks import Ranks, sendable
from rlwandb_callbacks.callbacks.schedule import Every
from rlwandb_callbacks.callbacks.session import sessions_in
from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.core.files import check_writable
from rlwandb_callbacks.core.values import DEFAULT_FPS, Scalar, Value
from rlwandb_callbacks.evaluation.evaluator import Evaluator
from rlwandb_callbacks.evaluation.preserved_state import undisturbed
from rlwandb_callbacks.evaluation.report import EvaluationJob, Together
from rlwandb_callbacks.evaluation.summary import Evaluation, guess_actions
from rlwandb_callbacks.evaluation.video_mode import ClipPaths, Recorder

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

OUR_GROUPS = ("eval/", "q/", "policy/")
SHARDING_STRATEGIES = ("FSDPStrategy", "ModelParallelStrategy", "DeepSpeedStrategy")
WORST = float(torch.finfo(torch.float32).min)


class EvaluationCallback(RLCallback):
    """Plays complete episodes when validation ends, and logs them.

    A module without a validation loop is evaluated every ``evaluation.every_n_steps`` updates and at the end of fit;
    one whose validation did not come, as training stopped within an epoch, at the end of fit.
    The numbers (``eval/…``, ``q/…``, ``policy/…``) are put among the Trainer's metrics, so that
    ``ModelCheckpoint(monitor="eval/return_mean")`` and ``EarlyStopping`` see them. A module that brings no environment
    may return ``{"episodes": [Episode, …]}`` from ``validation_step`` instead.

    Example:
        >>> EvaluationCallback(env="CartPole-v1", policy="q_network").cfg.evaluation.env
        'CartPole-v1'
    """

    def __init__(self, cfg: Any = None, **keywords: Any) -> None:
        super().__init__(cfg, **keywords)
        self._evaluator: Evaluator | None = None
        self._recorder = self._new_recorder()
        self._given: list[Episode] = []
        self._every = Every(self.cfg.evaluation.every_n_steps)
        self._evaluated_at_update = -1

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out what holds the module's policy."""
        return {**super().__getstate__(), "_evaluator": None, "_given": []}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forgets the environment of an earlier training."""
        self._evaluator = None
        super().setup(trainer, pl_module, stage)

    def connect(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds the run, and checks that videos can be kept."""
        super().connect(trainer, pl_module, stage)
        self._recorder = self._new_recorder()
        if self._makes_videos and self.cfg.evaluation.env is not None:
            check_writable(self.cfg.record_path, setting="record_path")

    @property
    def _makes_videos(self) -> bool:
        return self.cfg.video_logger is not False and self.session.tracker is not None

    def _new_recorder(self) -> Recorder:
        return Recorder(self.cfg, self.session, makes_clips=self._makes_videos)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Makes the environment and asks the policy once, so that what is wrong shows before the first step."""
        super().on_fit_start(trainer, pl_module)
        self._evaluated_at_update = -1
        self._prepare(trainer, pl_module)
        if self.cfg.evaluation.env is None and self.cfg.evaluation.policy is not None:
            self.session.warn_once(
                "evaluation.policy is set and evaluation.env is not, so nothing is played. Set evaluation.env too.",
                kind="policy without env",
            )

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepares for ``trainer.validate``, where no fit has started."""
        self._given = []
        if not trainer.sanity_checking:
            self._prepare(trainer, pl_module)

    def _prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._evaluator is not None or self.cfg.evaluation.env is None:
            return
        if type(trainer.strategy).__name__ in SHARDING_STRATEGIES:
            self.session.warn_once(
                f"{type(trainer.strategy).__name__} spreads parameters over processes, which then cannot play each for "
                "itself; no evaluation episodes are played.",
                kind="sharded",
            )
            return
        error: Exception | None = None
        try:
            with undisturbed(pl_module, seed=self.cfg.evaluation.seed):
                self._evaluator = Evaluator(self.cfg, pl_module, self.session.warn_once)
        except Exception as problem:  # noqa: BLE001  # raised below, on all ranks
            error = problem
        Ranks(trainer).raise_together(error)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sets the schedule for modules without a validation loop."""
        super().on_train_start(trainer, pl_module)
        self._every = Every(self.cfg.evaluation.every_n_steps, last=self.session.counters.updates)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Evaluates modules that have no validation loop."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self._every.due(self.session.counters.updates) and not trainer.enable_validation:
            self._evaluate(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluates modules that have no validation loop a last time, and those whose validation has not come."""
        is_wanted = self._evaluated_at_update < 0 if trainer.enable_validation else self._is_behind
        if is_wanted:
            self._evaluate(trainer, pl_module)

    @property
    def _is_behind(self) -> bool:
        return self._evaluated_at_update != self.session.counters.updates

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Takes the episodes that ``validation_step`` may return."""
        given = outputs.get("episodes") if isinstance(outputs, Mapping) else None
        if not isinstance(given, list | tuple) or trainer.sanity_checking:
            return
        episodes = [episode for episode in given if isinstance(episode, Episode)]
        if len(episodes) < len(given):
            self.session.warn_once(
                "validation_step returned 'episodes' that are no rlwandb_callbacks.Episode; they are left out.",
                kind="given episodes",
            )
        self._given += episodes

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluates."""
        if not trainer.sanity_checking:
            self._evaluate(trainer, pl_module)

    def _evaluate(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if getattr(trainer, "fast_dev_run", False):
            return
        ranks = Ranks(trainer)
        self._given = [episode for share in ranks.gather(self._given) for episode in share]
        if self._evaluator is None and not self._given:
            return
        self._evaluated_at_update = self.session.counters.updates
        with self.session.logging_timer.running():
            self._share_out(trainer, pl_module, ranks)

    def _share_out(self, trainer: Trainer, pl_module: LightningModule, ranks: Ranks) -> None:
        numbers: dict[str, float] = {}
        errors: list[Exception] = []
        try:
            played = self._play(pl_module, ranks)
            errors = list(played.errors)
            if ranks.is_zero:
                numbers = self._log(trainer, pl_module, played)
        except Exception as error:  # noqa: BLE001  # all ranks must come to the next exchange
            errors = [*errors, sendable(error, ranks)]
        numbers, errors = ranks.from_zero((numbers, errors))
        self._given = []
        for problem in errors if ranks.is_zero or self.cfg.on_error == "raise" else []:
            self.session.report("The evaluation", problem)
        numbers = placeholder_metrics(trainer) | numbers
        for session in sessions_in(trainer, self.session):
            session.published |= numbers.keys()
        trainer.callback_metrics.update({key: torch.tensor(number) for key, number in numbers.items()})

    def _play(self, pl_module: LightningModule, ranks: Ranks) -> EvaluationResult:
        if self._given or self._evaluator is None:
            return EvaluationResult(self._given, {}, {}, [])
        seed, keeps_observations = self.cfg.evaluation.seed, self.session.wants_observations
        return DistributedEvaluation(
            self._evaluator, self._recorder, pl_module, seed, ranks, keeps_observations=keeps_observations
        )()

    def _log(self, trainer: Trainer, pl_module: LightningModule, played: EvaluationResult) -> dict[str, float]:
        actions = guess_actions(played.episodes) if self._evaluator is None or self._given else self._evaluator.actions
        gamma = discount_factor(self.cfg.evaluation.gamma, pl_module)
        evaluation = Evaluation(played.episodes, gamma, actions)
        numbers = evaluation.numbers()
        values: dict[str, Value] = {key: Scalar(number) for key, number in numbers.items()}
        report: EvaluationJob | None = None
        if self.session.tracker is not None:  # before the row, so that the row counts what goes wrong
            with self.session.guarded("Drawing the evaluation"):
                values |= evaluation.distributions(with_returns=self.cfg.return_logger)
            with self.session.guarded("Drawing the evaluation"):
                report = self._report(self._shelf(trainer, pl_module), evaluation, played)
        self.session.write(trainer, pl_module, values)
        if report is not None:
            with self.session.guarded("Drawing the evaluation"):
                self._submit(trainer, pl_module, evaluation, report)
        return numbers

    def _submit(
        self, trainer: Trainer, pl_module: LightningModule, evaluation: Evaluation, report: EvaluationJob
    ) -> None:
        parts = self.session.parts_for(evaluation)
        if parts or not report.is_empty:
            take = functools.partial(self._recorder.take, made_in=self._recorder.mode)
            self.session.submit(trainer, pl_module, "Drawing the evaluation", Together(report, parts), on_report=take)

    def _shelf(self, trainer: Trainer, pl_module: LightningModule) -> ClipPaths:
        axes = self.session.counters.axes(trainer, pl_module)
        folder = Path(self.cfg.record_path) / getattr(self.session.run, "id", "")
        return ClipPaths(folder, int(axes["trainer/global_step"]), axes.get("time/env_steps"))

    def _report(self, shelf: ClipPaths, evaluation: Evaluation, played: EvaluationResult) -> EvaluationJob:
        evaluator = self._evaluator
        if evaluator is None or self._given:
            return self._recorder.report_of_given(evaluation, fps=self.cfg.videos.fps or DEFAULT_FPS, shelf=shelf)
        return self._recorder.report(
            evaluation, played.chosen, played.films, make_env=evaluator.make_env, fps=evaluator.fps, shelf=shelf
        )

    def finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lets go of the module."""
        self._evaluator, self._given = None, []


def placeholder_metrics(trainer: Any) -> dict[str, float]:
    """The worst finite number for each of our keys that a callback monitors and no evaluation has given yet.

    ModelCheckpoint and EarlyStopping end a training over a number that is missing, or not finite, and an evaluation may
    fail. Stand-ins are not logged.
    """
    numbers = {}
    for callback in trainer.callbacks:
        monitor = getattr(callback, "monitor", None)
        if isinstance(monitor, str) and monitor.startswith(OUR_GROUPS) and monitor not in trainer.callback_metrics:
            numbers[monitor] = WORST if getattr(callback, "mode", "min") == "max" else -WORST
    return numbers


def discount_factor(configured: float | None, module: torch.nn.Module) -> float | None:
    """Takes gamma from the config, else from the module's hyper-parameters or attribute ``gamma``; else it is None."""
    hyper_parameters = getattr(module, "hparams", {})
    given = (configured, hyper_parameters.get("gamma"), getattr(module, "gamma", None))
    candidates = (value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else value for value in given)
    known = (value for value in candidates if isinstance(value, int | float) and not isinstance(value, bool))
    return next((float(value) for value in known if 0 <= value <= 1), None)
