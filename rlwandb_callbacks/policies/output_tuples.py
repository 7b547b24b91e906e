"""Roles of the entries of tuples that a policy outputs: by their names if they have some, else by their shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import Space, spaces
from torch.distributions import Distribution

from rlwandb_callbacks.core.episode import Floats
from rlwandb_callbacks.policies.output_tensors import is_array, to_numpy

Q_KEYS = ("q_values", "action_value", "action_values", "q_value")
CHOSEN_Q_KEYS = ("state_action_value", "chosen_action_value", "q_value", "action_value")
VALUE_KEYS = ("value", "state_value", "values")
DISTRIBUTION_KEYS = ("distribution", "dist", "pi")
MEAN_ACTION_KEYS = ("mean_actions", "mean_action")
MEAN_KEYS = ("loc", "mean", "mu", *MEAN_ACTION_KEYS)
STD_KEYS = ("scale", "std", "stddev", "sigma")
LOG_STD_KEYS = ("log_std", "log_scale", "log_sigma")
ACTION_KEYS = ("action", "actions")
MODE_KEYS = (*MEAN_ACTION_KEYS, "mode", "squashed_mu")  # deterministic actions, also beside samples
NET_OUTPUT_KEY = "net_output"  # of skrl: logits or probabilities
SCORE_KEYS = (*Q_KEYS, "probs", "logits", NET_OUTPUT_KEY, *DISTRIBUTION_KEYS)
_READ_KEYS = {*SCORE_KEYS, *ACTION_KEYS, *MODE_KEYS}


@dataclass(frozen=True)
class TupleRoles:
    """Positions of entries in a tuple that begins with a sample of the actions; None if not certain.

    Args:
        mean: Position of the most likely action, such as in ``(action, log_prob, mean)``.
        value: Position of V(s), as in ``(action, log_prob, entropy, value)``.
    """

    mean: int | None = None
    value: int | None = None

    def fit(self, output: Sequence[Any]) -> bool:
        """Returns whether the tuple has the entries."""
        positions = [each for each in (self.mean, self.value) if each is not None]
        return bool(positions) and len(output) > max(positions)


NO_ROLES = TupleRoles()


def named_entries(output: Any) -> Mapping[str, Any] | None:
    """Returns the fields of a named tuple as a mapping; None if their names are not those of a mapping's entries."""
    fields = set(output._fields)
    has_gaussian = not fields.isdisjoint(MEAN_KEYS) and not fields.isdisjoint((*STD_KEYS, *LOG_STD_KEYS))
    return output._asdict() if has_gaussian or not fields.isdisjoint(_READ_KEYS) else None


def has_gaussian_shapes(mean: Any, further: Sequence[Any], shape: tuple[int, ...]) -> bool:
    """Returns whether a tuple begins with arrays of the shapes of a mean, ``shape``, and of a standard deviation.

    The standard deviation has the shape of the mean, that of one action, or is one number for each state or for all.
    """
    if not further or not (_is_float(mean) and _is_float(further[0])) or tuple(mean.shape) != shape:
        return False
    return tuple(further[0].shape) in {shape, shape[1:], (1, *shape[1:])}


def state_value(scores: Any, further: Sequence[Any], space: Space[Any], batch_size: int) -> Floats | None:
    """Returns V(s), shape ``[B]``, from the entries of a tuple that follow its scores; None if it is not certain.

    It is the only floating-point tensor ``[B]`` or ``[B, 1]`` after logits, a distribution or the mean of an action; a
    repetition of the action before it does not count. It is not certain after integers, or if another entry has the
    shape of the action: the tensor may then be a log-probability. Nor is it beside a one-dimensional mean, where it may
    be the logarithm of a standard deviation.
    """
    if not isinstance(scores, Distribution) and not _is_float(scores):
        return None
    action_shape = (batch_size, *space.shape) if isinstance(space, spaces.Box) else None
    is_action = action_shape is not None and not isinstance(scores, Distribution)
    if is_action and any(is_array(entry) and tuple(entry.shape) == action_shape for entry in further):
        return None
    shapes = {(batch_size,), (batch_size, 1)}
    if action_shape is not None and action_shape[1:] == (batch_size,):
        shapes.remove((batch_size,))  # may be one number for each dimension of the action
    found = [entry for entry in further if _is_float(entry) and tuple(entry.shape) in shapes]
    if len(found) > 1 and tuple(found[0].shape) == action_shape:  # a repetition of the action
        found = found[1:]
    return np.asarray(to_numpy(found[0]).astype(np.float64).reshape(batch_size)) if len(found) == 1 else None


def _is_float(entry: Any) -> bool:
    return is_array(entry) and (
        entry.is_floating_point() if hasattr(entry, "is_floating_point") else entry.dtype.kind == "f"
    )
