"""What all callbacks have in common: settings, a session, a life cycle that survives exceptions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlwandb_callbacks.callbacks.lightning import LightningCallback, adopt_loaded_namespaces
from rlwandb_callbacks.callbacks.session import Session
from rlwandb_callbacks.config import WandbRLConfig, as_config

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

    from rlwandb_callbacks.tracking.tracker import Tracker


RUNTIME_ATTRIBUTES = ("log", "log_dict")


class RLCallback(LightningCallback):
    """A callback that writes rows.

    Args:
        cfg: A :class:`rlwandb_callbacks.WandbRLConfig`, or a mapping with its keys.
        tracker: Where to write instead of a W&B run.
        keywords: Keys of the config that win over ``cfg``; ``env`` and ``policy`` are short for those of
            ``evaluation``.

    Raises:
        rlwandb_callbacks.ConfigError: For an unknown key or a wrong value.
    """

    def __init__(self, cfg: WandbRLConfig | None = None, *, tracker: Tracker | None = None, **keywords: Any) -> None:
        adopt_loaded_namespaces()
        super().__init__()
        self.cfg = as_config(cfg, **keywords)
        self.session = Session(self.cfg, tracker)
        self._is_open = False

    def share(self, session: Session) -> None:
        """Writes to the session of other callbacks from now on."""
        self.session = session

    @property
    def state_key(self) -> str:
        """One key for each kind of callback, whatever its settings, so that checkpoints of other settings load."""
        return f"rlwandb_callbacks.{type(self).__name__}"

    def state_dict(self) -> dict[str, Any]:
        """Counters only, as plain numbers."""
        return dict(self.session.counters.state())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on counting where the checkpoint stopped."""
        self.session.counters.restore(state_dict)

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out what Lightning attaches while it runs: the module's own ``log``, which drags the Trainer along."""
        kept = {name: value for name, value in vars(self).items() if name not in RUNTIME_ATTRIBUTES}
        return {**kept, "_is_open": False}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds or opens the run for ``trainer.validate``; that of a fit waits until the fit has started.

        A search for a learning rate or a batch size begins like a fit and ends between the two.
        """
        move_before_monitors(trainer)
        if not self._is_open and stage in ("fit", "validate"):
            self._is_open = True
            self.session.open(stage)
            if stage == "validate":
                self.connect(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finds or opens the run."""
        self.connect(trainer, pl_module, "fit")

    def connect(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds or opens the run; to be extended by what depends on whether there is one."""
        self.session.connect(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the counters as a checkpoint left them."""
        self.session.counters.start(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts the batch, and writes the reports that have become ready."""
        self.session.counters.advance(trainer, pl_module, outputs)
        self.session.collect()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Writes what is left and lets go of the run: Lightning calls no other hook after an exception."""
        self._close(trainer, pl_module, exit_code=1)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lets go of the run."""
        self._close(trainer, pl_module, exit_code=0)

    def _close(self, trainer: Trainer, pl_module: LightningModule, exit_code: int) -> None:
        if not self._is_open:
            return
        self._is_open = False
        try:
            with self.session.guarded("Finishing"):
                self.finish(trainer, pl_module)
        finally:
            self.session.close(exit_code)

    def finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes what is held back and removes what was attached; called once, also after an exception."""


def move_before_monitors(trainer: Any) -> None:
    """Puts our callbacks in front of every EarlyStopping, which would else look for a number that is not there yet.

    The Trainer's list is replaced and not changed, as Lightning may be walking through it.
    """
    callbacks = list(trainer.callbacks)
    monitors = [callback for callback in callbacks if _is_a(callback, "EarlyStopping")]
    ours = [callback for callback in callbacks if _is_ours(callback)]
    if monitors and ours and callbacks.index(monitors[0]) < callbacks.index(ours[-1]):
        others = [callback for callback in callbacks if callback not in ours]
        place = others.index(monitors[0])
        trainer.callbacks = [*others[:place], *ours, *others[place:]]


def _is_ours(callback: Any) -> bool:
    return isinstance(callback, LightningCallback)


def _is_a(callback: Any, class_name: str) -> bool:
    return any(cls.__name__ == class_name for cls in type(callback).__mro__)
