"""Callbacks and schedulers of a Trainer that read numbers of an evaluation, and when they read them."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import torch

from rlwandb_callbacks.callbacks.evaluation.early_stopping import UncountedReads
from rlwandb_callbacks.callbacks.evaluation.keys import GROUPS
from rlwandb_callbacks.callbacks.evaluation.published import publish, withdraw
from rlwandb_callbacks.callbacks.lightning_namespaces import is_a
from rlwandb_callbacks.callbacks.lightning_results import computed_metrics

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

OUR_GROUPS = tuple(f"{group}/" for group in GROUPS)
Owns: TypeAlias = Callable[[Any], TypeGuard[str]]
"""Returns whether a key is the name of a number of an evaluation."""
LARGEST = float(torch.finfo(torch.float32).max)
WORST = -LARGEST
PLACEHOLDER_FACTOR = 0.99  # a larger step than the relative threshold of ReduceLROnPlateau, 1e-4
BEST_PLACEHOLDER = 1e30
THRESHOLD_STEP = 1e-3  # between two placeholders at a threshold of divergence, relative to it; as above
NEVER_SAVES = (
    "ModelCheckpoint(monitor={key!r}) saves when validation ends, and this training has no validation loop, so it "
    "keeps no best policy. Leave save_on_train_epoch_end at None or set it to True, and check_val_every_n_epoch to 1."
)
NO_NUMBER = (
    "{key} is monitored, and an evaluation has no finite number for it. Its monitors read a number that is worse than "
    "any return instead."
)
INTERVAL_NAMES = ("return_iqm_low", "return_iqm_high")
FEW_EPISODES = " It needs at least 4 episodes, or 12 if their returns are equal: set evaluation.episodes."


class Need(enum.Enum):
    """Which number a monitor needs when it reads."""

    ANY = enum.auto()  # the last one
    CURRENT = enum.auto()  # the last one; when it is read for the first time, it must be of the present weights
    NEW = enum.auto()  # one of the present weights, as it acts after some reads without improvement


@dataclass(frozen=True)
class Monitor:
    """A callback or a scheduler that reads one of our numbers.

    Attributes:
        name: Its class.
        key: Name of the number.
        maximizes: Whether a larger number is better.
        need: Which number it needs.
        every_n_epochs: Epochs between two reads at the end of a training epoch; 0 if it does not read there.
        every_n_steps: Optimizer steps or batches between two reads at the end of a batch; 0 if it does not read there.
        counts_batches: Whether ``every_n_steps`` counts the batches of the epoch instead of optimizer steps.
        divergence_threshold: Ends the training if a number is worse than this.
    """

    name: str
    key: str
    maximizes: bool
    need: Need = Need.CURRENT
    every_n_epochs: int = 0
    every_n_steps: int = 0
    counts_batches: bool = False
    divergence_threshold: float | None = None

    def reads_after_epoch(self, trainer: Trainer) -> bool:
        """Returns whether it reads at the end of the present training epoch."""
        return self.every_n_epochs > 0 and (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def reads_after_batch(self, trainer: Trainer, batch_idx: int) -> bool:
        """Returns whether it reads at the end of the present batch."""
        count = batch_idx + 1 if self.counts_batches else trainer.global_step
        return self.every_n_steps > 0 and count % self.every_n_steps == 0


def is_ours(key: Any) -> TypeGuard[str]:
    """Returns whether a key is in one of our groups of numbers."""
    return isinstance(key, str) and key.startswith(OUR_GROUPS)


def monitored_names(trainer: Trainer) -> list[str]:
    """Returns the names of all numbers that callbacks and schedulers of a Trainer monitor."""
    monitors = [getattr(each, "monitor", None) for each in (*trainer.callbacks, *trainer.lr_scheduler_configs)]  # type: ignore[attr-defined]  # set in its __init__
    return [name for name in monitors if isinstance(name, str)]


def find_monitors(trainer: Any, module: LightningModule, owns: Owns = is_ours) -> list[Monitor]:
    """Returns what reads numbers that an evaluation owns in a training that has started."""
    callbacks = [(callback, getattr(callback, "monitor", None)) for callback in trainer.callbacks]
    found = [_callback_monitor(trainer, callback, key) for callback, key in callbacks if owns(key)]
    configs = trainer.lr_scheduler_configs if module.automatic_optimization else []
    found += [_scheduler_monitor(c, c.monitor) for c in configs if c.reduce_on_plateau and owns(c.monitor)]
    return found


def _callback_monitor(trainer: Trainer, callback: Any, key: str) -> Monitor:
    name, maximizes = type(callback).__name__, getattr(callback, "mode", "min") == "max"
    if is_a(callback, "EarlyStopping"):
        at_epoch_end = getattr(callback, "_check_on_train_epoch_end", True) is not False
        threshold = getattr(callback, "divergence_threshold", None)
        return Monitor(name, key, maximizes, Need.NEW, every_n_epochs=int(at_epoch_end), divergence_threshold=threshold)
    every_n_epochs = 1
    if is_a(callback, "ModelCheckpoint"):
        every_n_epochs = callback.every_n_epochs or 0
        if not saves_after_training_epoch(trainer, callback):
            every_n_epochs = 0
    every_n_steps = getattr(callback, "_every_n_train_steps", 0)
    return Monitor(name, key, maximizes, every_n_epochs=every_n_epochs, every_n_steps=every_n_steps)


def _scheduler_monitor(config: Any, key: str) -> Monitor:
    name, maximizes = type(config.scheduler).__name__, getattr(config.scheduler, "mode", "min") == "max"
    if config.interval == "epoch":
        return Monitor(name, key, maximizes, Need.NEW, every_n_epochs=config.frequency)
    return Monitor(name, key, maximizes, Need.ANY, every_n_steps=config.frequency, counts_batches=True)


def saves_after_training_epoch(trainer: Trainer, checkpoint: Any) -> bool:
    """Returns whether a ``ModelCheckpoint`` saves when a training epoch ends, rather than when validation ends."""
    decide = getattr(checkpoint, "_should_save_on_train_epoch_end", None)
    return decide is None or bool(decide(trainer))


def never_saving_checkpoints(trainer: Any, owns: Owns = is_ours) -> list[str]:
    """Returns owned keys that a ``ModelCheckpoint`` monitors which waits for a validation that never comes."""
    return [
        checkpoint.monitor
        for checkpoint in trainer.callbacks
        if is_a(checkpoint, "ModelCheckpoint")
        and owns(checkpoint.monitor)
        and (checkpoint.every_n_epochs or 0) > 0
        and not trainer.enable_validation
        and not saves_after_training_epoch(trainer, checkpoint)
    ]


def finite_numbers(numbers: Mapping[str, float]) -> dict[str, float]:
    """Returns those numbers that are finite in single precision, as the Trainer's metrics are.

    Example:
        >>> finite_numbers({"eval/return_mean": 3.0, "eval/return_min": float("-inf"), "eval/return_max": 1e39})
        {'eval/return_mean': 3.0}
    """
    return {key: number for key, number in numbers.items() if abs(number) <= LARGEST}


def describe_missing(key: str) -> str:
    """Returns a warning that a number that is monitored has no value."""
    return NO_NUMBER.format(key=key) + (FEW_EPISODES if key.rpartition("/")[2] in INTERVAL_NAMES else "")


class Placeholders:
    """Numbers for our keys that are monitored and have no value yet, as an evaluation may fail.

    ModelCheckpoint, EarlyStopping and ReduceLROnPlateau end a training if a monitored number is missing or not finite.
    A placeholder is far worse than any return, and every further one is a little better than the last, so that none
    counts as a read without improvement. Where EarlyStopping has a ``divergence_threshold``, the first one is there,
    as a worse number would end the training. Reads of an older number or a placeholder do not count for
    its ``patience``. Placeholders are not logged.

    Args:
        monitors: Readers of our numbers.
        warn_once: Called with a message and ``kind=``.
    """

    def __init__(self, monitors: Sequence[Monitor], warn_once: Callable[..., None]) -> None:
        self._warn_once = warn_once
        self._monitors: dict[str, Monitor] = {}  # by the key that they read
        self._counts: dict[str, int] = {}  # of the placeholders in a row
        self._published: dict[str, float] = {}
        self._uncounted_reads = UncountedReads()
        self._evaluated: set[str] = set()  # keys that an evaluation had a number for
        self.watch(monitors)

    def watch(self, monitors: Sequence[Monitor]) -> None:
        """Publishes placeholders for the keys of these readers too, where they are needed."""
        for monitor in monitors:
            if monitor.key not in self._monitors or monitor.divergence_threshold is not None:
                self._monitors[monitor.key] = monitor

    def publish(self, trainer: Trainer, numbers: Mapping[str, float]) -> None:
        """Adds finite numbers to the Trainer's metrics, and placeholders for those that are monitored in vain.

        Args:
            trainer: The Trainer.
            numbers: Numbers of an evaluation; empty if it failed, of which there is a warning.
        """
        finite = finite_numbers(numbers)
        for key in self._drop_outdated(trainer, finite) if numbers else ():
            self._warn_once(describe_missing(key), kind=f"no number {key}")
        publish(trainer, self._next(trainer) | finite)
        lacking = self._monitors.keys() - finite.keys()
        missing = {key for key in lacking if key in self._evaluated or key in self._published}
        self._uncounted_reads.update(trainer, missing=missing, found=finite.keys())

    def release(self, trainer: Trainer, is_released: Callable[[str], bool]) -> None:
        """Removes our numbers of keys that others log too, and publishes no placeholders for them any more."""
        withdraw(trainer, filter(is_released, list(computed_metrics(trainer))))
        for key in filter(is_released, list(self._monitors)):
            del self._monitors[key]
            self._published.pop(key, None)

    def _drop_outdated(self, trainer: Trainer, numbers: Mapping[str, float]) -> list[str]:
        """Removes numbers of earlier evaluations that are monitored and that the present one, ``numbers``, lacks.

        Returns:
            The monitored keys without a number; those that the module logs itself are not among them.
        """
        metrics = computed_metrics(trainer)
        self._evaluated |= numbers.keys()
        keys = self._monitors.keys() - numbers.keys()
        lacking = sorted(key for key in keys if key in self._evaluated or key not in metrics)
        for key in lacking:
            if key in metrics and float(metrics[key]) != self._published.get(key):
                del metrics[key]
                self._published.pop(key, None)
        return lacking

    def _next(self, trainer: Trainer) -> dict[str, float]:
        """Returns a placeholder for each key that is not among the Trainer's metrics, or is a placeholder there."""
        metrics = computed_metrics(trainer)
        for key, monitor in self._monitors.items():
            last = self._published.get(key)
            if last is not None and float(metrics.get(key, last)) == last:
                self._counts[key] += 1
            elif key not in metrics:
                self._counts[key] = 0
            else:
                self._published.pop(key, None)
                continue
            self._published[key] = placeholder(monitor, self._counts[key])
        return dict(self._published)


