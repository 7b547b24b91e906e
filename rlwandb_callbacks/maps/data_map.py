"""Map of a data set: a sample of its states and state-action pairs in the plane, and what is known of each."""

from __future__ import annotations

import contextlib
import json
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.action_spec import ActionSpec, ContinuousActions, DiscreteActions, OtherActions
from rlwandb_callbacks.core.episode import Floats
from rlwandb_callbacks.core.files import atomic_write
from rlwandb_callbacks.core.transitions import Transitions
from rlwandb_callbacks.maps.features import Features, Scaler, action_features, evenly_spaced, finite_rows, fit_scaler
from rlwandb_callbacks.maps.ood_distance import ReferenceStates, measure_reference
from rlwandb_callbacks.maps.tsne import SINGLE_POINT, lay_out

MAX_OBSERVATION_COLUMNS = 8
MAX_REFERENCE_ROWS = 10_000
ROW_ARRAYS = ("observations", "actions", "rewards", "rows", "episodes", "steps", "lengths", "returns")
# NotImplementedError, of an unknown compression, is a RuntimeError.
DAMAGE_ERRORS = (OSError, EOFError, KeyError, RuntimeError, TypeError, ValueError, zipfile.BadZipFile, zlib.error)
StageProgress: TypeAlias = Callable[[str, float], None]
"""Is called with the name of a stage and the fraction of it that is done."""


@dataclass(frozen=True, kw_only=True)
class DataMap:
    """A sample of a data set in the plane.

    Args:
        states: Shape ``[K, 2]``: positions of the states.
        state_actions: Shape ``[K, 2]``: positions of states with the actions taken there; this layout started from the
            layout of the states.
        transitions: The K rows, with the first eight numbers of each observation: ``[K, ≤ 8]``.
        total: Number of transitions in the whole data set.
        method: How the positions were computed, in words.
        notes: Notes for readers of the pictures.
        features: Features of the states that others are compared with, ``[R, F]``: at most 10,000, evenly spaced.
        warnings: What looks wrong with the data, one sentence each.
    """

    states: Floats
    state_actions: Floats
    transitions: Transitions
    total: int
    name: str
    method: str
    notes: tuple[str, ...]
    scaler: Scaler
    features: Features
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.states)

    @property
    def size_text(self) -> str:
        """How much of the data set is shown."""
        return f"{len(self):,} of {self.total:,} transitions"

    @property
    def reference_rows(self) -> NDArray[np.int64]:
        """Rows of the map that ``features`` belong to, ``[R]``."""
        return evenly_spaced(len(self), MAX_REFERENCE_ROWS)

    @cached_property
    def reference(self) -> ReferenceStates:
        """The states that others are compared with; measured at the first use."""
        return measure_reference(self.features, self.transitions.episodes[self.reference_rows])


def make_map(
    sample: Transitions,
    *,
    total: int,
    name: str,
    method: str,
    engine: str,
    perplexity: float,
    seed: int,
    progress: StageProgress | None = None,
) -> DataMap:
    """Lays out a sample of a data set of ``total`` transitions; see :func:`lay_out` for the settings.

    Raises:
        ValueError: If no row is finite.
    """
    finite = finite_rows(sample.observations, sample.actions, sample.rewards)
    if not finite.any():
        raise ValueError(
            f"None of the {len(sample):,} transitions drawn from {name} has only finite numbers, so that no map can be "
            "made. Check the observations, actions and rewards of the data set for NaN and infinity."
        )
    rows = select_rows(sample, finite)
    scaler = fit_scaler(rows.observations, seed=seed)
    features = scaler.features(rows.observations)
    settings: dict[str, Any] = {"method": method, "engine": engine, "perplexity": perplexity, "seed": seed}
    states = lay_out(features, **settings, progress=progress and partial(progress, "states"))
    pairs = np.concatenate([features, action_features(rows.actions, rows.action_spec)], axis=1)
    start = None if states.method == SINGLE_POINT else states.points
    report = progress and partial(progress, "states with actions")
    state_actions = lay_out(pairs, **settings, start=start, progress=report)
    first_columns = rows.observations.reshape(len(rows), -1)[:, :MAX_OBSERVATION_COLUMNS]
    dropped = len(sample) - len(rows)
    notes = (f"{dropped:,} with NaN or infinite numbers left out",) if dropped else ()
    return DataMap(
        states=states.points,
        state_actions=state_actions.points,
        transitions=replace(rows, observations=first_columns.astype(np.float32)),
        total=total,
        name=name,
        method=states.method,
        notes=(*notes, *(f"states: {note}" for note in states.notes)),
        scaler=scaler,
        features=features[evenly_spaced(len(features), MAX_REFERENCE_ROWS)],
    )


def select_rows(transitions: Transitions, chosen: NDArray[np.generic]) -> Transitions:
    """Returns some of K rows, chosen by their indices or by a mask of shape ``[K]``."""
    return replace(transitions, **{name: getattr(transitions, name)[chosen] for name in ROW_ARRAYS})


def save_map(file: Path, data_map: DataMap) -> None:
    """Writes a map to a file that no reader ever sees unfinished.

    An unwritable folder or a full disk is no error: the next run makes the map again.
    """
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as unfinished, unfinished.open("wb") as stream:
            np.savez_compressed(stream, **to_arrays(data_map))


def load_map(file: Path) -> DataMap | None:
    """Reads a map; returns None if the file is missing or damaged."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return from_arrays(dict(arrays))
    except DAMAGE_ERRORS:
        return None


def to_arrays(data_map: DataMap) -> dict[str, Any]:
    """Returns a map as plain arrays, for :func:`from_arrays`."""
    scaler, spec = data_map.scaler, data_map.transitions.action_spec
    metadata: dict[str, Any] = {
        name: getattr(data_map, name) for name in ("total", "name", "method", "notes", "warnings")
    }
    metadata["shape"] = scaler.shape
    metadata["action_names"] = spec.names if isinstance(spec, DiscreteActions) else None
    metadata["first_action"] = spec.first if isinstance(spec, DiscreteActions) else 0
    return {
        "metadata": np.array(json.dumps(metadata)),
        **{name: getattr(data_map, name) for name in ("states", "state_actions", "features")},
        **{name: np.asarray(getattr(data_map.transitions, name)) for name in ROW_ARRAYS},
        **({"low": spec.low, "high": spec.high} if isinstance(spec, ContinuousActions) else {}),
        "center": scaler.center,
        "scale": scaler.scale,
        **({} if scaler.components is None else {"components": scaler.components}),
    }


def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> DataMap:
    """Makes a map from arrays of :func:`to_arrays`; raises one of ``DAMAGE_ERRORS`` if they are others."""
    metadata = json.loads(str(arrays["metadata"]))
    spec: ActionSpec = OtherActions()
    if metadata["action_names"] is not None:
        spec = DiscreteActions(tuple(metadata["action_names"]), metadata["first_action"])
    elif "low" in arrays:
        spec = ContinuousActions(arrays["low"], arrays["high"])
    shape, components = tuple(metadata["shape"]), arrays.get("components")
    return DataMap(
        states=arrays["states"],
        state_actions=arrays["state_actions"],
        features=arrays["features"],
        transitions=Transitions(**{name: arrays[name] for name in ROW_ARRAYS}, action_spec=spec),
        scaler=Scaler(shape=shape, center=arrays["center"], scale=arrays["scale"], components=components),
        notes=tuple(metadata["notes"]),
        warnings=tuple(metadata["warnings"]),
        **{name: metadata[name] for name in ("total", "name", "method")},
    )
