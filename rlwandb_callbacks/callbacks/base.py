"""Base class of all callbacks: settings, a session, and an end that also comes after an exception."""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

from rlwandb_callbacks.callbacks.fabric import WarnsInFabric
from rlwandb_callbacks.callbacks.interruption import end_after_others, limited_end
from rlwandb_callbacks.callbacks.lightning_namespaces import LightningCallback, arrange_callbacks
from rlwandb_callbacks.callbacks.meetings import MissingRanksError
from rlwandb_callbacks.callbacks.ranks import Ranks
from rlwandb_callbacks.callbacks.session import Session
from rlwandb_callbacks.config import WandbRLConfig, as_config

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

    from rlwandb_callbacks.tracking.tracker import Tracker


OPENING_SECONDS = 900.0  # a server may take minutes to answer
RUNTIME_ATTRIBUTES = ("log", "log_dict")


class RLCallback(WarnsInFabric, LightningCallback):
    """Callback that writes rows to the tracker of its session.

    Args:
        cfg: A :class:`rlwandb_callbacks.WandbRLConfig`, or a mapping with its keys.
        tracker: Tracker to write to instead of a W&B run.
        session: Session of other callbacks to share; its settings replace ``cfg`` and ``keywords``.
        keywords: Keys of the config, which override those of ``cfg``; ``env`` and ``policy`` are short for those of
            ``evaluation``.

    Raises:
        rlwandb_callbacks.ConfigError: For an unknown key or a wrong value.
    """

    def __init__(
        self,
        cfg: WandbRLConfig | None = None,
        *,
        tracker: Tracker | None = None,
        session: Session | None = None,
        **keywords: Any,
    ) -> None:
        super().__init__()
        self.session = new_session(cfg, tracker, keywords) if session is None else session
        self.cfg = self.session.cfg
        self._is_open = False

    def use_session(self, session: Session) -> None:
        """Writes to the tracker of another session from now on."""
        self.session = session

    @property
    def state_key(self) -> str:
        """Key of each kind of callback, the same for all settings, so that checkpoints of other settings load."""
        return f"rlwandb_callbacks.{type(self).__name__}"

    def state_dict(self) -> dict[str, Any]:
        """Returns the counters, as plain numbers."""
        return dict(self.session.counters.state())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the counters of a checkpoint."""
        self.session.counters.restore(state_dict)

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out attributes that Lightning sets while it runs: the module's ``log``, which holds the Trainer."""
        kept = {name: value for name, value in vars(self).items() if name not in RUNTIME_ATTRIBUTES}
        return {**kept, "_is_open": False}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Arranges callbacks, and opens the run of ``trainer.validate``; a fit opens it at its start.

        A search for a learning rate or a batch size calls this hook too, and ends before the fit starts.
        """
        arrange_callbacks(trainer)
        if not self._is_open and stage in ("fit", "validate"):
            self._is_open = True
            self.session.open(stage)
            if stage == "validate":
                self._connect_together(trainer, pl_module, stage)

    def _connect_together(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds or opens the run on rank zero; an error is raised on all ranks."""
        error: Exception | None = None
        try:
            self.connect(trainer, pl_module, stage)
        except Exception as caught:  # noqa: BLE001  # raised below, on all ranks
            error = caught
        self._raise_of_zero(trainer, "when the run is opened", error)

    def _raise_of_zero(self, trainer: Trainer, place: str, error: Exception | None) -> None:
        """Raises an error of rank zero on all ranks, before the first step."""
        try:
            Ranks(trainer, place, max_seconds=OPENING_SECONDS).raise_of_zero(error)
        except MissingRanksError as missing:
            if not missing.is_interrupted:
                self.session.errors.report_error("Waiting for rank zero", missing)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finds or opens the run, and continues the counters of a checkpoint."""
        self._connect_together(trainer, pl_module, "fit")
        self.session.counters.resume(trainer, pl_module)

    def connect(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds or opens the run; subclasses add what depends on whether there is one."""
        self.session.connect(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the counters where a checkpoint left them."""
        self.session.start(trainer)
        self.session.warn_of_unsaved(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Writes the row of the batch before."""
        self.session.begin_batch(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts the batch, and writes the results of jobs that are ready."""
        self.session.advance(trainer, pl_module, outputs)
        if self.session.jobs.are_pending:
            with self.session.errors.guard("Collecting results"):
                self.session.jobs.collect()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Writes what is left and releases the run, after the callbacks that save checkpoints.

        Lightning calls no other hook after an exception.
        """
        Ranks(trainer).leave()
        end_after_others(trainer, self, exception, partial(self._close, trainer, pl_module, exception))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes what is left and releases the run."""
        self._close(trainer, pl_module)

    def _close(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException | None = None) -> None:
        if not self._is_open:
            return
        self._is_open = False
        try:
            with self.session.errors.guard("Finishing"):
                self.finish(trainer, pl_module)
        finally:
            with limited_end(trainer, self.cfg.finish_seconds, exception) as limit:
                self.session.close(exit_code=0 if exception is None else 1, limit=limit)

    def finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the values that are held back and removes hooks; called once, also after an exception."""


def new_session(cfg: WandbRLConfig | None, tracker: Tracker | None, keywords: dict[str, Any]) -> Session:
    """Makes a session of settings as users pass them; the keyword ``sink`` is the former name of ``tracker``."""
    if "sink" in keywords:
        keywords = dict(keywords)
        tracker = keywords.pop("sink")
        warnings.warn("rlwandb: the argument sink is now called tracker.", DeprecationWarning, stacklevel=4)
    return Session(as_config(cfg, **keywords), tracker)
