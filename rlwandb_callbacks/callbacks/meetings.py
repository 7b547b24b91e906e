"""Meetings of all ranks before they exchange anything: with a limit, and interrupted by SIGTERM.

A collective call waits until every rank makes it, and no signal ends that wait. So the ranks first meet in the store of
their process group, by calls that do not wait, and make the collective call only when all have come.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch

ARRIVAL_SECONDS = 600.0
"""How long a rank waits for others that train in step with it, in seconds; rank zero may draw or save meanwhile."""
INTERRUPTED_SECONDS = 2.0
"""How long a rank waits for others after SIGTERM, in seconds; they are usually interrupted at the same time."""
FIRST_PAUSE, LONGEST_PAUSE = 2e-4, 2e-2  # seconds between two looks at the store
MET, MISSED = "met", "missed"
LATE = (
    "rank {index} has waited {seconds:.0f} s for {missing} {what}, and goes on alone. All ranks must have the same "
    "callbacks with the same settings, and end their epochs after the same number of batches."
)
TOO_LATE = "other ranks have ended, or no longer wait for rank {index} {what}, so that it goes on alone."
SILENT = "rank {index} has waited {seconds:.0f} s for rank 0 {what}, and goes on without its answer."
INTERRUPTED = "rank {index} was interrupted while it waited for {missing} {what}."
GONE = "rank {index} cannot wait for other ranks {what}, as they do not answer any more: {error}"


class Store(Protocol):
    """What is used of a ``torch.distributed.Store``."""

    def set(self, key: str, value: str, /) -> object: ...
    def get(self, key: str, /) -> bytes: ...
    def check(self, keys: list[str], /) -> bool: ...
    def add(self, key: str, amount: int, /) -> int: ...
    def compare_set(self, key: str, expected: str, value: str, /) -> bytes: ...
    def delete_key(self, key: str, /) -> bool: ...


class MissingRanksError(RuntimeError):
    """Other ranks have not come to an exchange.

    Args:
        message: What was waited for.
        is_interrupted: Whether the wait ended by SIGTERM.
    """

    def __init__(self, message: str, *, is_interrupted: bool = False) -> None:
        super().__init__(message)
        self.is_interrupted = is_interrupted

    def __reduce__(self) -> tuple[type[RuntimeError], tuple[str]]:
        """Pickles as a plain error."""
        return RuntimeError, (str(self),)


class Meetings:
    """Meetings of one process; all ranks have had the same number of them."""

    def __init__(self) -> None:
        self._count = self._num_messages = 0

    def meet(
        self,
        store: Store,
        index: int,
        count: int,
        what: str,
        *,
        max_seconds: float | None = ARRIVAL_SECONDS,
        is_interrupted: Callable[[], bool] | None = None,
        heeds_misses: bool = True,
    ) -> None:
        """Returns when all ranks have called this for the same ``what``.

        One atomic decision holds for all ranks: either all have met, or the first one whose limit was reached has
        missed the others, and those that come later miss it at once.

        Args:
            store: Store that all ranks share.
            index: Index of this rank.
            count: Number of ranks.
            what: Where they meet, which is a part of messages ("at the evaluation after 8 steps").
            max_seconds: Limit of the wait; None for no limit.
            is_interrupted: Returns whether this rank is to end.
            heeds_misses: Miss the others at once if ranks have missed each other since the last meeting of all, as
                they may do in a training; otherwise wait, as at the start of the next one.

        Raises:
            MissingRanksError: If not all ranks came.
        """
        place, misses = f"rlwandb/{self._count}/{what}", self._misses
        arrivals = [f"{place}/{rank}" for rank in range(count)]
        start = time.monotonic()
        try:
            store.set(arrivals[index], "here")
            is_over = _limits(start, max_seconds, is_interrupted)
            if heeds_misses:
                is_over = _or_missed(is_over, store, misses)
            has_met = self._wait(store, place, arrivals, is_over)
            if not has_met:
                store.set(misses, MISSED)
            missing = [] if has_met else [rank for rank in range(count) if not store.check([arrivals[rank]])]
        except RuntimeError as error:  # the process with the store has ended
            raise _gone(error, index, what, is_interrupted) from error
        if not has_met:
            interrupted = is_interrupted is not None and is_interrupted()
            seconds = time.monotonic() - start
            is_late = bool(missing) and max_seconds is not None and seconds > max_seconds
            message = (INTERRUPTED if interrupted else LATE if is_late else TOO_LATE).format(
                index=index, seconds=seconds, missing=ranks_text(missing), what=what
            )
            raise MissingRanksError(message, is_interrupted=interrupted)
        self._count += 1
        if store.add(f"{place}/left", 1) == count:  # no rank reads these keys any more
            for key in (*arrivals, place, f"{place}/left"):
                _delete(store, key)

    def leave(self, store: Store) -> None:
        """Ends the wait of other ranks, as this one has ended by an exception."""
        with contextlib.suppress(RuntimeError):  # the process with the store has ended
            store.set(self._misses, MISSED)

    def send(self, store: Store, message: str) -> None:
        """Stores a message of rank zero, without waiting for the ranks that :meth:`receive` it."""
        with contextlib.suppress(RuntimeError):  # the process with the store has ended
            store.set(self._next_message(), message)

    def receive(
        self,
        store: Store,
        index: int,
        count: int,
        what: str,
        *,
        max_seconds: float | None = ARRIVAL_SECONDS,
        is_interrupted: Callable[[], bool] | None = None,
    ) -> str:
        """Returns the message of rank zero; the arguments are those of :meth:`meet`.

        Raises:
            MissingRanksError: If there is none in time.
        """
        key, start = self._next_message(), time.monotonic()
        is_over = _limits(start, max_seconds, is_interrupted)
        try:
            for _ in _pauses():
                if store.check([key]):
                    break
                if is_over():
                    text = SILENT.format(index=index, seconds=time.monotonic() - start, what=what)
                    raise MissingRanksError(text, is_interrupted=bool(is_interrupted and is_interrupted()))
            message = store.get(key).decode()
            if store.add(f"{key}/received", 1) == count - 1:
                _delete(store, key)
                _delete(store, f"{key}/received")
        except MissingRanksError:
            raise
        except RuntimeError as error:
            raise _gone(error, index, what, is_interrupted) from error
        return message

    @property
    def _misses(self) -> str:
        return f"rlwandb/{self._count}/misses"

    def _next_message(self) -> str:
        self._num_messages += 1
        return f"rlwandb/message {self._num_messages}"

    def _wait(self, store: Store, place: str, arrivals: list[str], is_over: Callable[[], bool]) -> bool:
        for _ in _pauses():
            if store.check([place]):
                break
            if store.check(arrivals):
                return _decide(store, place, MET)
            if is_over():
                return _decide(store, place, MISSED)
        return store.get(place) == MET.encode()


def _pauses() -> Iterator[float]:
    """Yields at once, and then after ever longer pauses."""
    pause = FIRST_PAUSE
    while True:
        yield pause
        time.sleep(pause)
        pause = min(1.5 * pause, LONGEST_PAUSE)


def _gone(error: Exception, index: int, what: str, is_interrupted: Callable[[], bool] | None) -> MissingRanksError:
    message = GONE.format(index=index, what=what, error=str(error).partition("\n")[0])
    return MissingRanksError(message, is_interrupted=bool(is_interrupted and is_interrupted()))


def _limits(start: float, max_seconds: float | None, is_interrupted: Callable[[], bool] | None) -> Callable[[], bool]:
    interrupted_at: list[float] = []

    def is_over() -> bool:
        now = time.monotonic()
        if is_interrupted is not None and is_interrupted():
            interrupted_at.append(now)
        if interrupted_at and now - interrupted_at[0] > INTERRUPTED_SECONDS:
            return True
        return max_seconds is not None and now - start > max_seconds

    return is_over


def _or_missed(is_over: Callable[[], bool], store: Store, misses: str) -> Callable[[], bool]:
    return lambda: store.check([misses]) or is_over()


def _decide(store: Store, place: str, outcome: str) -> bool:
    """Sets the outcome unless another rank has; returns whether the ranks have met."""
    return store.compare_set(place, "", outcome) == MET.encode()


def _delete(store: Store, key: str) -> None:
    try:
        store.delete_key(key)
    except RuntimeError:  # file stores cannot delete
        return


def ranks_text(ranks: Sequence[int]) -> str:
    """Returns the names of some ranks.

    Example:
        >>> ranks_text([1]), ranks_text([0, 2, 3]), ranks_text([])
        ('rank 1', 'ranks 0, 2 and 3', 'the other ranks')
    """
    if not ranks:
        return "the other ranks"
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    return f"ranks {', '.join(map(str, ranks[:-1]))} and {ranks[-1]}"


def shared_store() -> Store | None:
    """Returns the store of the default process group; None if torch gives no access to it."""
    find = getattr(torch.distributed.distributed_c10d, "_get_default_store", None)  # there is no public access
    if find is None or not torch.distributed.is_initialized():
        return None
    store: Store = find()
    return store


PROCESS = Meetings()
"""The meetings of this process."""
