"""Exchange of objects between the ranks of a distributed training. Every call must be made by all ranks, or by none."""

from __future__ import annotations

import pickle
from typing import Any, TypeVar

import torch
from lightning_utilities.core.rank_zero import rank_zero_info

from rlwandb_callbacks.core.output import unfailing_output

T = TypeVar("T")


def announce(message: str) -> None:
    """Says something on rank zero in Lightning's log; where nothing can be printed, nothing is said."""
    with unfailing_output():
        rank_zero_info(f"rlwandb: {message}")


class Ranks:
    """The ranks of one training.

    Attributes:
        count: Number of ranks.
        index: Index of this rank.
        is_zero: Whether this is rank zero, which logs.
    """

    def __init__(self, trainer: Any) -> None:
        self.count: int = trainer.world_size
        self.index: int = trainer.global_rank
        self.is_zero = self.index == 0

    def gather(self, value: T) -> list[T]:
        """Returns the picklable values of all ranks, in the order of ranks, on every rank."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(values, value)
        return values

    def broadcast(self, value: T) -> T:
        """Returns the picklable value of rank zero on every rank; the values of others are ignored."""
        if self.count == 1:
            return value
        values: list[Any] = [value]
        torch.distributed.broadcast_object_list(values, src=0)
        return values[0]  # type: ignore[no-any-return]  # a list of any objects by torch's signature

    def raise_together(self, error: Exception | None) -> None:
        """Raises on all ranks if there is an error on any: that of this rank, else that of the first one with one."""
        for found in self.gather(None if error is None else sendable(error, self)):
            if found is not None:
                raise error or found


def sendable(error: Exception, ranks: Ranks) -> Exception:
    """Returns an error that other ranks can load: itself, or its text as a RuntimeError if it cannot be pickled."""
    if ranks.count == 1:
        return error
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  # pickled in the same line  # nosec B301
    except Exception:  # noqa: BLE001  # exceptions with arguments of their own fail in many ways
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
