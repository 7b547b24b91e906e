"""Discount factor of the agent, wherever its module has it."""

from __future__ import annotations

import itertools
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeAlias

import torch

from rlwandb_callbacks.core.plain_values import entries, is_mapping

GAMMA = "gamma"  # also the name of a factor of learning rate schedules
PLAIN_NAMES = ("discount_factor", "discount")
NAMES = (*PLAIN_NAMES, GAMMA)
SETTINGS = ("hparams", "cfg", "config", "conf", "args", "settings", "params")
HOLDERS = (*SETTINGS, "_value_estimator")  # in an agent or loss
AGENT_WORDS = ("alg", "algo", "agent", "rl", "policy", "train", "learner", "loss", "model", "ppo", "sac", "dqn")
OTHER_WORDS = ("sched", "optim", "lr", "env", "augment", "transform", "eval", "test", "wrapper")
MAX_DEPTH = 3  # of the sections of settings
MAX_SETTINGS = 256  # in an attribute that has none of the names of SETTINGS
UNKNOWN = (
    "The discount factor of the agent is not known: {reason}. Predictions are not compared with returns, and "
    "discounted returns use 0.99. Set evaluation.gamma, or give the module an attribute discount_factor."
)
Place: TypeAlias = list[tuple[str, Any]]
"""Objects of equal rank that may have a discount factor, with the paths to them."""


class Discount(NamedTuple):
    """Discount factor in [0, 1]; None if it is not known, with a warning if values were found that may be others."""

    gamma: float | None
    warning: str | None = None


def find_discount(configured: float | None, module: Any) -> Discount:
    """Returns the discount factor of the settings, else of the module.

    It is looked for in the hyper-parameters of the module, its attributes, the sections of its settings
    (``self.cfg.algo.gamma``), its other mappings, and the agents and losses that it holds (``self.agent.gamma``), as
    ``discount_factor`` or ``discount``, and only then as ``gamma``. A ``gamma`` that a learning rate schedule uses is
    not taken.
    """
    if configured is not None:
        return Discount(configured)
    schedules = _schedule_gammas(module)
    mistaken: dict[str, float] = {}
    for place, names in _places(module):
        for name in names:
            values = {f"{path}.{name}": _as_discount(_get(holder, name)) for path, holder in place}
            found = {path: value for path, value in values.items() if value is not None}
            if name == GAMMA:
                mistaken |= {path: value for path, value in found.items() if value in schedules}
                found = {path: value for path, value in found.items() if value not in schedules}
            if len(set(found.values())) > 1:
                differing = " and ".join(f"{path} = {value:g}" for path, value in found.items())
                return Discount(None, UNKNOWN.format(reason=f"{differing} differ"))
            if found:
                return Discount(next(iter(found.values())))
    if not mistaken:
        return Discount(None)
    path, value = next(iter(mistaken.items()))
    return Discount(None, UNKNOWN.format(reason=f"{path} = {value:g} is the factor of a learning rate schedule"))


def _places(module: Any) -> Iterator[tuple[Place, Sequence[str]]]:
    """Yields where a discount factor may be and under which names, the likeliest first."""
    hyper_parameters = ("hparams", getattr(module, "hparams", None))
    for names in (PLAIN_NAMES, (GAMMA,)):
        yield [hyper_parameters], names
        yield [("self", module)], names
    settings = [(f"self.{name}", _get(module, name)) for name in SETTINGS if name != "hparams"]
    yield settings, NAMES
    yield from _nested([hyper_parameters, *settings], NAMES)
    held = {**getattr(module, "__dict__", {}), **getattr(module, "_modules", {})}
    containers = [(f"self.{name}", each) for name, each in held.items() if _holds_settings(name, each)]
    yield containers, PLAIN_NAMES
    yield from _nested(containers, PLAIN_NAMES)
    objects = [(f"self.{name}", each) for name, each in held.items() if _is_named(name, AGENT_WORDS)]
    yield objects, NAMES
    yield [(f"{path}.{name}", _get(each, name)) for path, each in objects for name in HOLDERS], NAMES


def _nested(sections: Place, names_of_others: Sequence[str]) -> Iterator[tuple[Place, Sequence[str]]]:
    """Yields the sections of settings by their depth, those of an agent before the others."""
    for _ in range(MAX_DEPTH):
        sections = [each for path, section in sections for each in _sections_of(section, path)]
        agents = [each for each in sections if _is_named(each[0], AGENT_WORDS)]
        yield agents, NAMES
        yield [each for each in sections if each not in agents], names_of_others


def _holds_settings(name: str, value: Any) -> bool:
    """Returns whether an attribute of any name may hold settings: a small mapping of names."""
    if (
        name.startswith("_")
        or _is_named(name, OTHER_WORDS)
        or not isinstance(value, dict | Namespace | SimpleNamespace)
    ):
        return False
    names = value if isinstance(value, dict) else vars(value)
    return len(names) <= MAX_SETTINGS and all(isinstance(name, str) for name in names)


def _sections_of(section: Any, path: str) -> Place:
    """Returns the parts of settings, except those of schedules, environments and the like."""
    if is_mapping(section):
        parts = {str(name): part for name, part in itertools.islice(entries(section), MAX_SETTINGS)}
    elif is_dataclass(section) and not isinstance(section, type):
        parts = {each.name: _get(section, each.name) for each in fields(section)}
    else:
        return []
    return [
        (f"{path}.{name}", part)
        for name, part in parts.items()
        if not _is_named(name, OTHER_WORDS) and not isinstance(part, torch.Tensor | str | int | float | None)
    ]


def _is_named(path: str, words: Iterable[str]) -> bool:
    last = path.rpartition(".")[2].lower()
    return any(word in last.split("_") or (len(word) > 3 and word in last) for word in words)


def _get(holder: Any, name: str) -> Any:
    try:
        return holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)
    except Exception:  # noqa: BLE001  # a property, or a value of OmegaConf that cannot be resolved
        return None


def _as_discount(value: Any) -> float | None:
    """Returns a number in [0, 1]; a trained parameter is no discount factor."""
    if isinstance(value, torch.Tensor) and not isinstance(value, torch.nn.Parameter) and value.numel() == 1:
        value = value.item()
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value <= 1 else None


def _schedule_gammas(module: Any) -> set[float]:
    """Returns the factors of the learning rate schedules of the Trainer and of the module."""
    schedule_class = torch.optim.lr_scheduler.LRScheduler
    trainer = getattr(module, "_trainer", None)
    schedules = [config.scheduler for config in getattr(trainer, "lr_scheduler_configs", None) or ()]
    schedules += [each for each in vars(module).values() if isinstance(each, schedule_class)]
    gammas = set()
    while schedules:
        schedule = schedules.pop()
        schedules += getattr(schedule, "_schedulers", ())
        gammas.add(_as_discount(getattr(schedule, GAMMA, None)))
    return {gamma for gamma in gammas if gamma is not None}
