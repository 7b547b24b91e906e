"""All callbacks as one, with one config."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlwandb_callbacks.callbacks.alerts.callback import AlertCallback
from rlwandb_callbacks.callbacks.base import RUNTIME_ATTRIBUTES, RLCallback, new_session
from rlwandb_callbacks.callbacks.dataset import DatasetCallback
from rlwandb_callbacks.callbacks.evaluation.callback import EvaluationCallback
from rlwandb_callbacks.callbacks.fabric import WarnsInFabric
from rlwandb_callbacks.callbacks.gradients.callback import GradientsCallback
from rlwandb_callbacks.callbacks.interruption import end_after_others
from rlwandb_callbacks.callbacks.lightning_namespaces import LightningCallback, may_share_key
from rlwandb_callbacks.callbacks.metrics.callback import MetricsCallback
from rlwandb_callbacks.callbacks.plasticity.callback import PlasticityCallback
from rlwandb_callbacks.callbacks.ranks import announce
from rlwandb_callbacks.callbacks.rollouts.callback import RolloutsCallback
from rlwandb_callbacks.config import WandbRLConfig
from rlwandb_callbacks.tracking.tracker import Tracker

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

CLOSES_ROW = "on_train_batch_start"


def build_callbacks(
    cfg: WandbRLConfig | None = None, *, tracker: Tracker | None = None, **keywords: Any
) -> list[RLCallback]:
    """Makes the callbacks that a config asks for; they share one session.

    Args:
        cfg: A config, or a mapping with its keys.
        tracker: Tracker to write to instead of a W&B run.
        keywords: Keys of the config, which override those of ``cfg``.

    Example:
        >>> [type(callback).__name__ for callback in build_callbacks({"gradient_logger": True})]
        ['GradientsCallback', 'MetricsCallback', 'RolloutsCallback', 'EvaluationCallback']
    """
    session = new_session(cfg, tracker, keywords)
    config = session.cfg
    evaluations: list[Callable[..., RLCallback]]
    evaluations = [functools.partial(EvaluationCallback, name=name) for name in config.evaluations]
    metrics = functools.partial(MetricsCallback, is_written=config.plot_logger)  # alerts also check unwritten metrics
    is_wanted: dict[Callable[..., RLCallback], bool] = {
        GradientsCallback: config.gradient_logger,
        metrics: config.plot_logger or config.alerts.enabled,
        RolloutsCallback: config.plot_logger,
        PlasticityCallback: config.plasticity.enabled,
        DatasetCallback: config.vis_dataset,
        **dict.fromkeys(evaluations, True),
        AlertCallback: config.alerts.enabled,
    }
    return [kind(session=session) for kind, wanted in is_wanted.items() if wanted]


class CallbackGroup(WarnsInFabric, LightningCallback):
    """Several callbacks as one object in the Trainer, as each object there costs time in every batch.

    Every hook of Lightning is forwarded to the parts that override it, in their order.

    Of several groups in one Trainer that write to the same run, the first one opens it, and its settings of the run and
    of the worker hold for all. The others add to its rows what it does not log itself, such as further evaluations.

    Args:
        callbacks: The parts.
    """

    def __init__(self, callbacks: Sequence[RLCallback]) -> None:
        super().__init__()
        self.callbacks = list(callbacks)
        self._own_sessions = [part.session for part in self.callbacks]
        self._shares_key = False  # with a group that comes first in the Trainer
        self._activate(self.callbacks)

    def _activate(self, parts: Sequence[RLCallback]) -> None:
        self._parts_by_hook = {hook: [part for part in parts if overrides(part, hook)] for hook in HOOKS}
        self._parts_by_hook[CLOSES_ROW] = closing_rows_once(self._parts_by_hook[CLOSES_ROW])

    @property
    def state_key(self) -> str:
        """The same key for all settings, so that checkpoints of other settings load.

        The name of a single evaluation is added to it, as Lightning refuses two callbacks with the same key.
        """
        names = [part.cfg.evaluation.name for part in self.callbacks if isinstance(part, EvaluationCallback)]
        key = f"rlwandb_callbacks.{type(self).__name__}"
        return key if len(names) != 1 or names[0] is None else f"{key}.{names[0]}"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Joins the first group of the Trainer that writes to the same run, and sets the parts up."""
        for part, session in zip(self.callbacks, self._own_sessions, strict=True):
            if part.session is not session:
                part.use_session(session)
        groups = self._earlier_groups(trainer)
        self._shares_key = any(group.state_key == self.state_key for group in groups)
        writing = [each for each in groups if each.callbacks[0].session.writes_where(self.callbacks[0].session)]
        if not writing:
            self._activate(self.callbacks)
        else:
            self._join(writing[0], {type(part) for each in writing for part in each.callbacks}, stage)
        for part in self._parts_by_hook["setup"]:
            part.setup(trainer, pl_module, stage)

    def _earlier_groups(self, trainer: Any) -> list[CallbackGroup]:
        groups = [callback for callback in trainer.callbacks if isinstance(callback, CallbackGroup)]
        return groups[: groups.index(self)] if self in groups else []

    def _join(self, first: CallbackGroup, logged: set[type[RLCallback]], stage: str) -> None:
        session = first.callbacks[0].session
        for part in self.callbacks:
            session.further_evaluations |= part.cfg.evaluations if isinstance(part, EvaluationCallback) else {}
            part.use_session(session)
        repeated = [
            part for part in self.callbacks if type(part) in logged and not isinstance(part, EvaluationCallback)
        ]
        added = [part for part in self.callbacks if part not in repeated]
        self._activate(added)
        if stage == "fit":
            adds = ", ".join(filter(None, map(describe_part, added))) or "nothing"
            logs = f", which logs {', '.join(map(describe_part, repeated))}" if repeated else ""
            announce(
                f"this Trainer has several {type(self).__name__} objects. The run is that of the first one"
                f"{logs}. Another one adds {adds}."
            )

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Ends the parts, after the callbacks that save checkpoints."""
        parts = self._parts_by_hook["on_exception"]
        end_after_others(
            trainer, self, exception, functools.partial(call_all, parts, "on_exception", trainer, pl_module, exception)
        )

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Ends the parts."""
        call_all(self._parts_by_hook["teardown"], "teardown", trainer, pl_module, stage)

    @may_share_key
    def state_dict(self) -> dict[str, Any]:
        """Returns the states of the parts by their keys; nothing if an earlier group has the same key."""
        return {} if self._shares_key else {part.state_key: part.state_dict() for part in self.callbacks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state of each part that the checkpoint has."""
        for part in self.callbacks:
            if part.state_key in state_dict:
                part.load_state_dict(state_dict[part.state_key])

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out attributes that Lightning sets while it runs."""
        return {name: value for name, value in vars(self).items() if name not in RUNTIME_ATTRIBUTES}


def describe_part(part: RLCallback) -> str:
    """Returns what a part of a group logs; an empty text for an evaluation that has no environment."""
    kind = type(part).__name__.removesuffix("Callback").lower()
    if not isinstance(part, EvaluationCallback):
        return kind
    evaluation = part.cfg.evaluation
    return "" if evaluation.env is None else kind + (f" {evaluation.name!r}" if evaluation.name is not None else "")


def call_all(parts: Sequence[RLCallback], hook: str, *args: Any) -> None:
    """Calls a hook of every part, even if one raises."""
    with contextlib.ExitStack() as calls:  # in reverse order
        for part in reversed(parts):
            calls.callback(getattr(part, hook), *args)


def _forwarding(hook: str) -> Callable[..., None]:
    def forward(self: CallbackGroup, *args: Any, **kwargs: Any) -> None:
        for part in self._parts_by_hook[hook]:
            getattr(part, hook)(*args, **kwargs)

    return functools.wraps(getattr(LightningCallback, hook))(forward)


def overrides(callback: LightningCallback, hook: str) -> bool:
    """Returns whether the class of a callback overrides a hook."""
    return getattr(type(callback), hook) is not getattr(LightningCallback, hook)


def closing_rows_once(parts: Sequence[RLCallback]) -> list[RLCallback]:
    """Leaves out parts that would only close the row of their session when a batch starts, if another part does so."""
    with_more = [part for part in parts if getattr(type(part), CLOSES_ROW) is not getattr(RLCallback, CLOSES_ROW)]
    closing = {id(part.session): part for part in [*reversed(parts), *with_more]}.values()
    return [part for part in parts if part in with_more or part in closing]


HOOKS = tuple(name for name in dir(LightningCallback) if name.startswith("on_") or name in ("setup", "teardown"))
for _hook in HOOKS:
    if _hook not in vars(CallbackGroup):
        setattr(CallbackGroup, _hook, _forwarding(_hook))


class WandbRLCallback(CallbackGroup):
    """Shows in Weights & Biases what a reinforcement-learning agent is doing.

    ``WandbRLCallback(cfg)`` is ``CallbackGroup(build_callbacks(cfg))``.

    A Trainer may have several: each plays its evaluation, and the first one logs the training. All evaluations but one
    need an ``evaluation.name``. A mapping of evaluations in one callback does the same.

    Args:
        cfg: A :class:`rlwandb_callbacks.WandbRLConfig`, or a mapping with its keys: dict, EasyDict, OmegaConf.
        env: Short for ``evaluation.env``.
        policy: Short for ``evaluation.policy``.
        evaluations: Several evaluations by name, which ``evaluation`` of ``cfg`` takes too, except in the files of
            LightningCLI: ``init_args: {cfg: {evaluation: {policy: q_network}}, evaluations: {near: {env: …}, far: {env:
            …}}}``. Settings in ``evaluation`` hold for those that do not set them.
        tracker: Tracker to write to instead of a W&B run.
        keywords: Further keys of the config, which override those of ``cfg``.

    Raises:
        rlwandb_callbacks.ConfigError: For an unknown key or a wrong value.

    Example:
        >>> callback = WandbRLCallback({"action_logger": "q value"}, env="CartPole-v1", policy="q_network")
        >>> callback.cfg.evaluation.policy
        'q_network'
    """

    def __init__(
        self,
        cfg: WandbRLConfig | None = None,
        *,
        env: str | Callable[..., Any] | None = None,
        policy: str | Callable[..., Any] | None = None,
        evaluations: dict[str, Any] | None = None,
        tracker: Any = None,
        **keywords: Any,
    ) -> None:
        keywords |= {"env": env, "policy": policy, "evaluations": evaluations}
        super().__init__(build_callbacks(cfg, tracker=tracker, **keywords))
        self.cfg = self.callbacks[0].cfg

    @property
    def run_folder(self) -> Path | None:
        """Local folder of the latest W&B run; None before the first one, and on ranks other than zero."""
        return self.callbacks[0].session.run_folder
