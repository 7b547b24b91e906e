"""Counts of skipped optimizer steps, also where a device knows of them later."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from rlwandb_callbacks.callbacks.skipped_steps import LAG_BATCHES, BatchSteps, Overflow, SkippedSteps

CRITIC, ACTOR = 1, 2
STEPPED, SKIPPED = Overflow(torch.zeros(())), Overflow(torch.ones(()))


class OnDevice(Overflow):
    """An overflow that a device has not sent yet; reading it too early is an error."""

    def __init__(self, is_skipped: bool) -> None:
        super().__init__(torch.tensor(float(is_skipped)))
        self.age = 0

    @property
    def is_on_host(self) -> bool:
        return False

    def read(self) -> bool:
        assert self.age >= LAG_BATCHES
        return super().read()


def batch(*critic: Overflow, attempted: bool = True, actor: Sequence[Overflow] = ()) -> BatchSteps:
    return BatchSteps(attempted, frozenset({CRITIC}), {CRITIC: critic, ACTOR: actor})


def updates_of(counted: SkippedSteps, batches: Sequence[BatchSteps]) -> list[bool]:
    updates = []
    for each in batches:
        counted.add(each)
        updates.append(counted.take_update(attempted=each.attempted))
    return updates


def test_batches_count_unless_every_step_was_skipped() -> None:
    counted = SkippedSteps()
    batches = [batch(), batch(SKIPPED), batch(STEPPED), batch(SKIPPED, STEPPED), batch(SKIPPED, actor=[Overflow()])]
    assert updates_of(counted, batches) == [False, False, True, True, True]


def test_a_batch_that_would_not_count_leaves_no_surplus() -> None:
    assert updates_of(SkippedSteps(), [batch(attempted=False), batch(STEPPED)]) == [False, True]


def test_skipped_steps_are_counted_in_a_row_for_each_optimizer() -> None:
    counted, seen = SkippedSteps(), []
    both = frozenset({CRITIC, ACTOR})
    for steps in [
        {},
        {CRITIC: [STEPPED]},
        {CRITIC: [STEPPED]},
        {ACTOR: [STEPPED]},
        {CRITIC: [STEPPED], ACTOR: [STEPPED]},
    ]:
        counted.add(BatchSteps(attempted=True, scaled=both, steps=steps))
        seen.append((counted.in_row, counted.has_new))
    assert seen == [(1, True), (2, True), (3, True), (1, True), (0, False)]


def test_a_batch_without_scaled_steps_does_not_end_a_row() -> None:
    counted = SkippedSteps()
    for each in [batch(), BatchSteps(attempted=False, scaled=frozenset(), steps={}), batch()]:
        counted.add(each)
    assert counted.in_row == 2


@pytest.mark.parametrize("skipped", [[0, 1, 2], [3, 20], list(range(40))])
def test_steps_that_a_device_knows_later_are_made_up_for_by_later_updates(skipped: list[int]) -> None:
    counted, overflows, updates = SkippedSteps(), [], []
    for index in range(40 + LAG_BATCHES):
        for each in overflows:
            each.age += 1
        overflows.append(OnDevice(index in skipped))
        counted.add(batch(overflows[-1]))
        updates.append(counted.take_update(attempted=True))
    assert sum(updates) == len(updates) - len(skipped)
    assert all(updates[:LAG_BATCHES])


def test_rows_of_skips_are_counted_in_order_if_devices_differ() -> None:
    counted = SkippedSteps()
    late = OnDevice(is_skipped=False)
    counted.add(batch(late))
    late.age = LAG_BATCHES
    for _ in range(LAG_BATCHES - 1):
        counted.add(batch())
    assert counted.in_row == 0
    counted.add(batch())
    assert counted.in_row == LAG_BATCHES
