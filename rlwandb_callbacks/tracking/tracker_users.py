"""Counts who uses a tracker, as several callbacks may share one that is closed at the end."""

from __future__ import annotations

from collections import Counter

from rlwandb_callbacks.tracking.tracker import Tracker

_num_users: Counter[int] = Counter()  # by the id of a tracker, which lives while it is used


def use_tracker(tracker: Tracker) -> Tracker:
    """Begins a use of a tracker."""
    _num_users[id(tracker)] += 1
    return tracker


def release_tracker(tracker: Tracker) -> None:
    """Ends a use of a tracker; the last one closes it, if it can be closed."""
    _num_users[id(tracker)] -= 1
    if _num_users[id(tracker)] > 0:
        return
    del _num_users[id(tracker)]
    close = getattr(tracker, "close", None)
    if callable(close):
        close()