def placeholder(monitor: Monitor, count: int) -> float:
    """Returns the placeholder number ``count`` ≥ 0 of a monitor, as a 32-bit number; each is a little better.

    All are far worse than any return. Those of a monitor that ends the training beyond a threshold start there.
    """
    sign = 1.0 if monitor.maximizes else -1.0
    threshold = monitor.divergence_threshold
    if threshold is None or not math.isfinite(threshold):
        return _single(-sign * max(LARGEST * PLACEHOLDER_FACTOR**count, BEST_PLACEHOLDER))
    return _single(threshold + sign * (count + 1) * THRESHOLD_STEP * max(1.0, abs(threshold)))


def _single(number: float) -> float:
    return float(torch.tensor(number, dtype=torch.float32))


def describe_first_value(monitors: Sequence[Monitor], trainer: Trainer, every_n_steps: int) -> str:
    """Returns one sentence about who reads our numbers, and when there are any."""
    names = " and ".join(dict.fromkeys(monitor.name for monitor in monitors))
    keys = ", ".join(dict.fromkeys(monitor.key for monitor in monitors))
    first = [_count(m.every_n_steps, "batch" if m.counts_batches else "step") for m in monitors if m.every_n_steps]
    first += [_count(m.every_n_epochs, "epoch") for m in monitors if m.every_n_epochs]
    renewed = ""
    if trainer.enable_validation:
        first.append("the first validation")
    else:
        first.append(f"{_count(every_n_steps, 'update')} (evaluation.every_n_steps)")
        counting = " and ".join(dict.fromkeys(m.name for m in monitors if m.need is Need.NEW and m.every_n_epochs))
        renewed = f", and there is a new one each time that {counting} reads it" if counting else ""
    moments = list(dict.fromkeys(first))
    comes = f"{' or '.join(moments)}{', whichever is earlier' if len(moments) > 1 else ''}"
    reads = "read" if " and " in names else "reads"
    return f"{names} {reads} {keys}. The first value comes after {comes}{renewed}."


def _count(number: int, noun: str) -> str:
    plural = "es" if noun == "batch" else "s"
    return f"{number:,} {noun}{plural if number > 1 else ''}"
