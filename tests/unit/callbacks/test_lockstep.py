"""Hooks at which all ranks of a training are sure to come."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from torch.utils.data import DataLoader, IterableDataset

from rlwandb_callbacks.callbacks.error_policy import ErrorPolicy
from rlwandb_callbacks.callbacks.lockstep import EpochPlan, Lockstep, Moment, has_fixed_length
from rlwandb_callbacks.callbacks.logging_time import LoggingTimer

EQUAL = EpochPlan(8, is_known=True, validation_batches=8, is_by_batches=False, is_by_time=False)
UNKNOWN = EpochPlan(math.inf, is_known=False, validation_batches=math.inf, is_by_batches=False, is_by_time=False)
BY_BATCHES = EpochPlan(math.inf, is_known=False, validation_batches=100, is_by_batches=True, is_by_time=False)


class Endless(IterableDataset[int]):
    def __iter__(self) -> Any:
        return iter(int, 1)

    def __len__(self) -> int:
        return 8


def trainer(**attributes: Any) -> Any:
    state = SimpleNamespace(fn="fit")
    defaults = {"world_size": 2, "state": state, "max_steps": -1, "global_step": 8, "enable_validation": True}
    return SimpleNamespace(**(defaults | attributes))


def compared(*plans: EpochPlan) -> Lockstep:
    lockstep = Lockstep(ErrorPolicy(raises=False, timer=LoggingTimer()))
    lockstep.compare(list(plans))
    return lockstep


@pytest.mark.parametrize(
    ("plans", "validates", "ends_epochs"),
    [
        ((EQUAL, EQUAL), True, True),
        ((EQUAL, EQUAL._replace(batches=6, validation_batches=6)), False, False),
        ((UNKNOWN, UNKNOWN), False, False),
        ((EQUAL._replace(is_known=False),) * 2, False, False),
        ((BY_BATCHES, BY_BATCHES), True, False),
        ((BY_BATCHES, BY_BATCHES._replace(validation_batches=50)), False, False),
        ((EQUAL._replace(is_by_time=True),) * 2, False, True),
    ],
)
def test_ranks_come_together_where_their_batches_are_known_and_equal(
    plans: tuple[EpochPlan, ...], validates: bool, ends_epochs: bool
) -> None:
    lockstep = compared(*plans)
    assert (lockstep.validates, lockstep.ends_epochs) == (validates, ends_epochs)
    assert lockstep.is_sure(trainer(), Moment.VALIDATION) == validates
    assert lockstep.is_sure(trainer(), Moment.EPOCH_END) == ends_epochs


def test_unequal_ranks_meet_after_batches_where_monitors_need_it_at_max_steps_and_in_one_process() -> None:
    lockstep = compared(EQUAL, EQUAL._replace(batches=6))
    assert lockstep.is_sure(trainer(), Moment.BATCH_END)
    assert lockstep.is_sure(trainer(), Moment.VALIDATION, is_needed=True)
    assert not lockstep.is_sure(trainer(), Moment.TRAINING_END)
    assert lockstep.is_sure(trainer(max_steps=8), Moment.FIT_END)
    assert not lockstep.is_sure(trainer(max_steps=8), Moment.TRAINING_END)
    assert lockstep.is_sure(trainer(max_steps=8, enable_validation=False), Moment.TRAINING_END)
    assert lockstep.is_sure(trainer(world_size=1), Moment.VALIDATION)
    assert lockstep.is_sure(trainer(state=SimpleNamespace(fn="validate")), Moment.VALIDATION)


def test_ranks_that_have_missed_each_other_meet_nowhere_in_this_training() -> None:
    lockstep = compared(EQUAL, EQUAL)
    lockstep.give_up()
    assert not any(lockstep.is_sure(trainer(), moment, is_needed=True) for moment in Moment)


def test_warning_names_the_batches_of_each_rank() -> None:
    lockstep = compared(EQUAL, EQUAL._replace(batches=6))
    text = lockstep.describe(Moment.VALIDATION, "plays alone")
    assert "(8 and 6)" in text
    assert "the end of a validation" in text


def test_iterated_data_have_no_fixed_length_whatever_they_say() -> None:
    assert has_fixed_length(DataLoader([1, 2]))  # type: ignore[arg-type]  # a list is a data set
    assert not has_fixed_length(DataLoader(Endless(), batch_size=None))


def test_plan_is_read_from_the_trainer() -> None:
    loop = SimpleNamespace(_combined_loader=SimpleNamespace(flattened=[DataLoader([1] * 6)]))  # type: ignore[arg-type]
    attributes = {"num_training_batches": 6, "val_check_batch": 6, "check_val_every_n_epoch": 1, "fit_loop": loop}
    plan = EpochPlan.of(trainer(**attributes, reload_dataloaders_every_n_epochs=0))
    assert plan == EpochPlan(6, is_known=True, validation_batches=6, is_by_batches=False, is_by_time=False)
    assert not EpochPlan.of(trainer(**attributes, reload_dataloaders_every_n_epochs=1)).is_known
