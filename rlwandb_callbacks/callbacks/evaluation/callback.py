"""Plays evaluation episodes, and logs returns, videos and the outputs of the policy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlwandb_callbacks.callbacks.base import RLCallback
from rlwandb_callbacks.callbacks.evaluation.distributed import (
    DistributedEvaluation,
    EvaluationResult,
    Problem,
    choose_episodes,
    frame_budget,
)
from rlwandb_callbacks.callbacks.lightning_namespaces import is_a
from rlwandb_callbacks.callbacks.ranks import Ranks, sendable
from rlwandb_callbacks.callbacks.schedule import Every
from rlwandb_callbacks.callbacks.session import sessions_in
from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.core.files import check_writable
from rlwandb_callbacks.core.values import DEFAULT_FPS, Scalar, Value, Video
from rlwandb_callbacks.errors import EnvError, RenderError, ReplayDivergedError
from rlwandb_callbacks.evaluation.evaluator import Evaluator
from rlwandb_callbacks.evaluation.jobs import evaluation_jobs, frames_in_episodes
from rlwandb_callbacks.evaluation.preserved_state import preserved_state
from rlwandb_callbacks.evaluation.replay import ReplayFrames
from rlwandb_callbacks.evaluation.summary import Evaluation, infer_action_spec
from rlwandb_callbacks.evaluation.video_mode import Diverged, Event, Mode, VideoState, mode_warning, next_mode
from rlwandb_callbacks.media.clips import ClipStyle
from rlwandb_callbacks.media.frame_sources import FrameSource
from rlwandb_callbacks.tracking.result import Job, Result

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

OUR_GROUPS = ("eval/", "q/", "policy/")
SHARDING_STRATEGIES = ("FSDPStrategy", "ModelParallelStrategy", "DeepSpeedStrategy")
WORST = float(torch.finfo(torch.float32).min)


class EvaluationCallback(RLCallback):
    """Plays complete episodes when validation ends, and logs them.

    A module without a validation loop is evaluated every ``evaluation.every_n_steps`` updates and at the end of fit. A
    module whose training stops before its first validation is evaluated at the end of fit.
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
        self._video_state = VideoState(Mode.NUMBERS)
        self._given_episodes: list[Episode] = []
        self._every = Every(self.cfg.evaluation.every_n_steps)
        self._evaluated_at_update = -1

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
        self._video_state = VideoState(Mode.REPLAY if makes_videos else Mode.NUMBERS)
        if makes_videos and self.cfg.evaluation.env is not None:
            check_writable(self.cfg.record_path, setting="record_path")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Makes the environment and calls the policy once, so that errors are raised before the first step."""
        super().on_fit_start(trainer, pl_module)
        self._evaluated_at_update = -1
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
            with preserved_state(pl_module, seed=self.cfg.evaluation.seed):
                self._evaluator = Evaluator(self.cfg, pl_module, self.session.errors.warn_once)
        except Exception as caught:  # noqa: BLE001  # raised below, on all ranks
            error = caught
        Ranks(trainer).raise_together(error)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sets the schedule for modules without a validation loop."""
        super().on_train_start(trainer, pl_module)
        self._every = Every(self.cfg.evaluation.every_n_steps, last=self.session.counters.updates)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Evaluates modules without a validation loop when an evaluation is due."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self._every.due(self.session.counters.updates) and not trainer.enable_validation:
            self._evaluate(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluates modules without a validation loop, and modules that were never validated, a last time."""
        updates = self.session.counters.updates
        if self._evaluated_at_update < 0 if trainer.enable_validation else self._evaluated_at_update != updates:
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
        if self._evaluator is None and not given:
            return
        self._evaluated_at_update = self.session.counters.updates
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
                    self._update_videos(played)
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
            makes_videos = self._video_state.mode is not Mode.NUMBERS
            chosen, problem = choose_episodes(given, self.cfg, ranks) if makes_videos else ({}, None)
            problems = [problem] if problem else []
            return EvaluationResult(given, None, Mode.RECORD, self._video_state, chosen, problems=problems)
        keeps_observations = self.session.wants_observations
        distributed = DistributedEvaluation(self.cfg, self._evaluator, pl_module, ranks, keeps_observations)
        return distributed.play(self._video_state)

    def _publish(self, trainer: Trainer, numbers: Mapping[str, float]) -> None:
        """Adds numbers to the Trainer's metrics, and placeholders for those that a callback monitors in vain."""
        numbers = placeholder_metrics(trainer) | dict(numbers)
        for session in sessions_in(trainer, self.session):
            session.published |= numbers.keys()
        trainer.callback_metrics.update({key: torch.tensor(number) for key, number in numbers.items()})

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
            with self.session.errors.guard("Drawing the evaluation"):
                jobs = self._jobs(trainer, pl_module, evaluation, played)
        with self.session.errors.guard("Logging the evaluation"):
            self.session.write(trainer, pl_module, values)
        if jobs:
            diverged = Diverged(played.played_in, reuses_envs=evaluator is not None and evaluator.reuses_envs)
            on_result = partial(self._take_result, diverged)
            self.session.submit(trainer, pl_module, "Drawing the evaluation", jobs, on_result=on_result)
        return numbers

    def _jobs(
        self, trainer: Trainer, pl_module: LightningModule, evaluation: Evaluation, played: EvaluationResult
    ) -> list[Job]:
        axes = self.session.counters.axes(trainer, pl_module)
        fps = DEFAULT_FPS if self._evaluator is None or played.make_env is None else self._evaluator.env.fps
        videos = self.cfg.videos
        style = ClipStyle(evaluation.actions, self.cfg.action_logger is not False, videos.fps or fps, videos.crf)
        frames: Mapping[str, tuple[int, FrameSource]]
        if played.make_env is None:
            frames = frames_in_episodes(evaluation, played.chosen, max_bytes=frame_budget(self.cfg))
        else:
            frames = {
                label: (i, played.frames.get(i) or ReplayFrames(played.make_env, played.episodes[i]))
                for label, i in played.chosen.items()
            }
        jobs = evaluation_jobs(
            evaluation,
            frames,
            with_returns=self.cfg.return_logger,
            style=style,
            folder=Path(self.cfg.record_path) / getattr(self.session.run, "id", ""),
            step=int(axes["trainer/global_step"]),
            env_steps=axes.get("time/env_steps"),
        )
        for make_job in self.session.evaluation_jobs.values():
            with self.session.errors.guard("Preparing the map of the policy"):
                job = make_job(evaluation)
                jobs += [] if job is None else [job]
        return jobs

    def _update_videos(self, played: EvaluationResult) -> None:
        """Takes the mode for the next evaluation, and warns of its changes."""
        self._video_state = played.state
        for warning in played.warnings:
            self.session.errors.warn_once(warning, kind=warning)

    def _take_result(self, diverged: Diverged, result: Result) -> None:
        """Reports the error of drawn clips, and updates the mode; ``diverged`` is the event if a replay diverged."""
        error = result.error
        if isinstance(error, ReplayDivergedError):
            self._update_mode(diverged, str(error))
        elif error is not None:
            is_of_env = isinstance(error, RenderError | EnvError)
            self.session.errors.report_error("Making videos" if is_of_env else "Drawing the evaluation", error)
        if any(isinstance(value, Video) for value in result.values.values()):
            self._update_mode(Event.CLIPS_MADE)
        elif isinstance(error, RenderError | EnvError):
            self._update_mode(Event.CLIPS_FAILED)

    def _update_mode(self, event: Event | Diverged, reason: str = "") -> None:
        before, self._video_state = self._video_state, next_mode(self._video_state, event)
        warning = mode_warning(before, self._video_state, reason, lost_videos=True)
        if warning is not None:
            self.session.errors.warn_once(warning, kind=warning)

    def finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drops the references to the module."""
        self._evaluator, self._given_episodes = None, []


def placeholder_metrics(trainer: Any) -> dict[str, float]:
    """Returns the worst finite number for each of our keys that a callback monitors and that has no value yet.

    ModelCheckpoint and EarlyStopping end a training if a monitored number is missing or not finite, and an evaluation
    may fail. Placeholders are not logged.
    """
    numbers = {}
    for callback in trainer.callbacks:
        monitor = getattr(callback, "monitor", None)
        if isinstance(monitor, str) and monitor.startswith(OUR_GROUPS) and monitor not in trainer.callback_metrics:
            numbers[monitor] = WORST if getattr(callback, "mode", "min") == "max" else -WORST
    return numbers


def discount_factor(configured: float | None, module: torch.nn.Module) -> float | None:
    """Returns gamma of the config, else of the module's hyper-parameters or attribute ``gamma``, else None."""
    hyper_parameters = getattr(module, "hparams", {})
    given = (configured, hyper_parameters.get("gamma"), getattr(module, "gamma", None))
    candidates = (value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else value for value in given)
    known = (value for value in candidates if isinstance(value, int | float) and not isinstance(value, bool))
    return next((float(value) for value in known if 0 <= value <= 1), None)
