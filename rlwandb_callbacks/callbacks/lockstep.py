"""Whether the ranks of a training come to Lightning's hooks together.

Under DDP all ranks take their steps together, as each one exchanges gradients. Lightning starts validations and ends
epochs by the batches of each rank, however, which may be more on one rank than on another.
"""

from __future__ import annotations

import enum
import math
from typing import Any, NamedTuple

from torch.utils.data import DataLoader, IterableDataset

from rlwandb_callbacks.callbacks.error_policy import ErrorPolicy
from rlwandb_callbacks.callbacks.meetings import MissingRanksError
from rlwandb_callbacks.callbacks.ranks import Ranks

START = "at the start of training"
DIFFERENT = "have different numbers of batches in an epoch ({counts})"
UNKNOWN = (
    "may have different numbers of batches in an epoch, as the training data have no length that is known before "
    "they are read"
)
MISSED = "have not come together before"
BY_TIME = "validate by the clock of each (val_check_interval is a time)"
ALONE = "the ranks {reason}, so that they may not reach {moment} together. There, rank zero {does}. {remedy}"
REMEDY = (
    "Training data with a length that is the same on all ranks (no IterableDataset), or an integer val_check_interval "
    "with check_val_every_n_epoch=None, bring them together."
)


class Moment(enum.Enum):
    """Hook of a training; the value completes "at …"."""

    BATCH_END = "the end of a batch"
    VALIDATION = "the end of a validation"
    EPOCH_END = "the end of an epoch"
    TRAINING_END = "the end of training"
    FIT_END = "the end of the fit"


class EpochPlan(NamedTuple):
    """What one rank knows about its epochs when training starts.

    Args:
        batches: Batches in an epoch; infinite if they are not known.
        is_known: Whether ``batches`` holds for all epochs: data sets that are only iterated may have any length, and
            data that are loaded again may have another one.
        validation_batches: Batches between two validations.
        is_by_batches: Whether batches are counted for that from the start of training, rather than in each epoch.
        is_by_time: Whether validations come by the clock.
    """

    batches: float
    is_known: bool
    validation_batches: float
    is_by_batches: bool
    is_by_time: bool

    @classmethod
    def of(cls, trainer: Any) -> EpochPlan:
        """Reads the plan from a Trainer whose training is about to start."""
        batches = float(trainer.num_training_batches)
        reloads = trainer.reload_dataloaders_every_n_epochs > 0
        return cls(
            batches=batches,
            is_known=math.isfinite(batches) and not reloads and all(map(has_fixed_length, loaders_of(trainer))),
            validation_batches=float(trainer.val_check_batch or math.inf),
            is_by_batches=trainer.check_val_every_n_epoch is None,
            is_by_time=getattr(trainer, "_val_check_time_interval", None) is not None,
        )


class Lockstep:
    """Knows at which hooks all ranks of a training are sure to come.

    Args:
        errors: Gets an error if ranks do not come to the start of training.

    Attributes:
        validates: Whether validations of a fit start on all ranks after the same step.
        ends_epochs: Whether epochs end on all ranks after the same step.
    """

    def __init__(self, errors: ErrorPolicy) -> None:
        self._errors = errors
        self.validates = self.ends_epochs = True
        self._is_agreed = self._is_off = False
        self._reason = UNKNOWN

    def agree(self, trainer: Any) -> None:
        """Compares the plans of all ranks, once in a training; all ranks must call it when training starts."""
        if self._is_agreed:
            return
        self._is_agreed = True
        if trainer.world_size == 1:
            return
        try:
            self.compare(Ranks(trainer, START, starts=True).gather(EpochPlan.of(trainer)))
        except MissingRanksError as error:
            self.give_up()
            if not error.is_interrupted:
                self._errors.report_error("Comparing the training data of all ranks", error)

    def compare(self, plans: list[EpochPlan]) -> None:
        """Decides by the plans of all ranks."""
        is_equal = len(set(plans)) == 1
        first = plans[0]
        self.ends_epochs = is_equal and first.is_known
        counted = is_equal and first.is_by_batches and math.isfinite(first.validation_batches)
        self.validates = (self.ends_epochs or counted) and not first.is_by_time
        if len({plan.batches for plan in plans}) > 1:
            counts = " and ".join("unknown" if math.isinf(plan.batches) else f"{plan.batches:.0f}" for plan in plans)
            self._reason = DIFFERENT.format(counts=counts)
        elif self.ends_epochs:
            self._reason = BY_TIME

    def give_up(self) -> None:
        """Notes that ranks have not come to a hook where all were sure to come."""
        self._is_off, self._reason = True, MISSED

    def is_sure(self, trainer: Any, moment: Moment, *, is_needed: bool = False) -> bool:
        """Returns whether all ranks come to a hook after the same step; each of them gets the same answer there.

        Args:
            trainer: The Trainer.
            moment: The hook.
            is_needed: Whether Lightning itself has the ranks exchange something there, or they would train different
                weights without an exchange, as monitors of our numbers do.
        """
        if trainer.world_size == 1:
            return True
        if self._is_off:
            return False
        if trainer.state.fn != "fit" or is_needed or moment is Moment.BATCH_END:
            return True
        if moment is Moment.VALIDATION:
            return self.validates
        if self.ends_epochs:
            return True
        reached_steps = trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps
        return reached_steps and (moment is Moment.FIT_END or not trainer.enable_validation)

    def describe(self, moment: Moment, does: str) -> str:
        """Returns a warning about what rank zero does alone at a hook ("plays the evaluation episodes")."""
        return ALONE.format(reason=self._reason, moment=moment.value, does=does, remedy=REMEDY)


def loaders_of(trainer: Any) -> list[Any]:
    """Returns the training data loaders of a Trainer whose training has started."""
    combined = getattr(trainer.fit_loop, "_combined_loader", None)
    return list(getattr(combined, "flattened", []))


def has_fixed_length(loader: Any) -> bool:
    """Returns whether a loader has as many batches as its length says.

    The length of an ``IterableDataset`` is a guess of its author.

    Example:
        >>> has_fixed_length([1, 2]), has_fixed_length(iter([1, 2]))
        (True, False)
    """
    if isinstance(loader, DataLoader) and isinstance(loader.dataset, IterableDataset):
        return False
    return hasattr(loader, "__len__")
