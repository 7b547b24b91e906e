"""What the callbacks of one training share: the run, the counters, and how errors are taken."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rlwandb_callbacks.callbacks.counters import Counters
from rlwandb_callbacks.callbacks.logging_time import LoggingTimer
from rlwandb_callbacks.config import WandbRLConfig
from rlwandb_callbacks.core.key_names import Naming
from rlwandb_callbacks.core.values import Scalar, Value
from rlwandb_callbacks.evaluation.report import Report
from rlwandb_callbacks.evaluation.summary import Evaluation
from rlwandb_callbacks.tracking.job_queue import JobQueue, Result
from rlwandb_callbacks.tracking.tracker import AlertingTracker, Tracker

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

    from rlwandb_callbacks.tracking.wandb_run import HeldRun

    Listener = Callable[[Mapping[str, float], Mapping[str, float]], None]
    EvaluationPart = Callable[[Evaluation], Callable[[], Mapping[str, Value]] | None]

NOTHING: Mapping[str, Value] = MappingProxyType({})


class Session:
    """Finds the run, writes rows to it, and lets go of it.

    Args:
        cfg: The settings of the callbacks that share it.
        tracker: Where to write instead of a W&B run, for tests and other trackers.
    """

    def __init__(self, cfg: WandbRLConfig, tracker: Tracker | None = None) -> None:
        self.cfg = cfg
        self.counters = Counters()
        self.shares_rows_with_lightning = False
        self._given_tracker = tracker
        self._jobs: JobQueue | None = None
        self._naming = Naming(cfg.naming)
        self._listeners: list[Listener] = []
        self._last_run_id: str | None = None
        self.run_folder: Path | None = None
        self._forget_run()
        self._reset()

    def _forget_run(self) -> None:
        self.tracker: Tracker | None = None
        self._held: HeldRun | None = None
        self._users = 0
        self._is_connected = False
        self.evaluation_parts: dict[str, EvaluationPart] = {}
        self.wants_observations = False

    def _reset(self) -> None:
        self.counters = Counters()
        self.logging_timer = LoggingTimer()
        self.written_at_update = -1
        self.errors = 0
        self.skipped = 0
        self._counts_written = {"logging/errors": 0, "logging/skipped": 0}
        self._warned: set[str] = set()
        self.published: set[str] = set()
        self._axes: dict[str, float] = {"trainer/global_step": 0}

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the open run out, so that callbacks can be pickled and deep-copied at any time."""
        closed: dict[str, Any] = {"tracker": None, "_held": None, "_users": 0, "_is_connected": False, "_jobs": None}
        return {**vars(self), **closed, "evaluation_parts": {}}

    @property
    def run(self) -> Any:
        """The W&B run that is written to; None where there is none."""
        return None if self._held is None else self._held.run

    def open(self, stage: str) -> None:
        """Counts a callback that shares this session; the first one of a fit starts all counts anew."""
        self._users += 1
        if self._users == 1 and stage == "fit":
            self._reset()

    def connect(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Finds or opens the run, on rank zero only, once for all callbacks that share this session."""
        if self._is_connected:
            return
        self._is_connected = True
        if trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False):
            self.tracker = self._given_tracker or self._wandb_tracker(trainer, module, stage)

    def _wandb_tracker(self, trainer: Trainer, module: LightningModule, stage: str) -> Tracker | None:
        from rlwandb_callbacks.tracking import wandb_run
        from rlwandb_callbacks.tracking.wandb_tracker import WandbTracker

        logger = find_wandb_logger(trainer)
        self.shares_rows_with_lightning = logger is not None
        if logger is None:
            held = wandb_run.open_run(self.cfg.run, again=None if stage == "fit" else self._last_run_id)
        else:
            held = wandb_run.hold(logger.experiment)
        self._held = held
        if not wandb_run.is_run(held.run):
            return None
        self._last_run_id, self.run_folder = held.run.id, Path(held.run.dir).parent
        hyper_parameters = {} if logger else wandb_run.without_secrets(dict(module.hparams))
        config = {**hyper_parameters, "rlwandb": wandb_run.without_secrets(self.cfg)}
        held.run.config.update(config, allow_val_change=True)
        return WandbTracker(held.run, step_metric=self.shown_as(self.cfg.run.step_metric))

    def close(self, exit_code: int = 0) -> None:
        """Lets go of the run once the last of the callbacks that share it has closed."""
        self._users -= 1
        if self._users > 0:
            return
        held = self._held
        try:
            with self.guarded("Finishing"):
                try:
                    self._finish_jobs()
                finally:
                    self._flush()
        finally:  # also if somebody loses patience and presses Ctrl-C once more
            self._forget_run()
            if held is not None:
                with self.guarded("Finishing the run"):
                    held.release(exit_code)

    def _flush(self) -> None:
        if self.tracker is not None:
            if (self.errors, self.skipped) != tuple(self._counts_written.values()):
                self._write(self._axes, {})
            self.tracker.flush()

    def write(
        self,
        trainer: Trainer,
        module: LightningModule,
        values: Mapping[str, Value],
        *,
        elsewhere: Mapping[str, Value] = NOTHING,
    ) -> None:
        """Writes one row, with its axes; does nothing where there is no run.

        Args:
            trainer: For the axes.
            module: For the axes.
            values: What to write.
            elsewhere: What somebody else writes on this step, for listeners only.
        """
        if self.tracker is None:
            return
        self._axes = self.counters.axes(trainer, module)
        self._write(self._axes, {**values, **self.logging_timer.values()}, elsewhere)
        self.written_at_update = self.counters.updates

    def row_writer(self, trainer: Trainer, module: LightningModule) -> Callable[[Mapping[str, Value]], None]:
        """Writes one row at the present step, whenever it is called; may be called on another thread."""
        self._axes = self.counters.axes(trainer, module)
        tracker, axes = self.tracker, self._naming.row(self._axes)

        def write(values: Mapping[str, Value]) -> None:
            if tracker is not None:
                tracker.write(axes, self._naming.row(values))

        return write

    def submit(
        self,
        trainer: Trainer,
        module: LightningModule,
        what: str,
        work: Callable[[], Mapping[str, Value] | Report],
        *,
        on_report: Callable[[Report], None] | None = None,
        counts: bool = True,
    ) -> None:
        """Has slow work done, and writes what it gives on the step at which it was submitted.

        Args:
            trainer: For the axes.
            module: For the axes.
            what: What is being done, as the subject of a warning ("Embedding the data set").
            work: Picklable, without a W&B run, a module or a trainer in it.
            on_report: Takes what came of it, and tells what went wrong.
            counts: Whether it takes a place in the queue; not so for what is done once.
        """
        if self.tracker is None:
            return
        axes = self.counters.axes(trainer, module)

        def take(outcome: Result) -> None:
            report = (
                outcome.result if isinstance(outcome.result, Report) else Report(outcome.result or {}, outcome.error)
            )
            if report.values and self.tracker is not None:
                self._write(axes, report.values)
            if on_report is not None:
                on_report(report)
            elif report.error is not None:
                self.report(what, report.error)

        with self.guarded(what):
            if not self._queue().submit(work, take, counts=counts):
                self.skipped += 1
                self.warn_once(
                    f"{what} was skipped, as {self.cfg.queue_size} reports are still under way; logging/skipped counts "
                    "them. Evaluate less often, show fewer or shorter episodes, or set queue_full='wait'.",
                    kind="skipped",
                )

    def _queue(self) -> JobQueue:
        if self._jobs is None:
            self._jobs = JobQueue.from_config(self.cfg, self._warn_of_fallback)
        return self._jobs

    def _warn_of_fallback(self, reason: Exception) -> None:
        self.warn_once(
            f"no worker could take the slow work ({type(reason).__name__}: {reason}), so it is done in the training "
            "process, which waits. An environment that is made by an importable function or class can be sent to a "
            "worker; executor='inline' ends this warning.",
            kind="worker",
        )

    def collect(self) -> None:
        """Writes the reports that are ready."""
        if self._jobs:
            with self.guarded("Collecting reports"):
                self._jobs.collect()

    def _finish_jobs(self) -> None:
        if not self._jobs:
            return
        given_up = self._jobs.finish(self.cfg.finish_seconds)
        if given_up:
            self.skipped += given_up
            self.warn_once(
                f"{given_up} reports were given up, as they were not ready {self.cfg.finish_seconds:g} s after the end "
                "of training. Set finish_seconds higher to wait for them, or show fewer or shorter episodes "
                "(videos.select, evaluation.max_steps).",
                kind="given up",
            )

    def parts_for(self, evaluation: Evaluation) -> list[Callable[[], Mapping[str, Value]]]:
        """What other callbacks have to add to the report of an evaluation, as work that pickles."""
        works = []
        for part in self.evaluation_parts.values():
            with self.guarded("Looking at the evaluation"):
                works.append(part(evaluation))
        return [work for work in works if work is not None]

    def _write(
        self, axes: Mapping[str, float], values: Mapping[str, Value], elsewhere: Mapping[str, Value] = NOTHING
    ) -> None:
        assert self.tracker is not None
        counts = {"logging/errors": self.errors, "logging/skipped": self.skipped}
        news = {key: Scalar(count) for key, count in counts.items() if count > self._counts_written[key]}
        row = {**values, **news}
        self.tracker.write(self._naming.row(axes), self._naming.row(row))
        self._counts_written = counts
        self._tell(axes, {**elsewhere, **row})

    def tell(self, trainer: Trainer, module: LightningModule, values: Mapping[str, Value]) -> None:
        """Gives values of the present step to those who listen, and writes nothing."""
        self._tell(self.counters.axes(trainer, module), values)

    def _tell(self, axes: Mapping[str, float], values: Mapping[str, Value]) -> None:
        if not self._listeners:
            return
        numbers = {key: value.value for key, value in values.items() if isinstance(value, Scalar)}
        for listener in self._listeners:
            with self.guarded("Looking at a row"):
                listener(axes, numbers)

    def shown_as(self, key: str) -> str:
        """What a key of ours is called in the run, by the preset that ``naming`` chose."""
        return self._naming.key(key)

    def listen(self, listener: Listener) -> None:
        """Gives the axes and the scalars of each row, by our own keys, to a listener as well."""
        if listener not in self._listeners:
            self._listeners.append(listener)

    def stop_listening(self, listener: Listener) -> None:
        """Gives a listener nothing any more; one that does not listen is fine."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def alert(self, title: str, text: str, *, level: str) -> None:
        """Tells somebody, by way of the tracker; a warning where the tracker has no way.

        Args:
            title: Less than 64 characters.
            text: What was seen.
            level: ``INFO``, ``WARN`` or ``ERROR``.
        """
        tracker: object = self.tracker
        if isinstance(tracker, AlertingTracker):
            tracker.alert(title, text, level)
        elif tracker is not None:
            self.warn_once(f"{title}: {text}. (This tracker has no alerts of its own.)", kind=f"alert {title}")

    @contextlib.contextmanager
    def guarded(self, what: str) -> Iterator[None]:
        """Keeps trouble with logging away from training, unless ``on_error`` is ``raise``.

        Args:
            what: What is being done, as the subject of the warning ("The evaluation").
        """
        try:
            with self.logging_timer.running():
                yield
        except Exception as error:  # noqa: BLE001  # whatever fails in logging must not end a training
            self.report(what, error)

    def report(self, what: str, error: Exception) -> None:
        """Counts an error and warns of the first of its kind; raises it where ``on_error`` is ``raise``."""
        if self.cfg.on_error == "raise":
            raise error
        self.errors += 1
        self.warn_once(f"{what} failed, and training goes on: {type(error).__name__}: {error}", kind=what)

    def warn_once(self, message: str, *, kind: str) -> None:
        """Warns, once for each kind in a training."""
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(f"rlwandb: {message}", UserWarning, stacklevel=2)


def find_wandb_logger(trainer: Trainer) -> Any:
    """Finds the WandbLogger of either Lightning by the name of its class, without starting anything."""
    for logger in trainer.loggers:
        if any(cls.__name__ == "WandbLogger" for cls in type(logger).__mro__):
            return logger
    return None


def sessions_in(trainer: Any, own: Session) -> list[Session]:
    """The sessions of all callbacks of this package in a Trainer, of which parts of a group share one."""
    found = [own]
    for callback in trainer.callbacks:
        for part in getattr(callback, "callbacks", (callback,)):
            session = getattr(part, "session", None)
            if isinstance(session, Session) and session not in found:
                found.append(session)
    return found
