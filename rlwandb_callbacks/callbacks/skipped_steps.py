"""Counts optimizer steps that a ``GradScaler`` skipped, without waiting for a device."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

MAX_SKIPPED_STEPS = 10  # in a row, while a scale that began too large is lowered
LAG_BATCHES = 10  # after which a GPU has sent an overflow to the host: trainings run less far ahead of it


class Overflow:
    """Whether the gradients of a step had overflowed, so that it changed nothing.

    Args:
        found_inf: Tensor of one element that is not zero after an overflow, which a GPU sends to the host without
            being waited for; None if there was none.
    """

    def __init__(self, found_inf: torch.Tensor | None = None) -> None:
        is_on_gpu = found_inf is not None and found_inf.is_cuda
        self._found_inf = None if found_inf is None else found_inf.detach().to("cpu", non_blocking=is_on_gpu)
        self._arrived: torch.cuda.Event | None = None
        if found_inf is not None and is_on_gpu:
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch does not annotate it
            self._arrived.record(torch.cuda.current_stream(found_inf.device))

    @property
    def is_on_host(self) -> bool:
        """Whether reading waits for no device."""
        return self._arrived is None

    def read(self) -> bool:
        """Returns whether there was an overflow; waits for the device that determines it."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._found_inf is not None and bool(self._found_inf)


@dataclass(frozen=True)
class BatchSteps:
    """Steps of optimizers in a batch; optimizers are given by ``id``.

    Attributes:
        attempted: Whether the batch counts as an update unless all steps were skipped.
        scaled: Optimizers that a scaler was told to step.
        steps: Calls of ``step`` by optimizer, which a scaler omits after an overflow, except for fused optimizers.
    """

    attempted: bool
    scaled: frozenset[int]
    steps: Mapping[int, Sequence[Overflow]]

    @property
    def is_on_host(self) -> bool:
        """Whether reading waits for no device."""
        return all(step.is_on_host for steps in self.steps.values() for step in steps)

    def has_stepped(self, optimizer: int) -> bool:
        """Returns whether at least one step of an optimizer was not skipped."""
        return any(not step.read() for step in self.steps.get(optimizer, ()))

    def skipped(self) -> set[int]:
        """Returns the optimizers of which every step was skipped."""
        return {optimizer for optimizer in self.scaled if not self.has_stepped(optimizer)}


class SkippedSteps:
    """Counts skipped steps batch by batch; those of fused optimizers on a GPU ten batches late.

    The delay is a fixed number of batches, so that all ranks count the same.

    Attributes:
        in_row: Latest steps in a row that were skipped, of the optimizer with the most.
        has_new: Whether the latest batch brought a skipped step to light.

    Example:
        >>> counted = SkippedSteps()
        >>> counted.add(BatchSteps(attempted=True, scaled=frozenset({1}), steps={}))
        >>> counted.in_row, counted.take_update(attempted=True)
        (1, False)
    """

    def __init__(self) -> None:
        self.in_row, self.has_new = 0, False
        self._in_row: dict[int, int] = {}  # by optimizer
        self._pending: deque[BatchSteps] = deque()
        self._surplus = 0  # skipped batches among the updates

    def add(self, batch: BatchSteps) -> None:
        """Adds the steps of a batch."""
        self.has_new = False
        self._pending.append(batch)
        while self._pending and (self._pending[0].is_on_host or len(self._pending) > LAG_BATCHES):
            self._count(self._pending.popleft())

    def _count(self, batch: BatchSteps) -> None:
        skipped = batch.skipped()
        for optimizer in batch.scaled:
            self._in_row[optimizer] = self._in_row.get(optimizer, 0) + 1 if optimizer in skipped else 0
        self.in_row = max(self._in_row.values(), default=0)
        self.has_new = self.has_new or bool(skipped)
        if batch.attempted and skipped and not any(map(batch.has_stepped, batch.steps)):
            self._surplus += 1

    def take_update(self, *, attempted: bool) -> bool:
        """Returns whether a batch counts as an update, which ``attempted`` says if no step was skipped.

        For each batch that was counted before its steps were known to be skipped, a later one does not count, so that
        counts never fall.
        """
        if not attempted or not self._surplus:
            return attempted
        self._surplus -= 1
        return False
