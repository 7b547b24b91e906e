"""Sends alerts when training goes wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rlwandb_callbacks.callbacks.alerts.rules import AlertRules
from rlwandb_callbacks.callbacks.base import RLCallback
from rlwandb_callbacks.callbacks.session_parts import sessions_in

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

COUNTER_PREFIX = "alerts_"
RETURNS_KEY = "returns"


class AlertCallback(RLCallback):
    """Calls ``wandb.alert`` when q-values explode, entropy collapses, a loss is not finite, or returns fall.

    The rules are those of :mod:`rlwandb_callbacks.callbacks.alerts.rules`; ``alerts`` of the config holds their
    limits. They check the numbers of each row that the callbacks of this package write, so they read nothing from a
    device, and do not notice what begins and ends between two rows. Each rule alerts once in a training, also if it is
    resumed from a checkpoint: there is no delay and no second alert. The settings of the W&B account decide who
    receives an e-mail or a message.

    Example:
        >>> AlertCallback({"alerts": {"max_q_value": 500.0}}).cfg.alerts.max_q_value
        500.0
    """

    def __init__(self, cfg: Any = None, **keywords: Any) -> None:
        super().__init__(cfg, **keywords)
        self._rules = AlertRules(self.cfg.alerts)

    def state_dict(self) -> dict[str, Any]:
        """Returns the counters, a 1 for each rule that has alerted, and the returns of the latest evaluations."""
        fired = {f"{COUNTER_PREFIX}{rule}": 1 for rule in sorted(self._rules.fired)}
        returns = self._rules.returns_state()
        return super().state_dict() | fired | ({RETURNS_KEY: returns} if returns else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what a checkpoint has, so that no alert is repeated and later returns are compared with its best."""
        super().load_state_dict(state_dict)
        fired = [key.removeprefix(COUNTER_PREFIX) for key in state_dict if key.startswith(COUNTER_PREFIX)]
        self._rules = AlertRules(self.cfg.alerts, fired, state_dict.get(RETURNS_KEY))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Opens the session, and starts to listen to the rows of all callbacks of this package in the Trainer."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._rules = AlertRules(self.cfg.alerts)
            for session in sessions_in(trainer, self.session):
                if self._check not in session.listeners:
                    session.listeners.append(self._check)

    def _check(self, axes: Mapping[str, float], numbers: Mapping[str, float]) -> None:
        for alert in self._rules.check(numbers):
            text = f"{alert.text} (update {axes.get('time/updates', 0):.0f})."
            self.session.alert(alert.title, text, level=self.cfg.alerts.level)

    def finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops listening."""
        for session in sessions_in(trainer, self.session):
            if self._check in session.listeners:
                session.listeners.remove(self._check)
