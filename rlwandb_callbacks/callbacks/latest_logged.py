"""Latest values of metrics that a module logs per epoch only, of which Lightning keeps a mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from rlwandb_callbacks.callbacks.lightning_results import logged_per_epoch_only

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

T = TypeVar("T")
OTHER_STAGES = ("eval", "val", "valid", "validation", "test")


def find_named(values: Mapping[str, T], names: Iterable[str]) -> list[T]:
    """Returns the values with one of the names, and then those with one after a prefix that is no other stage.

    Example:
        >>> find_named({"eval/env_steps": 1, "train/env_steps": 2, "env_steps": 3}, ["env_steps"])
        [3, 2]
    """
    wanted = tuple(names)
    exact = [values[name] for name in wanted if name in values]
    prefixed = [
        value
        for name in wanted
        for key, value in values.items()
        if key.endswith(f"/{name}") and key.partition("/")[0].lower() not in OTHER_STAGES
    ]
    return exact + prefixed


class LatestLogged:
    """Keeps the latest value of each metric of some names that is logged with ``on_epoch`` only.

    Lightning adds up such values and computes the mean when the epoch ends, which says nothing about a count.

    Args:
        names: Names of metrics, with or without a prefix such as ``train/``.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(names)
        self._num_metrics = 0  # that were logged when they were looked through
        self._observed: dict[str, _Observed] = {}

    def follow(self, trainer: Trainer) -> None:
        """Looks for such metrics among those that have been logged since the last call; to be called once a batch."""
        items = logged_per_epoch_only(trainer, known=self._num_metrics)
        if items is None:
            return
        self._num_metrics = len(trainer.fit_loop.epoch_loop._results)  # noqa: SLF001  # no public access
        for item in items:
            name = item.meta.name
            known = self._observed.get(name)
            if find_named({name: item}, self._names) and (known is None or known.item is not item):
                self._observed[name] = _Observed(item)

    def values(self) -> list[Any]:
        """Returns the latest values, without reading them from their device."""
        latest = {name: each.latest for name, each in self._observed.items() if each.latest is not None}
        return find_named(latest, self._names)

    def close(self) -> None:
        """Stops following."""
        for each in self._observed.values():
            each.close()
        self._observed.clear()
        self._num_metrics = 0


class _Observed:
    """Stands in the place of the ``forward`` method of one of Lightning's metrics, and calls it."""

    def __init__(self, item: Any) -> None:
        self.item = item
        self.latest: Any = None
        self._forward: Callable[..., None] = item.forward
        if item.meta.is_mean_reduction and not item.has_reset:  # one value so far
            self.latest = item.value / item.cumulated_batch_size
        item.forward = self

    def __call__(self, value: Any, *arguments: Any, **keywords: Any) -> None:
        self.latest = value  # Lightning has copied it
        self._forward(value, *arguments, **keywords)

    def close(self) -> None:
        vars(self.item).pop("forward", None)
