"""Logs the episodes that end while the agent trains."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from rlwandb_callbacks.callbacks.base import RLCallback
from rlwandb_callbacks.callbacks.counters import log_every_n_steps, skips_backward
from rlwandb_callbacks.callbacks.lockstep import Moment
from rlwandb_callbacks.callbacks.metric_names import is_of_other_stage, normalize
from rlwandb_callbacks.callbacks.rollouts.ended_episodes import (
    FINAL_INFO,
    STATISTICS,
    SUCCESS_NAMES,
    EndedEpisodes,
    ended_episodes,
    ended_in_info,
    relevant,
)
from rlwandb_callbacks.callbacks.rollouts.recorded_episodes import RecordedEpisodes, env_holders
from rlwandb_callbacks.callbacks.schedule import Every
from rlwandb_callbacks.core.presets import WINDOW
from rlwandb_callbacks.core.values import Scalar

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

Plan: TypeAlias = tuple[tuple[str, str], ...]
"""Outputs of ``training_step`` that are read, as (role, name)."""
RETURN, LENGTH, SUCCESS, MASK, INFO = "return", "length", "success", "mask", "info"
INFO_ROLES = {INFO, FINAL_INFO}
END_ROLES = {RETURN, STATISTICS, *INFO_ROLES}  # roles of outputs that can tell that an episode ended
RETURN_NAMES = ("episode_return", "episodic_return", "episode_returns", "episode_reward", "ep_rew", "ep_return")
LENGTH_NAMES = ("episode_length", "episodic_length", "episode_lengths", "ep_len", "ep_length")
ROLES = {
    **dict.fromkeys(RETURN_NAMES, RETURN),
    **dict.fromkeys(LENGTH_NAMES, LENGTH),
    **dict.fromkeys(SUCCESS_NAMES, SUCCESS),
    **dict.fromkeys(("info", "infos"), INFO),
    STATISTICS: STATISTICS,
    FINAL_INFO: FINAL_INFO,
}


class RolloutsCallback(RLCallback):
    """Logs ``rollout/…`` every ``metrics.every_n_steps`` updates, if a training episode has ended since.

    ``rollout/return_mean``, ``rollout/length_mean`` and ``rollout/success_rate`` are means over the
    ``rollout/episodes`` episodes that ended since the previous row. They are read from the mapping that
    ``training_step`` returns: ``episode_return`` (or ``episodic_return``, …), ``episode_length`` and ``is_success`` in
    the batch in which an episode ends, and None, NaN or nothing in others; or Gymnasium's ``info`` with an ``episode``
    entry. If the mapping has no such key, the environments that the module, its datamodule or the training data set
    hold as ``env``, ``envs``, ``train_env`` or the like are read, if ``RecordEpisodeStatistics`` wraps them.

    Under DDP the episodes are those of rank zero, or of all ranks with ``metrics.reduce_over_ranks``.

    With ``naming: sb3``, rows also have means over the last 100 episodes, as those of Stable-Baselines3.

    Example:
        >>> RolloutsCallback({"metrics": {"every_n_steps": 10}}).cfg.metrics.every_n_steps
        10
    """

    def __init__(self, cfg: Any = None, **keywords: Any) -> None:
        super().__init__(cfg, **keywords)
        self._clear()

    def _clear(self) -> None:
        self._every = Every(1)
        self._kept: list[dict[str, Any]] = []  # values by role, of batches in which an episode may have ended
        self._is_training = self._is_active = False
        self._reads_outputs = False
        self._recorded = RecordedEpisodes()
        self._latest = EndedEpisodes()

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out live tensors."""
        return {**super().__getstate__(), "_kept": []}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sets the schedule, and skips the episodes before training."""
        super().on_train_start(trainer, pl_module)
        self._clear()
        self._is_training = True
        self._is_active = self.session.exchange.is_on or self.session.tracker is not None
        interval = self.cfg.metrics.every_n_steps or log_every_n_steps(trainer)
        self._every = Every(interval, last=self.session.counters.updates)
        with self.session.errors.guard("Looking for the training environment"):
            self._recorded.read(env_holders(trainer, pl_module))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Ends training before an epoch that only estimates the statistics of batch norms."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if self._is_training and skips_backward(trainer):
            self._end(trainer, pl_module, Moment.EPOCH_END)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keeps values of episodes that ended, and writes a row if one is due."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if not self._is_active or not self._is_training:
            return
        if outputs and (plan := plan_for(tuple(outputs))):
            self._keep(plan, outputs)
        if self._every.due(self.session.counters.updates):
            self._write_row(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the last row."""
        self._end(trainer, pl_module, Moment.FIT_END)

    def finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the episodes since the last row, of this rank only, as other ranks may have ended."""
        self.session.exchange.stop()
        self._end(trainer, pl_module, Moment.FIT_END)

    def _end(self, trainer: Trainer, pl_module: LightningModule, moment: Moment) -> None:
        if self._is_training and self._is_active:
            self._write_row(trainer, pl_module, moment)
        self._is_training = False

    def _keep(self, plan: Plan, outputs: Mapping[str, Any]) -> None:
        self._reads_outputs = True
        values = {}
        for role, name in plan:
            value = off_graph(relevant(outputs[name]) if role in INFO_ROLES else outputs[name])
            if value is not None:
                values[role] = value
        if values.keys() & END_ROLES:
            self._kept.append(values)

    def _write_row(self, trainer: Trainer, pl_module: LightningModule, moment: Moment = Moment.BATCH_END) -> None:
        mine, ended = EndedEpisodes(), EndedEpisodes()
        with self.session.errors.guard("Logging training episodes"):
            self._read_ended(trainer, pl_module, mine)
        with self.session.errors.guard("Logging training episodes"):
            for of_rank in self.session.exchange.gather(trainer, mine, moment, "training episodes"):
                ended.add(of_rank)
            row = {key: Scalar(number) for key, number in (ended.numbers() | self._window_means(ended)).items()}
            if row:
                self.session.write(trainer, pl_module, row)

    def _read_ended(self, trainer: Trainer, pl_module: LightningModule, ended: EndedEpisodes) -> None:
        kept, self._kept = self._kept, []
        for values in kept:
            ended.add(read(values))
        if not self._reads_outputs:
            ended.add(self._recorded.read(env_holders(trainer, pl_module)))

    def _window_means(self, ended: EndedEpisodes) -> dict[str, float]:
        """Returns means over the last episodes, in a row in which one has ended, if the naming has a name for them."""
        self._latest.add(ended)
        self._latest.keep_latest(WINDOW)
        means = {f"{key}_{WINDOW}": mean for key, mean in self._latest.means().items()} if ended.returns else {}
        return {key: mean for key, mean in means.items() if self.session.renames(key)}


@functools.lru_cache
def plan_for(names: tuple[str, ...]) -> Plan:
    """Chooses the outputs that describe episodes, as (role, name); none if no output can tell that one ended."""
    roles: dict[str, str] = {}
    for name in names:
        role = role_of(name)
        if role is not None:
            roles.setdefault(role, name)
    return tuple(roles.items()) if roles.keys() & END_ROLES else ()


def role_of(name: str) -> str | None:
    """Returns what an output describes, by its name; None if it does not describe episodes of training.

    Example:
        >>> role_of("charts/episodic_return"), role_of("infos"), role_of("eval/episode_return")
        ('return', 'info', None)
    """
    if name == f"_{STATISTICS}":
        return MASK
    return None if is_of_other_stage(name) else ROLES.get(normalize(name))


def off_graph(value: Any) -> Any:
    """Detaches tensors, and copies arrays, which environments may write to again; None for NaN and empty lists."""
    match value:
        case torch.Tensor():
            return value.detach()
        case np.ndarray():
            return value.copy()
        case dict():
            return {key: off_graph(entry) for key, entry in value.items()}
        case list() | tuple():
            return [off_graph(entry) for entry in value] or None
        case float():
            return None if math.isnan(value) else value
    return value


def on_host(value: Any) -> Any:
    """Converts tensors, also nested ones, to arrays."""
    if isinstance(value, torch.Tensor):
        return value.float().cpu().numpy()
    if isinstance(value, dict):
        return {key: on_host(entry) for key, entry in value.items()}
    return [on_host(entry) for entry in value] if isinstance(value, list) else value


def read(values: Mapping[str, Any]) -> EndedEpisodes:
    """Reads the kept values of a batch: its returns, else ``episode``, else an info."""
    plain = {role: on_host(value) for role, value in values.items()}
    if RETURN in plain:
        return ended_episodes(plain[RETURN], plain.get(LENGTH), plain.get(SUCCESS), mask=plain.get(MASK))
    if STATISTICS in plain:
        return ended_in_info({STATISTICS: plain[STATISTICS], f"_{STATISTICS}": plain.get(MASK)})
    return ended_in_info(plain[INFO] if INFO in plain else plain[FINAL_INFO])
