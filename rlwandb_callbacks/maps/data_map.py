"""A sample of a data set on a map: where its states and state-action pairs lie, and what is known of each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.action_spec import ActionSpec, ContinuousActions, DiscreteActions, OtherActions
from rlwandb_callbacks.core.episode import Floats
from rlwandb_callbacks.core.transitions import Transitions
from rlwandb_callbacks.maps.features import Scaler, action_features, finite_rows, fit_scaler
from rlwandb_callbacks.maps.layout import lay_out
from rlwandb_callbacks.maps.ood_distance import Reference, make_reference

SHOWN_COLUMNS = 8
StageProgress: TypeAlias = Callable[[str, float], None]


@dataclass(frozen=True, kw_only=True)
class DataMap:
    """A sample of a data set, laid out.

    Args:
        states: Shape ``[K, 2]``: places of the states.
        state_actions: Shape ``[K, 2]``: places of states with the actions taken there, on a map that began as the
            states'.
        transitions: The K rows, of whose observations the first eight numbers are kept: ``[K, ≤ 8]``.
        total: Transitions of the whole data set.
        name: Of the data set.
        how: How the places were found, in words.
        notes: What a reader of the pictures must know.
        warnings: What looks wrong with the data, a sentence each.
        scaler: Maps observations to features.
        reference: The states that others are compared with.
    """

    states: Floats
    state_actions: Floats
    transitions: Transitions
    total: int
    name: str
    how: str
    notes: tuple[str, ...]
    scaler: Scaler
    reference: Reference
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.states)

    @property
    def size_text(self) -> str:
        """How much of the data set is shown."""
        return f"{len(self):,} of {self.total:,} transitions"


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
    """Lays out a sample of a data set.

    Args:
        sample: Of the data set.
        total: Transitions of the whole data set.
        name: Of the data set.
        method: ``tsne`` or ``pca``.
        engine: ``opentsne`` or ``sklearn``.
        perplexity: Of t-SNE.
        seed: Of everything that is drawn.
        progress: Called with the name of a stage and the share of it that is done.

    Raises:
        ValueError: If no row is finite.
    """
    finite = finite_rows(sample.observations, sample.actions, sample.rewards)
    if not finite.any():
        raise ValueError(
            f"None of the {len(sample):,} transitions drawn from {name} has only finite numbers, so there is nothing "
            "to lay out."
        )
    rows = select_rows(sample, finite)
    scaler = fit_scaler(rows.observations, seed=seed)
    observed = scaler.features(rows.observations)
    settings: dict[str, Any] = {"method": method, "engine": engine, "perplexity": perplexity, "seed": seed}
    states = lay_out(observed, **settings, progress=_stage(progress, "states"))
    pairs = np.concatenate([observed, action_features(rows.actions, rows.action_spec)], axis=1)
    start = states.points if np.ptp(states.points) > 0 and states.how != "one place" else None
    state_actions = lay_out(pairs, **settings, start=start, progress=_stage(progress, "states with actions"))
    dropped = len(sample) - len(rows)
    notes = (f"{dropped:,} with NaN or infinite numbers left out",) if dropped else ()
    return DataMap(
        states=states.points,
        state_actions=state_actions.points,
        transitions=replace(rows, observations=_shown(rows.observations)),
        total=total,
        name=name,
        how=states.how,
        notes=(*notes, *(f"states: {note}" for note in states.notes)),
        scaler=scaler,
        reference=make_reference(observed, rows.episodes),
    )


def _shown(observations: NDArray[np.generic]) -> NDArray[np.float32]:
    return observations.reshape(len(observations), -1)[:, :SHOWN_COLUMNS].astype(np.float32)


def _stage(progress: StageProgress | None, name: str) -> Callable[[float], None] | None:
    return None if progress is None else lambda share: progress(name, share)


def select_rows(transitions: Transitions, chosen: NDArray[np.generic]) -> Transitions:
    """Some of the rows.

    Args:
        transitions: K of them.
        chosen: Indices, or a mask of shape ``[K]``.
    """
    names = ("observations", "actions", "rewards", "rows", "episodes", "steps", "lengths", "returns")
    return replace(transitions, **{name: getattr(transitions, name)[chosen] for name in names})


ROW_ARRAYS = ("actions", "rewards", "rows", "episodes", "steps", "lengths", "returns", "observations")


def arrays_of(data_map: DataMap) -> dict[str, NDArray[Any]]:
    """A map as plain arrays, to be kept in a file; see :func:`map_of`."""
    scaler, reference, spec = data_map.scaler, data_map.reference, data_map.transitions.action_spec
    words = {
        "total": data_map.total,
        "name": data_map.name,
        "how": data_map.how,
        "notes": data_map.notes,
        "warnings": data_map.warnings,
        "shape": scaler.shape,
        "action_names": spec.names if isinstance(spec, DiscreteActions) else None,
        "first_action": spec.first if isinstance(spec, DiscreteActions) else 0,
    }
    bounds = {"low": spec.low, "high": spec.high} if isinstance(spec, ContinuousActions) else {}
    return {
        "words": np.array(json.dumps(words)),
        "states": data_map.states,
        "state_actions": data_map.state_actions,
        **{name: np.asarray(getattr(data_map.transitions, name)) for name in ROW_ARRAYS},
        **{name: np.asarray(bound) for name, bound in bounds.items()},
        "center": scaler.center,
        "scale": scaler.scale,
        **({} if scaler.components is None else {"components": scaler.components}),
        "reference_rows": reference.rows,
        "reference_features": reference.features,
        "own_distances": reference.own_distances,
        "resolution": np.array(reference.resolution),
    }


def map_of(arrays: Mapping[str, NDArray[Any]]) -> DataMap:
    """Makes a map of :func:`arrays_of`.

    Raises:
        KeyError: If an array is missing.
        ValueError: If arrays do not fit together.
    """
    words = json.loads(str(arrays["words"]))
    transitions = Transitions(**{name: arrays[name] for name in ROW_ARRAYS}, action_spec=_spec(arrays, words))
    return DataMap(
        states=arrays["states"],
        state_actions=arrays["state_actions"],
        transitions=transitions,
        total=words["total"],
        name=words["name"],
        how=words["how"],
        notes=tuple(words["notes"]),
        warnings=tuple(words["warnings"]),
        scaler=Scaler(
            shape=tuple(words["shape"]),
            center=arrays["center"],
            scale=arrays["scale"],
            components=arrays.get("components"),
        ),
        reference=Reference(
            rows=arrays["reference_rows"],
            features=arrays["reference_features"],
            own_distances=arrays["own_distances"],
            resolution=float(arrays["resolution"]),
        ),
    )


def _spec(arrays: Mapping[str, NDArray[Any]], words: Mapping[str, Any]) -> ActionSpec:
    if words["action_names"] is not None:
        return DiscreteActions(tuple(words["action_names"]), words["first_action"])
    return ContinuousActions(arrays["low"], arrays["high"]) if "low" in arrays else OtherActions()
