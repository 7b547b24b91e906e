"""What the processes of a distributed training tell each other. Every call is made by all of them, or by none."""

from __future__ import annotations

import pickle
from typing import Any, TypeVar

T = TypeVar("T")


class Ranks:
    """The processes of one training.

    Args:
        trainer: Knows how many there are, and which one this is.
    """

    def __init__(self, trainer: Any) -> None:
        self.count: int = trainer.world_size
        self.index: int = trainer.global_rank

    @property
    def is_zero(self) -> bool:
        """Tells whether this is the one that logs."""
        return self.index == 0

    def gather(self, mine: T) -> list[T]:
        """Gives everybody what each one has, in the order of ranks.

        Args:
            mine: Picklable.
        """
        if self.count == 1:
            return [mine]
        import torch

        gathered: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(gathered, mine)
        return gathered

    def from_zero(self, mine: T) -> T:
        """Gives everybody what rank zero has.

        Args:
            mine: Picklable; what other ranks pass is not used.
        """
        if self.count == 1:
            return mine
        import torch

        shared: list[Any] = [mine]
        torch.distributed.broadcast_object_list(shared, src=0)
        return shared[0]  # type: ignore[no-any-return]  # torch says nothing of its type

    def raise_together(self, error: Exception | None) -> None:
        """Raises on all ranks what went wrong on any of them.

        Args:
            error: What went wrong on this one; None where nothing did.

        Raises:
            Exception: This rank's own error, else that of the first rank that has one.
        """
        for told in self.gather(None if error is None else sendable(error, self)):
            if told is not None:
                raise error or told


def sendable(error: Exception, ranks: Ranks) -> Exception:
    """An error that can be told to other processes: itself, or where it cannot be pickled, its text."""
    if ranks.count == 1:
        return error
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  # what was just pickled
    except Exception:  # noqa: BLE001  # exceptions with arguments of their own fail in many ways
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
