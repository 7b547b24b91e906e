"""Exchange of objects between the ranks of a distributed training. Every call must be made by all ranks, or by none."""

from __future__ import annotations

import base64
import pickle
from functools import partial
from typing import Any, TypeVar

import torch
from lightning_utilities.core.rank_zero import rank_zero_info

from rlwandb_callbacks.callbacks.interruption import received_sigterm
from rlwandb_callbacks.callbacks.meetings import ARRIVAL_SECONDS, PROCESS, shared_store
from rlwandb_callbacks.core.output import unfailing_output
from rlwandb_callbacks.errors import ConfigError, RemoteError, name_and_message
from rlwandb_callbacks.tracking.reply import portable_error

T = TypeVar("T")


def announce(message: str) -> None:
    """Says something on rank zero in Lightning's log; where nothing can be printed, nothing is said."""
    with unfailing_output():
        rank_zero_info(f"rlwandb: {message}")


class Ranks:
    """The ranks of one training, for the exchanges at one place of it.

    Args:
        trainer: The Trainer.
        place: Where the ranks are, which is a part of messages ("at the start of training").
        max_seconds: How long a rank waits for others in one exchange; None for no limit.
        starts: Whether all ranks come here whatever has happened before, as at the start of a training.

    Attributes:
        count: Number of ranks.
        index: Index of this rank.
        is_zero: Whether this is rank zero, which logs.
    """

    def __init__(
        self,
        trainer: Any,
        place: str = "in training",
        *,
        max_seconds: float | None = ARRIVAL_SECONDS,
        starts: bool = False,
    ) -> None:
        self.count: int = trainer.world_size
        self.index: int = trainer.global_rank
        self.is_zero = self.index == 0
        self.max_seconds = max_seconds
        self._starts = starts
        self._trainer, self._place = trainer, place

    @classmethod
    def alone(cls, trainer: Any) -> Ranks:
        """Returns what takes rank zero for the only one, where others may not come."""
        ranks = cls(trainer)
        ranks.count, ranks.index, ranks.is_zero = 1, 0, True
        return ranks

    def gather(self, value: T) -> list[T]:
        """Returns the picklable values of all ranks, in the order of ranks, on every rank.

        Raises:
            MissingRanksError: If not all ranks came in time, or SIGTERM has ended the wait.
        """
        if self.count == 1:
            return [value]
        self._meet()
        values: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(values, value)
        return values

    def broadcast(self, value: T) -> T:
        """Returns the picklable value of rank zero on every rank; the values of others are ignored.

        Raises:
            MissingRanksError: As for :meth:`gather`.
        """
        if self.count == 1:
            return value
        self._meet()
        values: list[Any] = [value]
        torch.distributed.broadcast_object_list(values, src=0)
        return values[0]  # type: ignore[no-any-return]  # a list of any objects by torch's signature

    def _meet(self) -> None:
        store = shared_store()
        if store is not None:
            batches = self._trainer.fit_loop.epoch_loop.total_batch_idx + 1
            PROCESS.meet(
                store,
                self.index,
                self.count,
                f"{self._place} after {batches:,} batches",
                max_seconds=self.max_seconds,
                is_interrupted=partial(received_sigterm, self._trainer),
                heeds_misses=not self._starts,
            )

    def leave(self) -> None:
        """Ends the wait of other ranks for this one, whose training has ended by an exception."""
        store = shared_store() if self.count > 1 else None
        if store is not None:
            PROCESS.leave(store)

    def raise_of_zero(self, error: Exception | None) -> None:
        """Raises on all ranks if there is an error on rank zero, which does not wait for the others.

        So rank zero may be the only one that comes here, as in trainings with callbacks on rank zero only.

        Raises:
            Exception: The error of this rank, or else that of rank zero.
            MissingRanksError: On other ranks, if rank zero does not come in time, or SIGTERM has ended the wait.
        """
        store = shared_store() if self.count > 1 else None
        if store is not None and self.is_zero:
            PROCESS.send(store, base64.b64encode(pickle.dumps(error and portable_error(error))).decode())
        if error is not None:
            raise error
        if store is not None and not self.is_zero:
            is_interrupted = partial(received_sigterm, self._trainer)
            limits: Any = {"max_seconds": self.max_seconds, "is_interrupted": is_interrupted}
            received = base64.b64decode(PROCESS.receive(store, self.index, self.count, self._place, **limits))
            of_zero = pickle.loads(received)  # noqa: S301  # of the same training  # nosec B301
            if of_zero is not None:
                raise on_rank(0, of_zero)

    def raise_together(self, error: Exception | None) -> None:
        """Raises on all ranks if there is an error on any: that of this rank, else that of the first one with one.

        An error of another rank names that rank.
        """
        found = self.gather(None if error is None else sendable(error, self))
        for index, each in enumerate(found):
            if each is not None:
                raise error or on_rank(index, each)


def sendable(error: Exception, ranks: Ranks) -> Exception:
    """Returns an error that other ranks can load: itself, or its text as a RemoteError."""
    return error if ranks.count == 1 else portable_error(error)


def on_rank(index: int, error: Exception) -> Exception:
    """Returns an error of another rank, whose message names it; an error of a setting keeps its class.

    Example:
        >>> on_rank(1, ConfigError("evaluation.env cannot be made.")), on_rank(2, OSError("disk full"))
        (ConfigError('on rank 1: evaluation.env cannot be made.'), RemoteError('on rank 2: OSError: disk full'))
    """
    if isinstance(error, ConfigError):
        named: Exception = type(error)(f"on rank {index}: {error}")
    else:
        named = RemoteError(f"on rank {index}: {name_and_message(error)}")
    named.__cause__ = error
    return named
