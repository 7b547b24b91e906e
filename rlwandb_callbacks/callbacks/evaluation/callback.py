"""Plays evaluation episodes, and logs returns, videos and the outputs of the policy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from rlwandb_callbacks.callbacks.base import RLCallback
from rlwandb_callbacks.callbacks.evaluation.averaged_weights import AveragedWeights, PlayedWeights
from rlwandb_callbacks.callbacks.evaluation.distributed import (
    DistributedEvaluation,
    EvaluationResult,
    exchange_seconds,
    given_result,
)
from rlwandb_callbacks.callbacks.evaluation.earlier_numbers import EarlierNumbers
from rlwandb_callbacks.callbacks.evaluation.errors import EvaluationErrors
from rlwandb_callbacks.callbacks.evaluation.final_weights import FinalWeights
from rlwandb_callbacks.callbacks.evaluation.given_episodes import (
    POLICY_WITHOUT_ENV,
    GivenEpisodes,
    takes_given_episodes,
)
from rlwandb_callbacks.callbacks.evaluation.identical_episodes import IdenticalEpisodes
from rlwandb_callbacks.callbacks.evaluation.judged_steps import JudgedSteps
from rlwandb_callbacks.callbacks.evaluation.keys import EvaluationKeys
from rlwandb_callbacks.callbacks.evaluation.monitors import (
    NEVER_SAVES,
    Monitor,
    Placeholders,
    describe_first_value,
    find_monitors,
    never_saving_checkpoints,
)
from rlwandb_callbacks.callbacks.evaluation.owned_keys import OwnedKeys, check_names
from rlwandb_callbacks.callbacks.evaluation.preparation import Preparation
from rlwandb_callbacks.callbacks.evaluation.rank_results import Problem
from rlwandb_callbacks.callbacks.evaluation.schedule import EvaluationSchedule, is_last_epoch
from rlwandb_callbacks.callbacks.evaluation.validated_weights import ValidatedWeights
from rlwandb_callbacks.callbacks.evaluation.videos import VideoMode
from rlwandb_callbacks.callbacks.evaluation.weight_tensors import on_device
from rlwandb_callbacks.callbacks.evaluation.writer import EvaluationWriter, SummarizedEvaluation
from rlwandb_callbacks.callbacks.interruption import end_interrupted, received_sigterm
from rlwandb_callbacks.callbacks.lightning_namespaces import may_share_key
from rlwandb_callbacks.callbacks.lockstep import Moment
from rlwandb_callbacks.callbacks.meetings import MissingRanksError
from rlwandb_callbacks.callbacks.ranks import Ranks, announce, sendable
from rlwandb_callbacks.callbacks.session import Session
from rlwandb_callbacks.callbacks.session_parts import parts_in
from rlwandb_callbacks.config import EvaluationConfig
from rlwandb_callbacks.config.root import OneEvaluationConfig, with_one_evaluation
from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.core.files import check_writable
from rlwandb_callbacks.evaluation.evaluator import Evaluator

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

PLAYS_ALONE = "plays all evaluation episodes, and other ranks wait for it at their next step"


class EvaluationCallback(RLCallback):
    """Plays complete episodes when validation ends, and logs them.

    A module without a validation loop is evaluated every ``evaluation.every_n_steps`` updates and when its last epoch
    ends, before checkpoints are saved. A module whose training stops before its first validation is evaluated then too.
    The numbers (``eval/…``, ``q/…``, ``policy/…``) are added to the Trainer's metrics, so that
    ``ModelCheckpoint(monitor="eval/return_mean")`` and ``EarlyStopping`` find them. Where callbacks or hooks give the
    module an average for validation, that is played (``eval/averaged_weights`` is 1 then), and the last evaluation is
    of the weights that ``fit`` leaves in the module. A module without an environment may return
    ``{"episodes": [Episode, …]}`` from ``validation_step`` instead.

    Where the module, another callback or ``wandb.log`` logs a number under one of these keys too, the numbers of the
    evaluation are named ``eval_rl/…`` instead (``q_rl/…``, ``policy_rl/…``), with one warning.

    Args:
        cfg: A config, or a mapping with its keys.
        name: Which evaluation to play if the config has several. Its name is a part of all keys.
        keywords: As for every callback.

    Example:
        >>> EvaluationCallback(env="CartPole-v1", policy="q_network").cfg.evaluation.env
        'CartPole-v1'
    """

    cfg: OneEvaluationConfig

    def __init__(self, cfg: Any = None, *, name: str | None = None, **keywords: Any) -> None:
        super().__init__(cfg, **keywords)
        self.cfg = with_one_evaluation(self.session.cfg, name)
        self._takes_given_episodes = True
        self._judged_steps = JudgedSteps(self.cfg.evaluation.max_steps)
        self.use_session(self.session)

    @property
    def state_key(self) -> str:
        """The same key for all settings but the name of the evaluation."""
        name = self.cfg.evaluation.name
        return super().state_key if name is None else f"{super().state_key}.{name}"

    def use_session(self, session: Session) -> None:
        """Writes to the tracker of another session from now on."""
        super().use_session(session)
        self._errors = EvaluationErrors(session, self.cfg.evaluation.name)
        self._videos = VideoMode(self._errors)
        self._owned_keys = OwnedKeys(session, self._errors, self.cfg.evaluation.name)
        self._preparation = Preparation(self.cfg, self._errors, self._videos)
        self._earlier_numbers = EarlierNumbers()
        self._start()

    def _start(self, updates: int = 0, monitors: Sequence[Monitor] = ()) -> None:
        self._schedule = EvaluationSchedule(self.cfg.evaluation.every_n_steps, updates=updates, monitors=monitors)
        warn_once = self._errors.warn_once
        self._placeholders = Placeholders(monitors, warn_once)
        self._identical_episodes = IdenticalEpisodes(self.cfg.evaluation, self._errors)
        self._writer = EvaluationWriter(
            self.session,
            self.cfg,
            self._errors,
            self._owned_keys,
            self._videos,
            self._judged_steps,
            self._earlier_numbers,
        )
        self._given_episodes = GivenEpisodes(warn_once)
        self._averaged_weights = AveragedWeights(self.cfg.evaluation.policy, warn_once)
        self._validated_weights = ValidatedWeights(warn_once)
        self._final_weights = FinalWeights(self.cfg.evaluation.policy)
        self._monitors_of_given: Sequence[Monitor] = ()  # read our numbers once the module has given episodes

    @may_share_key
    def state_dict(self) -> dict[str, Any]:
        """Returns the counters, and the lengths of the longest episodes, which show a step limit."""
        return super().state_dict() | self._judged_steps.state() | self._owned_keys.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what a checkpoint has."""
        super().load_state_dict(state_dict)
        self._judged_steps.restore(state_dict)
        self._owned_keys.restore(state_dict)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Drops the environment of an earlier training, and looks at the other evaluations of the Trainer."""
        before, after = self._other_evaluations(trainer)
        check_names(self.cfg.evaluation, [*before, *after])
        self._takes_given_episodes = takes_given_episodes(self.cfg.evaluation, before, after)
        self._owned_keys.start(other.name for other in (*before, *after))
        self._preparation.start()
        self._judged_steps = JudgedSteps(self.cfg.evaluation.max_steps)
        self._start()
        self._averaged_weights.note_checkpoint(trainer, {})
        super().setup(trainer, pl_module, stage)

    def _other_evaluations(self, trainer: Trainer) -> tuple[list[EvaluationConfig], list[EvaluationConfig]]:
        """Returns the evaluations of callbacks before and after this one that write to the same run."""
        parts = [part for part in parts_in(trainer) if isinstance(part, EvaluationCallback)]
        parts = [part for part in parts if part.session.writes_where(self.session)]
        place = parts.index(self) if self in parts else len(parts)
        evaluations = [part.cfg.evaluation for part in parts]
        return evaluations[:place], evaluations[place + 1 :]

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
        self._earlier_numbers = EarlierNumbers()  # kept in trainer.validate, which writes to the run of the fit
        self._start()
        self._preparation.prepare_early(trainer, pl_module)
        if self.cfg.evaluation.env is None and self.cfg.evaluation.policy is not None:
            self._errors.warn_once(POLICY_WITHOUT_ENV, kind="policy without env")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drops what an earlier validation has left."""
        self._given_episodes.clear()
        self._validated_weights.clear()
        self.session.count_from_checkpoint(trainer)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepares for ``trainer.validate``, where no training batch starts, after ``on_validation_start``."""
        if not trainer.sanity_checking:
            self._preparation.prepare(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Prepares before the first batch for what the module has finished in its hooks."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self._preparation.prepare(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sets the schedule, and says when what monitors our numbers finds the first one."""
        super().on_train_start(trainer, pl_module)
        self.session.lockstep.agree(trainer)
        owns = self._owned_keys.owns
        found = find_monitors(trainer, pl_module, owns)
        monitors = found if self.cfg.evaluation.env is not None else []
        self._owned_keys.note_unnamed(find_monitors(trainer, pl_module))
        self._owned_keys.move_monitored(monitor.key for monitor in monitors)
        monitors = [monitor for monitor in monitors if owns(monitor.key)]
        self._start(self.session.counters.updates, monitors)
        self._monitors_of_given = [monitor for monitor in found if owns(monitor.key)]
        if monitors:
            announce(describe_first_value(monitors, trainer, self.cfg.evaluation.every_n_steps))
            for key in never_saving_checkpoints(trainer, owns):
                self._errors.warn_once(NEVER_SAVES.format(key=key), kind=f"checkpoint {key}")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Evaluates modules without a validation loop when an evaluation is due."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self._schedule.due_after_batch(trainer, self.session.counters.updates, batch_idx):
            self._evaluate(trainer, pl_module, Moment.BATCH_END)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks for numbers that the module has logged under our keys when its epoch ended, after our own hook."""
        self._look_for_taken_keys(trainer)

    def _look_for_taken_keys(self, trainer: Trainer) -> None:
        with self._errors.guard("Looking for keys that other code logs"):
            self._owned_keys.look_again(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluates where a monitor needs a number, and after the last epoch, while checkpoints can still see it."""
        if self._schedule.due_after_epoch(trainer, self.session.counters.updates):
            self._evaluate(trainer, pl_module, Moment.EPOCH_END)
        if self._preparation.evaluator is not None and is_last_epoch(trainer):
            self._final_weights.note_last_epoch(pl_module, self.session.counters.updates)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluates a training that was stopped, of which no earlier evaluation has seen the end."""
        if self._schedule.due_after_training(trainer, self.session.counters.updates):
            self._evaluate(trainer, pl_module, Moment.TRAINING_END)
        if self._preparation.evaluator is not None:
            self._final_weights.note_trained(pl_module, self.session.counters.updates)
        self._look_for_taken_keys(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluates the weights that the module was given when its training was over, if they are others."""
        if self._preparation.evaluator is not None and self._have_final_weights_changed(trainer, pl_module):
            with on_device(pl_module, self._final_weights.device):
                self._evaluate(trainer, pl_module, Moment.FIT_END)

    def _have_final_weights_changed(self, trainer: Trainer, pl_module: LightningModule) -> bool:
        ranks = self._ranks(trainer, Moment.FIT_END)
        if ranks is None:
            return False
        try:
            return self._final_weights.have_changed(ranks, pl_module)
        except MissingRanksError as error:
            self._miss(trainer, error, has_ended=True)
            return False

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
            if self._takes_given_episodes:
                self._given_episodes.add(outputs)
            if self._preparation.evaluator is not None:
                with self._errors.guard("Copying the weights of validation"):
                    self._validated_weights.note(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluates the weights that validation has seen."""
        if not trainer.sanity_checking:
            self._preparation.prepare(trainer, pl_module)
            self._evaluate(trainer, pl_module, Moment.VALIDATION)

    def _evaluate(self, trainer: Trainer, pl_module: LightningModule, moment: Moment) -> None:
        """Plays on all ranks, publishes the numbers on all ranks, and then logs on rank zero.

        Callbacks and schedulers read the numbers among the Trainer's metrics, whatever becomes of the log. Where ranks
        may not come together, rank zero does all of it, and the others go on.
        """
        if getattr(trainer, "fast_dev_run", False):
            self._placeholders.publish(trainer, {})  # schedulers read their number in this mode too
            return
        ranks = self._ranks(trainer, moment)
        if ranks is None:
            self._given_episodes.clear()
            self._placeholders.publish(trainer, {})
            return
        has_ended = moment in (Moment.TRAINING_END, Moment.FIT_END)
        try:
            self._evaluate_on(ranks, trainer, pl_module, after_training=has_ended)
        except MissingRanksError as error:
            if self._miss(trainer, error, has_ended=has_ended):
                self._evaluate(trainer, pl_module, moment)

    def _ranks(self, trainer: Trainer, moment: Moment) -> Ranks | None:
        """Returns the ranks that evaluate at a hook; None if this one does not."""
        lockstep = self.session.lockstep
        is_monitored = self._schedule.has_monitors or bool(self._monitors_of_given)
        if lockstep.is_sure(trainer, moment, is_needed=is_monitored):
            name = self.cfg.evaluation.name
            place = f"at the evaluation {'' if name is None else f'{name!r} '}at {moment.value}"
            return Ranks(trainer, place, starts=trainer.state.fn != "fit")
        if not trainer.is_global_zero:
            return None
        if moment is not Moment.FIT_END:
            self._errors.warn_once(lockstep.describe(moment, PLAYS_ALONE), kind="ranks")
        return Ranks.alone(trainer)

    def _miss(self, trainer: Trainer, error: MissingRanksError, *, has_ended: bool) -> bool:
        """Reports that other ranks have not come to an exchange; returns whether to go on without them."""
        if error.is_interrupted:
            end_interrupted(trainer, has_ended=has_ended)
            return False
        self.session.lockstep.give_up()
        self._errors.report_error("The exchange of an evaluation with other ranks", error)
        return True

    def _evaluate_on(self, ranks: Ranks, trainer: Trainer, pl_module: LightningModule, *, after_training: bool) -> None:
        given = self._given_episodes.take(ranks)
        if ranks.count > 1 and trainer.state.fn == "fit":
            self.session.sum_env_steps(trainer, pl_module, Moment.BATCH_END)  # all ranks are here
        if given:
            self._placeholders.watch(self._monitors_of_given)
        self._schedule.mark(self.session.counters.updates)
        if self._preparation.evaluator is None and not given:
            self._placeholders.publish(trainer, {})
            return
        with self.session.timer.running():
            problems: list[Problem] = []
            played: EvaluationResult | None = None
            summarized: SummarizedEvaluation | None = None
            weights = self._choose_weights(trainer, pl_module, after_training=after_training)
            try:
                played = self._play(trainer, pl_module, ranks, given, weights)
                problems += played.problems
                if ranks.is_zero and played.episodes:
                    summarized = self._writer.summarize(trainer, pl_module, played, self._evaluator(played), weights)
            except MissingRanksError:
                raise
            except Exception as error:  # noqa: BLE001  # all ranks must come to the next exchange
                problems.append(("The evaluation", sendable(error, ranks)))
            if played is not None and played.is_interrupted:  # on all ranks
                end_interrupted(trainer, has_ended=after_training)
                return
            self._publish(trainer, ranks, summarized)
            self._log(trainer, pl_module, ranks, played, summarized, problems)

    def _choose_weights(self, trainer: Trainer, pl_module: LightningModule, *, after_training: bool) -> PlayedWeights:
        weights = PlayedWeights()
        with self._errors.guard("Finding averaged weights"):
            seen = self._validated_weights.take(trainer, pl_module)
            weights = self._averaged_weights.choose(trainer, pl_module, seen=seen, after_training=after_training)
            if self._preparation.evaluator is not None:
                self._final_weights.note_played(pl_module, weights.values, self.session.counters.updates)
        return weights

    def _publish(self, trainer: Trainer, ranks: Ranks, summarized: SummarizedEvaluation | None) -> None:
        """Adds the numbers of rank zero to the Trainer's metrics on all ranks, by the keys that it has chosen."""
        keys = self._owned_keys.keys if summarized is None else summarized.keys
        numbers = {} if summarized is None else summarized.named
        numbers, keys = ranks.broadcast((numbers, keys))
        self._adopt_keys(trainer, keys)
        self._placeholders.publish(trainer, numbers)

    def _log(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        ranks: Ranks,
        played: EvaluationResult | None,
        summarized: SummarizedEvaluation | None,
        problems: list[Problem],
    ) -> None:
        """Writes an evaluation and reports its problems on rank zero; ``on_error: raise`` raises them on all ranks."""
        raises = self.cfg.on_error == "raise"
        if ranks.is_zero and not raises:  # before the row, which counts them
            self._report(problems)
            problems = []
        try:
            if ranks.is_zero and played is not None:
                self._videos.update(played)
                if summarized is not None:
                    self._write(trainer, pl_module, played, summarized)
        except Exception as error:  # noqa: BLE001  # all ranks must come to the next exchange
            problems = [*problems, ("The evaluation", sendable(error, ranks))]
        if raises:
            problems = ranks.broadcast(problems)
        if ranks.is_zero or raises:
            self._report(problems)

    def _adopt_keys(self, trainer: Trainer, keys: EvaluationKeys) -> None:
        """Takes the keys that rank zero has chosen, and lets monitors read what other code logs under the former."""
        before = self._owned_keys.adopt(keys)
        if before != keys:

            def is_released(key: str) -> bool:
                return before.owns(key) and not keys.owns(key)

            self._placeholders.release(trainer, is_released)
            self._schedule.release(is_released)

    def _report(self, problems: Iterable[Problem]) -> None:
        for what, error in problems:
            self._errors.report_error(what, error)

    def _play(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        ranks: Ranks,
        given: list[Episode],
        weights: PlayedWeights,
    ) -> EvaluationResult:
        if given or self._preparation.evaluator is None:
            return given_result(given, self.cfg, self._videos.state, ranks)
        preserve = partial(self._preparation.preserved_state, pl_module, weights)
        ranks.max_seconds = exchange_seconds(self.cfg.evaluation.max_seconds)
        distributed = DistributedEvaluation(
            self.cfg,
            self._preparation.evaluator,
            preserve,
            ranks,
            self.session.wants_observations,
            is_interrupted=partial(received_sigterm, trainer),
        )
        result = distributed.play(self._videos.state)
        self._preparation.announce_statistics()
        return result

    def _evaluator(self, played: EvaluationResult) -> Evaluator | None:
        """Returns the evaluator that has played these episodes; None if they were given."""
        return None if played.make_env is None else self._preparation.evaluator

    def _write(
        self, trainer: Trainer, pl_module: LightningModule, played: EvaluationResult, summarized: SummarizedEvaluation
    ) -> None:
        evaluator = self._evaluator(played)
        if evaluator is not None:
            preserve = partial(self._preparation.preserved_state, pl_module, PlayedWeights())
            self._identical_episodes.check(played, evaluator, preserve)
        self._writer.write(trainer, pl_module, played, evaluator, summarized)

    def finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drops the references to the module."""
        self._preparation.start()
        self._given_episodes.clear()
