"""All callbacks as one, configured by one object."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rlwandb_callbacks.callbacks.alerts.callback import AlertCallback
from rlwandb_callbacks.callbacks.base import RUNTIME_ATTRIBUTES, RLCallback
from rlwandb_callbacks.callbacks.dataset import DatasetCallback
from rlwandb_callbacks.callbacks.evaluation.callback import EvaluationCallback
from rlwandb_callbacks.callbacks.gradients.callback import GradientsCallback
from rlwandb_callbacks.callbacks.lightning import LightningCallback, adopt_loaded_namespaces
from rlwandb_callbacks.callbacks.metrics.callback import MetricsCallback
from rlwandb_callbacks.callbacks.plasticity.callback import PlasticityCallback
from rlwandb_callbacks.callbacks.rollouts.callback import RolloutsCallback
from rlwandb_callbacks.config import WandbRLConfig, as_config
from rlwandb_callbacks.tracking.tracker import Tracker

LAST_HOOKS = ("on_exception", "teardown")


def build_callbacks(
    cfg: WandbRLConfig | None = None, *, tracker: Tracker | None = None, **keywords: Any
) -> list[RLCallback]:
    """Makes the callbacks that a config asks for; they share one session.

    Args:
        cfg: A config, or a mapping with its keys.
        tracker: Where to write instead of a W&B run.
        keywords: Keys of the config that win over ``cfg``.

    Example:
        >>> [type(callback).__name__ for callback in build_callbacks({"gradient_logger": True})]
        ['GradientsCallback', 'MetricsCallback', 'RolloutsCallback', 'EvaluationCallback']
    """
    config = as_config(cfg, **keywords)
    wanted: list[Callable[..., RLCallback]] = []
    if config.gradient_logger:
        wanted.append(GradientsCallback)
    if config.plot_logger:
        wanted += [MetricsCallback, RolloutsCallback]
    elif config.alerts.enabled:  # their rules are about numbers that nobody wants to see
        wanted.append(functools.partial(MetricsCallback, is_written=False))
    if config.plasticity.enabled:
        wanted.append(PlasticityCallback)
    if config.vis_dataset:
        wanted.append(DatasetCallback)
    wanted.append(EvaluationCallback)
    if config.alerts.enabled:
        wanted.append(AlertCallback)
    callbacks = [kind(config, tracker=tracker) for kind in wanted]
    for callback in callbacks:
        callback.share(callbacks[0].session)
    return callbacks


class CallbackGroup(LightningCallback):
    """Several callbacks as one object in the Trainer, where every further object costs time in each batch.

    Every hook that Lightning has is passed on to those parts that override it, in their order.

    Args:
        callbacks: The parts.
    """

    def __init__(self, callbacks: Sequence[RLCallback]) -> None:
        adopt_loaded_namespaces()
        super().__init__()
        self.callbacks = list(callbacks)
        self._listeners = {hook: [part for part in self.callbacks if overrides(part, hook)] for hook in HOOKS}

    @property
    def state_key(self) -> str:
        """One key whatever the settings, so that checkpoints of other settings load."""
        return f"rlwandb_callbacks.{type(self).__name__}"

    def state_dict(self) -> dict[str, Any]:
        """The states of the parts by their keys."""
        return {part.state_key: part.state_dict() for part in self.callbacks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Gives each part its state, as far as the checkpoint has one."""
        for part in self.callbacks:
            if part.state_key in state_dict:
                part.load_state_dict(state_dict[part.state_key])

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out what Lightning attaches while it runs."""
        return {name: value for name, value in vars(self).items() if name not in RUNTIME_ATTRIBUTES}


def _forwarding(hook: str) -> Callable[..., None]:
    @functools.wraps(getattr(LightningCallback, hook))
    def forward(self: CallbackGroup, *args: Any, **kwargs: Any) -> None:
        for part in self._listeners[hook]:
            getattr(part, hook)(*args, **kwargs)

    @functools.wraps(getattr(LightningCallback, hook))
    def forward_to_all(self: CallbackGroup, *args: Any, **kwargs: Any) -> None:
        with contextlib.ExitStack() as calls:  # each is made, whatever the others raise
            for part in reversed(self._listeners[hook]):
                calls.callback(getattr(part, hook), *args, **kwargs)

    return forward_to_all if hook in LAST_HOOKS else forward


def overrides(callback: LightningCallback, hook: str) -> bool:
    """Tells whether a callback does anything in a hook."""
    return getattr(type(callback), hook) is not getattr(LightningCallback, hook)


HOOKS = tuple(name for name in dir(LightningCallback) if name.startswith("on_") or name in ("setup", "teardown"))
for _hook in HOOKS:
    setattr(CallbackGroup, _hook, _forwarding(_hook))


class WandbRLCallback(CallbackGroup):
    """Shows in Weights & Biases what a reinforcement-learning agent is doing.

    ``WandbRLCallback(cfg)`` is ``CallbackGroup(build_callbacks(cfg))``.

    Args:
        cfg: A :class:`rlwandb_callbacks.WandbRLConfig`, or a mapping with its keys: dict, EasyDict, OmegaConf.
        env: Short for ``evaluation.env``.
        policy: Short for ``evaluation.policy``.
        tracker: Where to write instead of a W&B run, for tests and other trackers.
        keywords: Further keys of the config; they win over ``cfg``.

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
        tracker: Any = None,
        **keywords: Any,
    ) -> None:
        self.cfg = as_config(cfg, env=env, policy=policy, **keywords)
        super().__init__(build_callbacks(self.cfg, tracker=tracker))

    @property
    def run_folder(self) -> Path | None:
        """Folder of the latest W&B run on this machine; None before there was one, and on ranks other than zero."""
        return self.callbacks[0].session.run_folder
