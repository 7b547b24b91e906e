"""What the callbacks of one training share: the run, the counters, and how errors are taken."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rlwandb_callbacks.callbacks.counters import Counters
from rlwandb_callbacks.config import WandbRLConfig
from rlwandb_callbacks.core.evaluation import Evaluation
from rlwandb_callbacks.core.values import Scalar, Value
from rlwandb_callbacks.sinks.base import Sink

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

    from rlwandb_callbacks.sinks.wandb_run import HeldRun

EvaluationListener: TypeAlias = Callable[[Any, Any, Evaluation], None]


class Session:
    """Finds the run, writes rows to it, and lets go of it.

    Args:
        cfg: The settings of the callbacks that share it.
        sink: Where to write instead of a W&B run, for tests and other trackers.
    """

    def __init__(self, cfg: WandbRLConfig, sink: Sink | None = None) -> None:
        self.cfg = cfg
        self.counters = Counters()
        self.shares_rows_with_lightning = False
        self._given_sink = sink
        self._last_run_id: str | None = None
        self.run_folder: Path | None = None
        self._forget_run()
        self._reset()

    def _forget_run(self) -> None:
        self.sink: Sink | None = None
        self._held: HeldRun | None = None
        self._users = 0
        self.evaluation_listeners: list[EvaluationListener] = []

    def _reset(self) -> None:
        self.counters = Counters()
        self.written_at_update = -1
        self.errors = 0
        self._errors_written = 0
        self._warned: set[str] = set()
        self.published: set[str] = set()
        self._axes: dict[str, float] = {"trainer/global_step": 0}

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the open run out, so that callbacks can be pickled and deep-copied at any time."""
        return {**vars(self), "sink": None, "_held": None, "_users": 0, "evaluation_listeners": []}

    @property
    def run(self) -> Any:
        """The W&B run that is written to; None where there is none."""
        return None if self._held is None else self._held.run

    def open(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Finds or opens the run, on rank zero only, once for all callbacks that share this session."""
        self._users += 1
        if self._users > 1:
            return
        if stage == "fit":
            self._reset()
        if trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False):
            self.sink = self._given_sink or self._wandb_sink(trainer, module, stage)

    def _wandb_sink(self, trainer: Trainer, module: LightningModule, stage: str) -> Sink | None:
        from rlwandb_callbacks.sinks import wandb_run
        from rlwandb_callbacks.sinks.wandb_sink import WandbSink

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
        return WandbSink(held.run, step_metric=self.cfg.run.step_metric)

    def close(self, exit_code: int = 0) -> None:
        """Lets go of the run once the last of the callbacks that share it has closed."""
        self._users -= 1
        if self._users > 0:
            return
        held, sink = self._held, self.sink
        with self.guarded("Finishing"):
            if sink is not None and self.errors > self._errors_written:
                self._write(self._axes, {})
            if sink is not None:
                sink.flush()
        self._forget_run()
        if held is not None:
            with self.guarded("Finishing the run"):
                held.release(exit_code)

    def write(self, trainer: Trainer, module: LightningModule, values: Mapping[str, Value]) -> None:
        """Writes one row, with its axes; does nothing where there is no run."""
        if self.sink is None:
            return
        self._axes = self.counters.axes(trainer, module)
        self._write(self._axes, values)
        self.written_at_update = self.counters.updates

    def submit(
        self, trainer: Trainer, module: LightningModule, what: str, report: Callable[[], Mapping[str, Value]]
    ) -> None:
        """Has slow work done, and writes what it gives on the step at which it was submitted.

        Args:
            trainer: For the axes.
            module: For the axes.
            what: What is being done, as the subject of a warning ("Embedding the data set").
            report: Picklable, without a W&B run, a module or a trainer in it.
        """
        if self.sink is not None:
            axes = self.counters.axes(trainer, module)
            with self.guarded(what):
                self._write(axes, report())

    def announce(self, trainer: Trainer, module: LightningModule, evaluation: Evaluation) -> None:
        """Tells the other callbacks of an evaluation that was played on this rank."""
        for listener in self.evaluation_listeners:
            with self.guarded("Looking at the evaluation"):
                listener(trainer, module, evaluation)

    def _write(self, axes: Mapping[str, float], values: Mapping[str, Value]) -> None:
        assert self.sink is not None
        news: dict[str, Value] = {"logging/errors": Scalar(self.errors)} if self.errors > self._errors_written else {}
        self.sink.write(axes, {**values, **news})
        self._errors_written = self.errors

    @contextlib.contextmanager
    def guarded(self, what: str) -> Iterator[None]:
        """Keeps trouble with logging away from training, unless ``on_error`` is ``raise``.

        Args:
            what: What is being done, as the subject of the warning ("The evaluation").
        """
        try:
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
