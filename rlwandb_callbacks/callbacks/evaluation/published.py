"""Numbers among the Trainer's metrics: ours, and those that others log under the same keys."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from rlwandb_callbacks.callbacks.lightning_results import computed_metrics, logged_names

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

_published: weakref.WeakValueDictionary[int, torch.Tensor] = weakref.WeakValueDictionary()  # by id


def publish(trainer: Trainer, numbers: Mapping[str, float]) -> None:
    """Adds numbers to the Trainer's metrics, and remembers that they are ours."""
    tensors = {key: torch.tensor(number, dtype=torch.float32) for key, number in numbers.items()}
    _published.update({id(tensor): tensor for tensor in tensors.values()})
    computed_metrics(trainer).update(tensors)


def is_published(metric: Any) -> bool:
    """Returns whether one of the Trainer's metrics was published here."""
    return _published.get(id(metric)) is metric


def withdraw(trainer: Trainer, keys: Iterable[str]) -> None:
    """Removes our numbers of these keys from the Trainer's metrics."""
    metrics = computed_metrics(trainer)
    for key in keys:
        if is_published(metrics.get(key)):
            del metrics[key]


def names_of_others(trainer: Trainer) -> set[str]:
    """Returns the names under which the module and other callbacks have logged or published numbers."""
    metrics = computed_metrics(trainer)
    return logged_names(trainer) | {key for key, metric in metrics.items() if not is_published(metric)}
