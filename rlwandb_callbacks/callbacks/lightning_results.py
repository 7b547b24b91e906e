"""Values that a module logs by ``self.log``, as the training loop holds them.

The Trainer's ``logged_metrics`` and ``callback_metrics`` are not read: they mix values of batches, of earlier epochs
and of validation, and reading them at the end of an epoch computes its means, which must happen on all ranks at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytorch_lightning import Trainer


def logged_on_step(trainer: Trainer) -> Mapping[str, Any]:
    """Returns the metrics that the module logged for this batch, as Lightning will pass them to its loggers.

    Those of earlier batches of the same epoch are included, if this batch has none of that name.
    """
    results = _training_results(trainer)
    return results.metrics(on_step=True)["log"] if results else {}


def logged_values(trainer: Trainer) -> dict[str, Any]:
    """Returns the latest value of each metric that the module logged for a batch of this epoch, by name.

    An object is the same until the module logs that metric again.
    """
    results = _training_results(trainer)
    items = (item for _, item in results.valid_items()) if results else ()
    return {item.meta.name: item._forward_cache for item in items if item.meta.on_step}  # noqa: SLF001  # no public access


def epoch_values(trainer: Trainer) -> dict[str, Any]:
    """Returns the latest value of each metric that the module logs per epoch, by name, as far as Lightning has it.

    Lightning computes them after the last hook of an epoch. An object is the same until then.
    """
    computed = computed_metrics(trainer)
    names = {item.meta.name: item.meta.forked_name(on_step=False) for item in _logged_per_epoch(trainer)}
    return {name: computed[forked] for name, forked in names.items() if forked in computed}


def epoch_keys_of_loggers(trainer: Trainer) -> set[str]:
    """Returns the keys under which Lightning passes metrics of epochs to its loggers."""
    return {item.meta.forked_name(on_step=False) for item in _logged_per_epoch(trainer) if item.meta.logger}


def computed_metrics(trainer: Trainer) -> dict[str, Any]:
    """Returns ``trainer.callback_metrics``, to read or add to, as far as Lightning has computed them.

    The property would compute more.
    """
    computed: dict[str, Any] = trainer._logger_connector._callback_metrics  # noqa: SLF001  # see above
    return computed


def logged_per_epoch_only(trainer: Trainer, *, known: int) -> list[Any] | None:
    """Returns the objects in which Lightning reduces numbers of the module over an epoch, and has no latest value.

    Sums are left out, whose values are parts. None if there are as many metrics as are ``known``.
    """
    results = _training_results(trainer) or {}
    if len(results) == known:
        return None
    per_epoch = (item for item in results.values() if item.meta.on_epoch and not item.meta.on_step)
    return [item for item in per_epoch if item.is_tensor and not item.meta.is_sum_reduction]


def logged_names(trainer: Trainer) -> set[str]:
    """Returns the names that were ever logged in training or validation, as ``trainer.callback_metrics`` has them."""
    loops = (trainer.fit_loop.epoch_loop, trainer.fit_loop.epoch_loop.val_loop, trainer.validate_loop)
    results = (getattr(loop, "_results", None) or {} for loop in loops)
    return {_name_in_metrics(item.meta) for result in results for item in result.values()}


def _name_in_metrics(meta: Any) -> str:
    is_numbered = meta.add_dataloader_idx and meta.dataloader_idx is not None
    return f"{meta.name}/dataloader_idx_{meta.dataloader_idx}" if is_numbered else str(meta.name)


def _logged_per_epoch(trainer: Trainer) -> Iterator[Any]:
    results = _training_results(trainer)
    return (item for item in (results or {}).values() if item.meta.on_epoch)


def _training_results(trainer: Trainer) -> Any:
    """Returns Lightning's metrics by the hook and the name that logged them; None if it has none."""
    return getattr(trainer.fit_loop.epoch_loop, "_results", None)
