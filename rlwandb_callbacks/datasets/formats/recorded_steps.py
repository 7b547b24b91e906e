"""Steps that RLlib recorded: rows that were written again are dropped, and missing ones are reported.

With ``output_write_episodes=False``, RLlib (ray 2.60) writes all earlier steps again with each sampling, unless
``output_max_rows_per_file`` is set, where steps are lost. Steps of several environments alternate in chunks. The id of
its episode, ``eps_id``, is beside each step, and its observation is the next observation of the step before it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.datasets.columns import Rows
from rlwandb_callbacks.datasets.dataset import OfflineDataset
from rlwandb_callbacks.datasets.formats.field_names import NEXT_OBSERVATIONS, find_fields, has_required_fields
from rlwandb_callbacks.datasets.formats.memory import as_array, open_mapping
from rlwandb_callbacks.errors import DatasetError

_ID = "eps_id"
_ENDS = ("terminals", "timeouts", "dones")
_AGENTS = ("agent_id", "agent_index")
_MIN_CHAINED = 0.25  # the part of neighboring steps of an episode that have the same observation between them


def is_recording(keys: Sequence[str]) -> bool:
    """Returns whether steps have the id of their episode as RLlib names it, and their next observation."""
    names = set(keys)
    return _ID in names and not names.isdisjoint(NEXT_OBSERVATIONS) and has_required_fields(names)


def recorded_columns(source: Any) -> dict[str, Any] | None:
    """Returns the columns of recorded steps; None of other data.

    Args:
        source: A mapping of columns; or a list or a map-style data set of steps.
    """
    if isinstance(source, Mapping):
        return dict(source) if is_recording(list(map(str, source))) and _is_of_one_agent(source) else None
    first = source[0] if len(source) else None
    if not isinstance(first, Mapping) or not is_recording(list(map(str, first))):
        return None
    rows = [source[index] for index in range(len(source))]
    if any(not isinstance(row, Mapping) or row.keys() != first.keys() for row in rows):
        return None
    columns = {key: _column([row[key] for row in rows]) for key in first}
    return columns if _is_of_one_agent(columns) else None


def _is_of_one_agent(columns: Mapping[str, Any]) -> bool:
    return all(len(set(map(str, columns[key]))) <= 1 for key in _AGENTS if key in columns)


def _column(values: list[Any]) -> Any:
    if isinstance(values[0], Mapping):
        return {key: _column([value[key] for value in values]) for key in values[0]}
    return values


def open_recording(columns: Mapping[str, Any], name: str) -> OfflineDataset:
    """Opens the columns of recorded steps, without those that were written again.

    Raises:
        DatasetError: If observations are compressed, or columns differ in length.
    """
    fields = find_fields(columns)
    after = next(key for key in NEXT_OBSERVATIONS if key in columns)
    read = {key: _arrays(columns[key], f"{name}: {key}") for key in (*fields.values(), after)}
    _require_readable(read, name)
    steps = _steps_of(read, fields, after)
    if not steps.are_chained:  # such as next observations that are scaled otherwise
        return open_mapping(columns, name)
    found = _ordered(steps, marks_time_limits="timeouts" in fields)
    ordered = {key: _picked(value, found.rows) for key, value in read.items()}
    return open_mapping(dict.fromkeys(columns) | ordered, name, warnings=found.warnings)


def _arrays(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return {key: _arrays(inner, f"{name}: {key}") for key, inner in value.items()}
    return as_array(value, name)


def _picked(value: Any, rows: Rows) -> Any:
    return {key: _picked(inner, rows) for key, inner in value.items()} if isinstance(value, dict) else value[rows]


def _leaves(value: Any) -> Iterator[NDArray[Any]]:
    if isinstance(value, dict):
        for key in sorted(value):
            yield from _leaves(value[key])
    else:
        yield value


def _require_readable(read: Mapping[str, Any], name: str) -> None:
    shapes = {key: array.shape for key, value in read.items() for array in _leaves(value)}
    if len({shape[:1] for shape in shapes.values()}) > 1 or () in shapes.values():
        found = ", ".join(f"{key} {shape}" for key, shape in shapes.items())
        raise DatasetError(f"{name}: arrays of unequal length: {found}. Allowed is one row per transition in each.")
    packed = [key for key, value in read.items() if key != _ID and any(a.dtype.kind in "SU" for a in _leaves(value))]
    if packed:
        raise DatasetError(
            f"{name}: {', '.join(packed)} hold text: RLlib compresses them. Decode each, if you trust the files, as "
            "code in them is run: from ray.rllib.utils.compression import unpack_if_needed; frame[name] = "
            "frame[name].map(unpack_if_needed). Or record with output_compress_columns=[]."
        )


def _steps_of(read: Mapping[str, Any], fields: Mapping[str, str], after: str) -> _Steps:
    now, following = _keys(read[fields["observations"]]), _keys(read[after], like=read[fields["observations"]])
    ends = [read[fields[mark]].reshape(len(now)).astype(bool) for mark in _ENDS if mark in fields]
    ended = np.any([np.zeros(len(now), dtype=bool), *ends], axis=0)
    return _Steps(ids=read[_ID], now=now, following=following, whole=_keys(dict(read)), ended=ended)


def _keys(value: Any, like: Any = None) -> NDArray[np.int64]:
    """Returns a number for each row, equal for equal rows, also of another dtype than ``like`` has."""
    dtypes = [array.dtype for array in _leaves(value if like is None else like)]
    arrays = [np.ascontiguousarray(a.astype(dtype)) for a, dtype in zip(_leaves(value), dtypes, strict=False)]
    rows = (hash(tuple(array[row].tobytes() for array in arrays)) for row in range(len(arrays[0])))
    return np.fromiter(rows, dtype=np.int64, count=len(arrays[0]))


@dataclass(frozen=True, kw_only=True)
class RecordedSteps:
    """Which rows of a recording are its steps.

    Args:
        rows: Shape ``[K]``: the rows in the order of time, one episode after the other.
        warnings: What was left out and what is missing, a sentence each.
    """

    rows: Rows
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Steps:
    """Recorded rows in the order of the files, each of shape ``[N]``.

    Args:
        ids: Ids of episodes.
        now: A number for each observation.
        following: A number for each next observation.
        whole: A number for each row.
        ended: Whether an end is marked.
    """

    ids: NDArray[Any]
    now: NDArray[np.int64]
    following: NDArray[np.int64]
    whole: NDArray[np.int64]
    ended: NDArray[np.bool_]

    def follows(self, row: int, other: int) -> bool:
        """Returns whether a row may be the step after another."""
        return bool(not self.ended[other] and self.following[other] == self.now[row])

    @property
    def are_chained(self) -> bool:
        """Whether next observations are those of the next step, so that they tell which step is the next."""
        inside = self._is_inside()
        return not inside.any() or bool(self._is_followed()[inside].mean() >= _MIN_CHAINED)

    def _is_inside(self) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = (self.ids[1:] == self.ids[:-1]) & ~self.ended[:-1]
        return inside

    def _is_followed(self) -> NDArray[np.bool_]:
        followed: NDArray[np.bool_] = self.following[:-1] == self.now[1:]
        return followed

    def chunks(self) -> Iterator[tuple[int, int]]:
        """Yields ranges of rows that follow each other in one episode."""
        edges = [0, *(np.flatnonzero(~(self._is_inside() & self._is_followed())) + 1).tolist(), len(self.now)]
        yield from itertools.pairwise(edges)


@dataclass
class _Episode:
    """The steps of one episode so far, and the place in them up to which they were read last."""

    rows: list[int] = field(default_factory=list)
    place: int = 0
    gaps: int = 0

    def add(self, steps: _Steps, low: int, high: int) -> int:
        """Adds a chunk of steps; returns the number of those that it holds already."""
        for start in dict.fromkeys((self.place, 0)):
            known = self.rows[start : start + high - low]
            if known and (steps.whole[known] == steps.whole[low : low + len(known)]).all():
                self.rows.extend(range(low + len(known), high))
                self.place = start + high - low
                return len(known)
        if self.rows and not steps.follows(low, self.rows[-1]):
            self.gaps += 1
        self.rows.extend(range(low, high))
        self.place = len(self.rows)
        return 0


def _ordered(steps: _Steps, *, marks_time_limits: bool) -> RecordedSteps:
    episodes: dict[Any, _Episode] = {}
    repeated = 0
    for low, high in steps.chunks():
        episode = episodes.setdefault(steps.ids[low].item(), _Episode())
        if episode.place == len(episode.rows) and episode.rows and steps.follows(low, episode.rows[-1]):
            episode.rows.extend(range(low, high))
            episode.place = len(episode.rows)
        else:
            repeated += episode.add(steps, low, high)
    rows = np.array([row for episode in episodes.values() for row in episode.rows], dtype=np.int64)
    last_end = max(rows[steps.ended[rows]], default=-1)
    # In each sampling, finished episodes come before open ones, which go on in the next.
    open_ends = (not steps.ended[episode.rows[-1]] and episode.rows[-1] < last_end for episode in episodes.values())
    lost = sum(map(bool, open_ends)) if marks_time_limits else 0
    warnings = _warnings(list(episodes.values()), repeated, lost, len(steps.now))
    return RecordedSteps(rows=rows, warnings=tuple(warnings))


def _warnings(episodes: list[_Episode], repeated: int, lost: int, total: int) -> Iterator[str]:
    if repeated:
        yield (
            f"{repeated:,} of {total:,} rows were left out, as they hold steps of other rows once more: RLlib (ray "
            "2.60) writes all earlier steps again with each sampling."
        )
    gaps = sum(episode.gaps for episode in episodes)
    places = [f"at {gaps:,} {'places' if gaps > 1 else 'place'} within episodes"] if gaps else []
    if lost:
        ends = "ends" if lost > 1 else "end"
        places.append(f"at the {ends} of {lost:,} of {len(episodes):,} episodes, where no mark is")
    if places:
        joined = "" if gaps else ", or the last episodes of several workers were joined"
        yield (
            f"Steps are missing {' and '.join(places)}: returns and lengths are too small there. RLlib (ray 2.60) "
            "loses steps where output_max_rows_per_file is set: record without it. Else the files are not in order"
            f"{joined}."
        )
