"""Logs the episodes that training itself plays."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rlwandb_callbacks.callbacks.base import RLCallback
from rlwandb_callbacks.callbacks.counters import log_every_n_steps
from rlwandb_callbacks.callbacks.metric_names import normalize
from rlwandb_callbacks.callbacks.rollouts.ended_episodes import (
    FINAL_INFO,
    INFO_NAMES,
    LENGTH_NAMES,
    RETURN_NAMES,
    STATISTICS,
    SUCCESS_NAMES,
    EndedEpisodes,
    ended_episodes,
    ended_in_info,
    relevant,
)
from rlwandb_callbacks.callbacks.schedule import Every
from rlwandb_callbacks.core.values import Scalar

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

Plan = tuple[tuple[str, str], ...]
OTHER_STAGES = ("eval", "valid", "val_", "test")
MAX_WRAPPERS = 64


class RolloutsCallback(RLCallback):
    """Logs ``rollout/…`` every ``metrics.every_n_steps`` updates, if a training episode has ended since.

    ``rollout/return_mean``, ``rollout/length_mean`` and ``rollout/success_rate`` are means over the
    ``rollout/episodes`` episodes that ended since the row before. They are read from the mapping that
    ``training_step`` returns: ``episode_return`` (or ``episodic_return``, …), ``episode_length`` and ``is_success``, in
    the batch in which an episode ends and None, NaN or left out in others; or Gymnasium's ``info`` with ``episode`` in
    it. Where that tells nothing, an environment that the module holds as ``env``, ``envs``, ``train_env`` or the like
    is read, if Gymnasium's ``RecordEpisodeStatistics`` wraps it.

    Example:
        >>> RolloutsCallback({"metrics": {"every_n_steps": 10}}).cfg.metrics.every_n_steps
        10
    """

    def __init__(self, cfg: Any = None, **keywords: Any) -> None:
        super().__init__(cfg, **keywords)
        self._clear()

    def _clear(self) -> None:
        self._every = Every(1)
        self._plans: dict[tuple[str, ...], Plan] = {}
        self._kept: list[dict[str, Any]] = []
        self._trains = False
        self._module_tells = False
        self._counts: dict[int, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leaves live tensors out."""
        return {**super().__getstate__(), "_kept": []}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sets the schedule, and forgets what was played before."""
        super().on_train_start(trainer, pl_module)
        self._clear()
        self._trains = True
        interval = self.cfg.metrics.every_n_steps or log_every_n_steps(trainer)
        self._every = Every(interval, last=self.session.counters.updates)
        with self.session.guarded("Looking for the training environment"):
            self._counts = {id(recorder): ended_count(recorder) for recorder in recorders_on(pl_module)}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keeps what tells of an ended episode, and writes a row when one is due."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self.session.tracker is None:
            return
        if outputs:
            self._keep(outputs)
        if self._every.due(self.session.counters.updates):
            self._write_row(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the last row."""
        self.finish(trainer, pl_module)

    def finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes what came after the last row."""
        if self._trains and self.session.tracker is not None:
            self._write_row(trainer, pl_module)
        self._trains = False

    def _keep(self, outputs: Mapping[str, Any]) -> None:
        offered = tuple(outputs)
        plan = self._plans.get(offered)
        if plan is None:
            plan = self._plans[offered] = plan_for(offered)
            self._module_tells = self._module_tells or bool(plan)
        if not plan:
            return
        told = {role: kept for role, name in plan if (kept := to_keep(outputs[name], role)) is not None}
        if told.keys() & ENDED:
            self._kept.append(told)

    def _write_row(self, trainer: Trainer, pl_module: LightningModule) -> None:
        kept, self._kept = self._kept, []
        with self.session.guarded("Logging training episodes"):
            ended = EndedEpisodes()
            for told in kept:
                ended.add(read(told))
            if not self._module_tells:
                ended.add(self._from_environment(pl_module))
            numbers = ended.numbers()
            if numbers:
                self.session.write(trainer, pl_module, {key: Scalar(number) for key, number in numbers.items()})

    def _from_environment(self, module: LightningModule) -> EndedEpisodes:
        ended = EndedEpisodes()
        for recorder in recorders_on(module):
            count = ended_count(recorder)
            news = count - self._counts.get(id(recorder), 0)
            self._counts[id(recorder)] = count
            ended.add(EndedEpisodes(latest(recorder.return_queue, news), latest(recorder.length_queue, news)))
        return ended


RETURN, LENGTH, SUCCESS, MASK, INFO = "return", "length", "success", "mask", "info"
ENDED = {RETURN, STATISTICS, INFO, FINAL_INFO}


def plan_for(offered: tuple[str, ...]) -> Plan:
    """Which of the offered names tell of episodes, as (role, name); empty if none tells a return."""
    roles: dict[str, str] = {}
    for name in offered:
        role = role_of(name)
        if role is not None:
            roles.setdefault(role, name)
    return tuple(roles.items()) if roles.keys() & ENDED else ()


def role_of(name: str) -> str | None:
    """What an output tells of episodes, by its name.

    Example:
        >>> role_of("charts/episodic_return"), role_of("infos"), role_of("loss")
        ('return', 'info', None)
    """
    if name == f"_{STATISTICS}":
        return MASK
    plain = normalize(name)
    known = ((RETURN_NAMES, RETURN), (LENGTH_NAMES, LENGTH), (SUCCESS_NAMES, SUCCESS), (INFO_NAMES, INFO))
    found = next((role for names, role in known if plain in names), None)
    return plain if plain in (STATISTICS, FINAL_INFO) else found


def to_keep(value: Any, role: str) -> Any:
    """What of a value is worth keeping until a row is due, off its graph; None if that tells of no ended episode."""
    return off_graph(relevant(value, role))


def off_graph(value: Any) -> Any:
    """Cuts tensors off their graph, and copies arrays, which environments may write to again."""
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
        case _:
            return value


def on_host(value: Any) -> Any:
    """Turns tensors into arrays, however deep they lie."""
    match value:
        case torch.Tensor():
            return value.float().cpu().numpy()
        case dict():
            return {key: on_host(entry) for key, entry in value.items()}
        case list():
            return [on_host(entry) for entry in value]
        case _:
            return value


def read(told: Mapping[str, Any]) -> EndedEpisodes:
    """Reads what was kept of one batch: its own numbers, else ``episode``, else an info."""
    plain = {role: on_host(value) for role, value in told.items()}
    if RETURN in plain:
        return ended_episodes(plain[RETURN], plain.get(LENGTH), plain.get(SUCCESS), mask=plain.get(MASK))
    if STATISTICS in plain:
        return ended_in_info({STATISTICS: plain[STATISTICS], f"_{STATISTICS}": plain.get(MASK)})
    return ended_in_info(plain[INFO] if INFO in plain else plain[FINAL_INFO])


def recorders_on(module: torch.nn.Module) -> list[Any]:
    """Gymnasium's ``RecordEpisodeStatistics`` wrappers around the training environments that a module holds."""
    environments = {
        id(held): held
        for name, held in vars(module).items()
        if "env" in name and not any(stage in name for stage in OTHER_STAGES)
    }
    found = {id(recorder): recorder for env in environments.values() for recorder in recorders_in(env)}
    return list(found.values())


def recorders_in(env: Any, depth: int = 0) -> Iterator[Any]:
    """The outermost recorder of an environment, or of each that a vector environment holds in this process."""
    if depth > MAX_WRAPPERS:
        return
    if hasattr(env, "return_queue") and hasattr(env, "length_queue"):
        yield env
    elif isinstance(env, list | tuple):
        for one in env:
            yield from recorders_in(one, depth + 1)
    else:
        inner = next((getattr(env, name) for name in ("envs", "env") if hasattr(env, name)), None)
        if inner is not None:
            yield from recorders_in(inner, depth + 1)


def ended_count(recorder: Any) -> int:
    """How many episodes a recorder has seen end."""
    return int(getattr(recorder, "episode_count", len(recorder.return_queue)))


def latest(queue: Any, count: int) -> list[float]:
    """The last ``count`` entries of a queue, as far as it holds them.

    Example:
        >>> latest([1, 2, 3], 2), latest([1], 5), latest([1], 0)
        ([2.0, 3.0], [1.0], [])
    """
    return [float(value) for value in islice(reversed(queue), max(count, 0))][::-1]
