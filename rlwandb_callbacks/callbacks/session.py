"""State that the callbacks of one training share: counters, the tracker, the error policy and the job queue."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from rlwandb_callbacks.callbacks.algorithm import find_algorithm
from rlwandb_callbacks.callbacks.backward_gradients import BackwardGradients
from rlwandb_callbacks.callbacks.checkpoint_counters import read_counters
from rlwandb_callbacks.callbacks.counters import Counters, Reached
from rlwandb_callbacks.callbacks.error_policy import ErrorPolicy
from rlwandb_callbacks.callbacks.interruption import received_sigterm
from rlwandb_callbacks.callbacks.latest_run import LatestRun
from rlwandb_callbacks.callbacks.lightning_namespaces import find_wandb_logger, shards_parameters
from rlwandb_callbacks.callbacks.lockstep import Lockstep, Moment
from rlwandb_callbacks.callbacks.logging_time import LoggingTimer
from rlwandb_callbacks.callbacks.loss_scale import LossScale
from rlwandb_callbacks.callbacks.rank_exchange import RankExchange
from rlwandb_callbacks.callbacks.rows import Submit
from rlwandb_callbacks.callbacks.session_jobs import SessionJobs
from rlwandb_callbacks.callbacks.session_rows import SessionRows
from rlwandb_callbacks.callbacks.unregistered_tensors import describe_unsaved, unregistered_tensors
from rlwandb_callbacks.config import EvaluationConfig, WandbRLConfig
from rlwandb_callbacks.core.secrets import secret_values
from rlwandb_callbacks.core.values import Scalar, Value
from rlwandb_callbacks.evaluation.summary import Evaluation
from rlwandb_callbacks.tracking.result import Job, Result
from rlwandb_callbacks.tracking.tracker import AlertingTracker, Tracker
from rlwandb_callbacks.tracking.wait_limit import WaitLimit

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

Listener: TypeAlias = Callable[[Mapping[str, float], Mapping[str, float]], None]
"""Function of the axes and the scalars of a row, both by our own keys."""
JobOfEvaluation: TypeAlias = Callable[[Evaluation], Job | None]
NOTHING: Mapping[str, Value] = MappingProxyType({})


class Session:
    """Connects the callbacks of one training with its tracker, by default that of a W&B run.

    Attributes:
        run: W&B run behind the tracker, if there is one.
        has_wandb_logger: Whether a WandbLogger of the Trainer writes to the same run.
        listeners: Called with every row that is written.
        exchange: Gathers values of all ranks (``metrics.reduce_over_ranks``).
        lockstep: At which hooks all ranks of the training are sure to come.
        loss_scale: The ``GradScaler`` objects of the training, and the steps that they skip.
        backward: Gradients as backward passes left them, shared by the callbacks that read them.
        evaluation_jobs: Functions that add a job to each evaluation, by the name of their callback.
        further_evaluations: Evaluations of other callbacks of the Trainer that use this session, by name.
        wants_observations: Whether evaluations keep the observations of their episodes.
    """

    def __init__(self, cfg: WandbRLConfig, tracker: Tracker | None = None) -> None:
        self.cfg = cfg
        self.timer = LoggingTimer()
        self.errors = ErrorPolicy(raises=cfg.on_error == "raise", timer=self.timer)
        self.errors.hide(secret_values([each.env_kwargs for each in cfg.evaluations.values()]))
        self.errors.hide(secret_values([cfg.run.config, cfg.dataset_path]))
        self.loss_scale = LossScale(self.errors)
        self.listeners: list[Listener] = []
        self._latest_run = LatestRun()
        self.jobs = SessionJobs(cfg, self.errors)
        self._rows = SessionRows(cfg, self.errors, self.jobs)
        self._given_tracker = tracker
        self._forget_run()
        self._start_counting()

    def _forget_run(self) -> None:
        self._rows.tracker = None
        self.run: Any = None
        self.has_wandb_logger = False
        self.backward = BackwardGradients(self.errors, self.loss_scale)
        self.evaluation_jobs: dict[str, JobOfEvaluation] = {}
        self.further_evaluations: dict[str | None, EvaluationConfig] = {}
        self.wants_observations = False
        self._users = 0
        self._is_connected = False

    def _start_counting(self, reached: Reached | None = None) -> None:
        self.counters = Counters(self.loss_scale, reached)
        self.lockstep = Lockstep(self.errors)
        self.exchange = RankExchange(self.cfg.metrics, self.lockstep, self.errors)
        self.timer.reset()
        self.errors.reset()
        self.jobs.skipped = 0
        self._has_looked_for_unsaved = False
        self._rows.start()

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the open run and the worker, so that callbacks can be pickled and copied at any time."""
        open_only = {"run", "evaluation_jobs", "further_evaluations", "backward", "_users", "_is_connected"}
        return {name: value for name, value in vars(self).items() if name not in open_only}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores a session that has no run yet."""
        self.__dict__.update(state)
        self._forget_run()

    @property
    def run_folder(self) -> Path | None:
        """Local folder of the latest W&B run, also of one in a process that a training has started; None if none."""
        return self._latest_run.folder

    @property
    def tracker(self) -> Tracker | None:
        """Tracker of the open run; None before it is opened, and on ranks other than zero."""
        return self._rows.tracker

    def open(self, stage: str) -> None:
        """Adds one callback to those that use this session; the first one of a fit resets all counts."""
        self._users += 1
        if self._users == 1 and stage == "fit":
            self._start_counting(self.counters.reached)
        elif self._users == 1:
            self._latest_run.restore(self.counters)

    def start(self, trainer: Trainer) -> None:
        """Starts a training; every callback calls it on all ranks."""
        self.counters.start(trainer)
        self.exchange.start(trainer, self.counters.updates)
        self._rows.start_at(lambda: self.counters.axes(trainer, trainer.lightning_module))

    def advance(self, trainer: Trainer, module: LightningModule, outputs: Any) -> None:
        """Counts a training batch; every callback may call it."""
        self.counters.advance(trainer, module, outputs)
        if self.exchange.is_due(self.counters.updates):
            self.sum_env_steps(trainer, module, Moment.BATCH_END)

    def sum_env_steps(self, trainer: Trainer, module: LightningModule, moment: Moment) -> None:
        """Adds the environment steps of other ranks to those of this one, if they are to be gathered."""
        if self.exchange.is_on:
            gather = partial(self.exchange.gather, trainer, moment=moment, what="the environment steps")
            with self.errors.guard("Adding the environment steps of all ranks"):
                self.counters.sum_env_steps(trainer, module, gather)

    def count_from_checkpoint(self, trainer: Trainer) -> None:
        """Takes the counters of the checkpoint whose weights ``trainer.validate`` evaluates, if there is one."""
        if trainer.state.fn == "validate" and trainer.ckpt_path is not None and self.tracker is not None:
            with self.errors.guard("Reading the step of the checkpoint"):
                self.counters.evaluate_checkpoint(read_counters(str(trainer.ckpt_path)))

    def warn_of_unsaved(self, trainer: Trainer, module: LightningModule) -> None:
        """Warns once in a training if optimizers train tensors that no checkpoint holds."""
        if self._has_looked_for_unsaved or not trainer.is_global_zero or shards_parameters(trainer):
            return
        self._has_looked_for_unsaved = True
        with self.errors.guard("Looking for trained tensors that no checkpoint holds"):
            message = describe_unsaved(unregistered_tensors(trainer.optimizers, module), module)
            if message is not None:
                self.errors.warn_once(message, kind="unsaved tensors")

    def connect(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Finds or opens the run, once for all callbacks of this session, on rank zero only."""
        if self._is_connected:
            return
        self._is_connected = True
        if not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        if self._given_tracker is None:
            self._connect_to_wandb(trainer, module, stage)
        else:
            self._rows.use(self._given_tracker)

    def _connect_to_wandb(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        from rlwandb_callbacks.tracking import wandb_run
        from rlwandb_callbacks.tracking.run_config import update_config
        from rlwandb_callbacks.tracking.wandb_tracker import WandbTracker

        logger = find_wandb_logger(trainer)
        self.has_wandb_logger = logger is not None
        if logger is None:
            run = wandb_run.open_run(self.cfg.run, again=None if stage == "fit" else self._latest_run.id)
        else:
            run = wandb_run.use_run(logger.experiment)
        self.run = run
        self._latest_run.clear()
        if wandb_run.is_run(run):
            self._latest_run.replace(run)
            for kind, message in wandb_run.warnings_of(run).items():
                self.errors.warn_once(message, kind=kind)
            further = {name: evaluation for name, evaluation in self.further_evaluations.items() if name is not None}
            with self.errors.guard("Logging the hyper-parameters"):
                self.errors.hide(secret_values(module.hparams))
                update_config(run, self.cfg, {} if logger else module.hparams, further)
            axis = self.cfg.run.step_metric
            naming = self._rows.naming
            step_of_group = {} if naming is None else naming.step_of_group(axis)
            tracker = WandbTracker(run, step_metric=self.key_in_run(axis), step_of_group=step_of_group)
            self._rows.use(tracker, sets_axes=wandb_run.is_own_run(run))

    def close(self, exit_code: int = 0, limit: WaitLimit | None = None) -> None:
        """Finishes all jobs and releases the run, when the last callback of this session has closed.

        ``limit`` is that of all waiting, by default ``finish_seconds`` from now on.
        """
        self._users -= 1
        if self._users > 0:
            return
        run, limit = self.run, limit or WaitLimit(self.cfg.finish_seconds)
        if run is not None:
            with self.errors.guard("Saving the run of a training in other processes"):
                self._latest_run.leave(self.counters)
        self.backward.close()
        self.loss_scale.close()
        self.counters.close()
        try:
            with self.errors.guard("Finishing"):
                try:
                    self.jobs.finish(limit)
                finally:
                    self._rows.finish(limit)
        finally:  # also after a second Ctrl-C
            self._forget_run()
            if run is not None:
                with self.errors.guard("Finishing the run"):
                    from rlwandb_callbacks.tracking.wandb_run import release_run

                    warn = partial(self.errors.warn_once, kind="unsent run")
                    message = release_run(run, exit_code, limit, on_interrupt=warn)
                    if message is not None:
                        warn(message)

    def writes_where(self, other: Session) -> bool:
        """Returns whether another session writes to the same tracker or run."""
        return self._given_tracker is other._given_tracker  # None for the run that is open

    def rename_in_row(self, rename: Callable[[str], str]) -> None:
        """Renames values, by our own keys, in the row of the present step if it is not written yet."""
        self._rows.rename(rename)

    def key_in_run(self, key: str) -> str:
        """Returns the name of one of our keys in the run, by the preset of ``naming``."""
        return key if self._rows.naming is None else self._rows.naming.key(key)

    def renames(self, key: str) -> bool:
        """Returns whether the preset of ``naming`` has a name of its own for a key."""
        return self._rows.naming is not None and self._rows.naming.renames(key)

    def notice_metrics(self, module: LightningModule, metrics: Mapping[str, str]) -> None:
        """Finds out which algorithm is trained, for presets whose names depend on it.

        ``metrics`` are the known metrics by the names under which the module provides them.
        """
        naming = self._rows.naming
        if naming is not None and naming.algorithm is None:
            with self.errors.guard("Finding the algorithm"):
                naming.algorithm = find_algorithm(module, metrics)

    def write(
        self,
        trainer: Trainer,
        module: LightningModule,
        values: Mapping[str, Value],
        *,
        logged_elsewhere: Mapping[str, Value] = NOTHING,
        axes: Mapping[str, float] | None = None,
    ) -> None:
        """Adds values, by our own keys, to the row of their step; does nothing without a tracker.

        ``logged_elsewhere`` holds values that Lightning logs on this step; only the listeners get them. ``axes`` are
        those of an earlier step; by default those of now.
        """
        if self.tracker is None:
            return
        now = self.counters.axes(trainer, module)
        axes = now if axes is None else axes
        self._rows.add(axes, {**values, **self.timer.values()}, is_present=axes == now)
        self._notify(axes, {**logged_elsewhere, **values})

    def begin_batch(self, trainer: Trainer, module: LightningModule) -> None:
        """Writes the row of the batch before, and finds the scalers of losses; every callback may call it."""
        self._rows.close_row()
        self.loss_scale.start_batch(trainer, module)

    def close_row(self) -> None:
        """Writes the row of the present step, if there is one; called before the next batch starts."""
        self._rows.close_row()

    def notify(
        self,
        trainer: Trainer,
        module: LightningModule,
        values: Mapping[str, Value],
        *,
        axes: Mapping[str, float] | None = None,
    ) -> None:
        """Passes values of the present step, or of that of ``axes``, to the listeners without writing them."""
        self._notify(self.counters.axes(trainer, module) if axes is None else axes, values)

    def _notify(self, axes: Mapping[str, float], values: Mapping[str, Value]) -> None:
        if not self.listeners:
            return
        numbers = {key: value.value for key, value in values.items() if isinstance(value, Scalar)}
        for listener in self.listeners:
            with self.errors.guard("Checking a row"):
                listener(axes, numbers)

    def row_writer(
        self, trainer: Trainer, module: LightningModule, submit: Submit
    ) -> Callable[[Mapping[str, Value]], None]:
        """Returns a function that adds values to the row of the present step; see :meth:`Rows.writer`."""
        return self._rows.writer(self.counters.axes(trainer, module), submit)

    def submit(
        self,
        trainer: Trainer,
        module: LightningModule,
        what: str,
        jobs: Sequence[Job],
        *,
        on_result: Callable[[Result], None] | None = None,
        takes_place: bool = True,
    ) -> None:
        """Queues jobs and writes their values, once they are ready, on the step of this call.

        The jobs are picklable, and hold neither a run nor a module nor a Trainer; ``what`` is their work, as the
        subject of a warning ("Drawing the data set"). ``on_result`` gets the result and is responsible for its error,
        which is reported by default. Jobs that are submitted once in a training need not take a place in the queue.
        """
        if self.tracker is None:
            return
        axes = self.counters.axes(trainer, module)

        def take(result: Result) -> None:
            if result.values and self.tracker is not None:
                self._rows.add_result(axes, result.values)
                self._notify(axes, result.values)
            if on_result is not None:
                on_result(result)
            elif result.error is not None:
                self.errors.report_error(what, result.error)

        with self.errors.guard(what):
            is_interrupted = partial(received_sigterm, trainer)
            self.jobs.submit(what, jobs, take, takes_place=takes_place, is_interrupted=is_interrupted)

    def alert(self, title: str, text: str, *, level: str) -> None:
        """Sends an alert, see :class:`AlertingTracker`; warns if the tracker has no alerts."""
        tracker: object = self.tracker
        if isinstance(tracker, AlertingTracker):
            tracker.alert(title, text, level)
        elif tracker is not None:
            self.errors.warn_once(f"{title}: {text}. (This tracker has no alerts of its own.)", kind=f"alert {title}")
