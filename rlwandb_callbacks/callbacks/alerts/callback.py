"""Tells somebody when training goes wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rlwandb_callbacks.callbacks.alerts.rules import AlertRules
from rlwandb_callbacks.callbacks.base import RLCallback
from rlwandb_callbacks.callbacks.session import sessions_in

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

COUNTER_PREFIX = "alerts_"


class AlertCallback(RLCallback):
    """Calls ``wandb.alert`` when q-values explode, entropy collapses, a loss is not finite, or returns fall.

    The rules are those of :mod:`rlwandb_callbacks.callbacks.alerts.rules`; ``alerts`` of the config holds their
    limits. They are asked of the numbers in each row that the callbacks of this package write, so that nothing is read
    off a device for them; what happens between two rows and is gone again is not seen. Each rule speaks once in a
    training and is silent from then on, also after it was resumed from a checkpoint: there is no time to
    wait and nothing to re-arm. Under ``wandb.alert`` the account's settings decide who gets an e-mail or a message.

    Example:
        >>> AlertCallback({"alerts": {"max_q_value": 500.0}}).cfg.alerts.max_q_value
        500.0
    """

    def __init__(self, cfg: Any = None, **keywords: Any) -> None:
        super().__init__(cfg, **keywords)
        self._rules = self._new_rules({})

    def _new_rules(self, fired: Mapping[str, int]) -> AlertRules:
        cfg = self.cfg.alerts
        return AlertRules(
            max_q_value=cfg.max_q_value,
            min_entropy=cfg.min_entropy,
            finite=cfg.not_finite,
            return_fall=cfg.return_fall,
            return_patience=cfg.return_patience,
            fired=fired,
        )

    def state_dict(self) -> dict[str, Any]:
        """Counters only: also how often each rule has spoken."""
        return super().state_dict() | {f"{COUNTER_PREFIX}{rule}": count for rule, count in self._rules.fired.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remembers what has been said."""
        super().load_state_dict(state_dict)
        told = {key: count for key, count in state_dict.items() if key.startswith(COUNTER_PREFIX)}
        self._rules = self._new_rules({key.removeprefix(COUNTER_PREFIX): count for key, count in told.items()})

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Takes part in the session, and starts to listen to the rows of all callbacks of this package."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._rules = self._new_rules({})
            for session in sessions_in(trainer, self.session):
                session.listen(self._look)

    def _look(self, axes: Mapping[str, float], numbers: Mapping[str, float]) -> None:
        for alert in self._rules.judge(numbers):
            text = f"{alert.text} (update {axes.get('time/updates', 0):.0f})."
            self.session.alert(alert.title, text, level=self.cfg.alerts.level)

    def finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops listening."""
        for session in sessions_in(trainer, self.session):
            session.stop_listening(self._look)
