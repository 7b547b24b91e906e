"""Plays evaluation episodes, and logs returns, videos and the outputs of the policy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from lightning_utilities.core.rank_zero import rank_zero_info

from rlwandb_callbacks.callbacks.base import RLCallback
from rlwandb_callbacks.callbacks.evaluation.averaged_weights import AveragedWeights, PlayedWeights
from rlwandb_callbacks.callbacks.evaluation.distributed import (
    SHARDED,
    DistributedEvaluation,
    EvaluationResult,
    Problem,
    given_result,
)
from rlwandb_callbacks.callbacks.evaluation.earlier_numbers import EarlierNumbers
from rlwandb_callbacks.callbacks.evaluation.final_weights import FinalWeights
from rlwandb_callbacks.callbacks.evaluation.given_episodes import POLICY_WITHOUT_ENV, GivenEpisodes
from rlwandb_callbacks.callbacks.evaluation.judged_steps import JudgedSteps, discount_factor
from rlwandb_callbacks.callbacks.evaluation.monitors import (
    NEVER_SAVES,
    Monitor,
    Placeholders,
    describe_first_value,
    find_monitors,
    never_saving_checkpoints,
)
from rlwandb_callbacks.callbacks.evaluation.schedule import EvaluationSchedule, is_last_epoch
from rlwandb_callbacks.callbacks.evaluation.validated_weights import ValidatedWeights
from rlwandb_callbacks.callbacks.evaluation.videos import VideoMode, drawing_jobs
from rlwandb_callbacks.callbacks.evaluation.weight_tensors import on_device, with_weights
from rlwandb_callbacks.callbacks.lightning_namespaces import shards_parameters
from rlwandb_callbacks.callbacks.ranks import Ranks, sendable
from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.core.files import check_writable
from rlwandb_callbacks.core.values import DEFAULT_FPS, Scalar, Value
from rlwandb_callbacks.evaluation.evaluator import Evaluator
from rlwandb_callbacks.evaluation.preserved_state import preserved_state
from rlwandb_callbacks.evaluation.summary import Evaluation, infer_action_spec, left_out_histograms
from rlwandb_callbacks.evaluation.video_mode import Mode
from rlwandb_callbacks.tracking.result import Job

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer


class EvaluationCallback(RLCallback):
    """Plays complete episodes when validation ends, and logs them.

    A module without a validation loop is evaluated every ``evaluation.every_n_steps`` updates and when its last epoch
    ends, before checkpoints are saved. A module whose training stops before its first validation is evaluated then too.
    The numbers (``eval/…``, ``q/…``, ``policy/…``) are added to the Trainer's metrics, so that
    ``ModelCheckpoint(monitor="eval/return_mean")`` and ``EarlyStopping`` find them. Where callbacks or hooks give the
    module an average for validation, that is played (``eval/averaged_weights`` is 1 then), and the last evaluation is
    of the weights that ``fit`` leaves in the module. A module without an environment may return
    ``{"episodes": [Episode, …]}`` from ``validation_step`` instead.

    Example:
        >>> EvaluationCallback(env="CartPole-v1", policy="q_network").cfg.evaluation.env
        'CartPole-v1'
    """

    def __init__(self, cfg: Any = None, **keywords: Any) -> None:
        super().__init__(cfg, **keywords)
        self._evaluator: Evaluator | None = None
        self._videos = VideoMode(self.session)
        self._judged_steps = JudgedSteps(self.cfg.evaluation.max_steps)
        self._start()

    def _start(self, updates: int = 0, monitors: Sequence[Monitor] = ()) -> None:
        self._schedule = EvaluationSchedule(self.cfg.evaluation.every_n_steps, updates=updates, monitors=monitors)
        warn_once = self.session.errors.warn_once
        self._placeholders = Placeholders(monitors, warn_once)
        self._earlier_numbers = EarlierNumbers()
        self._given_episodes = GivenEpisodes(warn_once)
        self._averaged_weights = AveragedWeights(self.cfg.evaluation.policy, warn_once)
        self._validated_weights = ValidatedWeights(warn_once)
        self._final_weights = FinalWeights(self.cfg.evaluation.policy)

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the evaluator, which holds the module's policy."""
        return {**super().__getstate__(), "_evaluator": None}

    def state_dict(self) -> dict[str, Any]:
        """Returns the counters, and the lengths of the longest episodes, which show a step limit."""
        return super().state_dict() | self._judged_steps.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what a checkpoint has."""
        super().load_state_dict(state_dict)
        self._judged_steps.restore(state_dict)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Drops the environment of an earlier training."""
        self._evaluator = None
        self._judged_steps = JudgedSteps(self.cfg.evaluation.max_steps)
        self._averaged_weights.note_checkpoint(trainer, {})
        super().setup(trainer, pl_module, stage)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Notes whether a checkpoint for ``trainer.validate`` holds averaged weights."""
        self._averaged_weights.note_checkpoint(trainer, checkpoint)

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
        self._start()
        self._prepare(trainer, pl_module)
        if self.cfg.evaluation.env is None and self.cfg.evaluation.policy is not None:
            self.session.errors.warn_once(POLICY_WITHOUT_ENV, kind="policy without env")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepares for ``trainer.validate``, where no fit has started."""
        self._given_episodes.clear()
        self._validated_weights.clear()
        self.session.count_from_checkpoint(trainer)
        if not trainer.sanity_checking:
            self._prepare(trainer, pl_module)

    def _prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._evaluator is not None or self.cfg.evaluation.env is None:
            return
        if shards_parameters(trainer):
            self.session.errors.warn_once(SHARDED.format(strategy=type(trainer.strategy).__name__), kind="sharded")
            return
        error: Exception | None = None
        try:
            with self._preserved_state(pl_module, PlayedWeights()):
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
        self._start(self.session.counters.updates, monitors)
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
        if self._evaluator is not None and is_last_epoch(trainer):
            self._final_weights.note_last_epoch(pl_module, self.session.counters.updates)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluates a training that was stopped, of which no earlier evaluation has seen the end."""
        if self._schedule.due_after_training(trainer, self.session.counters.updates):
            self._evaluate(trainer, pl_module, after_training=True)
        if self._evaluator is not None:
            self._final_weights.note_trained(pl_module, self.session.counters.updates)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluates the weights that the module was given when its training was over, if they are others."""
        if self._evaluator is not None and self._final_weights.have_changed(trainer, pl_module):
            with on_device(pl_module, self._final_weights.device):
                self._evaluate(trainer, pl_module, after_training=True)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collects the episodes that ``validation_step`` may return, and notes the weights that it has seen."""
        if not trainer.sanity_checking:
            self._given_episodes.add(outputs)
            if self._evaluator is not None:
                with self.session.errors.guard("Copying the weights of validation"):
                    self._validated_weights.note(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluates the weights that validation has seen."""
        if not trainer.sanity_checking:
            self._evaluate(trainer, pl_module)

    def _evaluate(self, trainer: Trainer, pl_module: LightningModule, *, after_training: bool = False) -> None:
        """Plays on all ranks, logs on rank zero, and publishes the numbers on all ranks."""
        if getattr(trainer, "fast_dev_run", False):
            self._placeholders.publish(trainer, {})  # schedulers read their number in this mode too
            return
        ranks = Ranks(trainer)
        given = self._given_episodes.take(ranks)
        self._schedule.mark(self.session.counters.updates)
        if self._evaluator is None and not given:
            self._placeholders.publish(trainer, {})
            return
        with self.session.timer.running():
            numbers: dict[str, float] = {}
            problems: list[Problem] = []
            raises = self.cfg.on_error == "raise"
            weights = PlayedWeights()
            with self.session.errors.guard("Finding averaged weights"):
                seen = self._validated_weights.take(trainer, pl_module)
                weights = self._averaged_weights.choose(trainer, pl_module, seen=seen, after_training=after_training)
                if self._evaluator is not None:
                    self._final_weights.note_played(pl_module, weights.values, self.session.counters.updates)
            try:
                played = self._play(pl_module, ranks, given, weights)
                problems += played.problems
                if ranks.is_zero and not raises:  # before the row, which counts them
                    self._report(problems)
                    problems.clear()
                if ranks.is_zero:
                    self._videos.update(played)
                if ranks.is_zero and played.episodes:
                    numbers = self._log(trainer, pl_module, played, weights)
            except Exception as error:  # noqa: BLE001  # all ranks must come to the next exchange
                problems.append(("The evaluation", sendable(error, ranks)))
            numbers, problems = ranks.broadcast((numbers, problems))
            self._placeholders.publish(trainer, numbers)
            if ranks.is_zero or raises:
                self._report(problems)

    def _report(self, problems: Iterable[Problem]) -> None:
        for what, error in problems:
            self.session.errors.report_error(what, error)

    def _play(
        self, pl_module: LightningModule, ranks: Ranks, given: list[Episode], weights: PlayedWeights
    ) -> EvaluationResult:
        if given or self._evaluator is None:
            return given_result(given, self.cfg, self._videos.state, ranks)
        preserve = partial(self._preserved_state, pl_module, weights)
        distributed = DistributedEvaluation(self.cfg, self._evaluator, preserve, ranks, self.session.wants_observations)
        return distributed.play(self._videos.state)

    @contextmanager
    def _preserved_state(self, pl_module: LightningModule, weights: PlayedWeights) -> Iterator[None]:
        warn = partial(self.session.errors.warn_once, kind="buffer")
        cfg = self.cfg.evaluation
        with (
            with_weights(pl_module, weights.values),
            preserved_state(pl_module, seed=cfg.seed, policy=cfg.policy, warn=warn),
        ):
            yield

    def _log(
        self, trainer: Trainer, pl_module: LightningModule, played: EvaluationResult, weights: PlayedWeights
    ) -> dict[str, float]:
        """Writes the row of numbers and queues the pictures; returns the numbers."""
        evaluator = None if played.make_env is None else self._evaluator
        actions = infer_action_spec(played.episodes) if evaluator is None else evaluator.env.actions
        gamma = discount_factor(self.cfg.evaluation.gamma, pl_module)
        step_limit = self._judged_steps.limit(played.episodes, evaluator)
        evaluation = Evaluation(played.episodes, gamma, actions, step_limit)
        self._judged_steps.explain(evaluation)
        numbers = evaluation.numbers() | weights.numbers()
        row = self._earlier_numbers.lacking(numbers) | numbers
        values: dict[str, Value] = {key: Scalar(number) for key, number in row.items()}
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
            reuses_envs = evaluator is not None and evaluator.reuses_envs
            on_result = self._videos.result_handler(played, reuses_envs=reuses_envs)
            self.session.submit(trainer, pl_module, "Drawing the evaluation", jobs, on_result=on_result)
        return numbers

    def finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drops the references to the module."""
        self._evaluator = None
        self._given_episodes.clear()
