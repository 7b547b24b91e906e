"""Finds the most likely action and V(s) in tuples without names that begin with a sample of the actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces
from torch.overrides import TorchFunctionMode

from rlwandb_callbacks.core.episode import Floats
from rlwandb_callbacks.policies.output_tensors import is_array, to_numpy
from rlwandb_callbacks.policies.output_tuples import NO_ROLES, TupleRoles
from rlwandb_callbacks.policies.questions import Questions

SEEDS = range(200, 224)
NOISE_BATCHES = 3  # one of each scale
ENTROPY_STANDARD_ERRORS = 5
_Entries = list[Floats | None]


class _WithoutNoise(TorchFunctionMode):
    """Lets samples of Gaussians be their means inside a block."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        drawn = func(*args, **kwargs)
        if func in (torch.randn, torch.randn_like):
            return torch.zeros_like(drawn)
        if func is torch.normal:
            return torch.zeros_like(drawn) + kwargs.get("mean", args[0] if args else 0.0)
        if func is torch.Tensor.normal_:
            return drawn.fill_(kwargs.get("mean", args[1] if len(args) > 1 else 0.0))
        return drawn


def tuple_roles(questions: Questions, last_output: Callable[[], Any], space: Space[Any]) -> TupleRoles:
    """Asks a policy that samples several times, and compares the entries of its tuples.

    Args:
        questions: Asks the policy.
        last_output: Returns the output of the policy that was read last.
        space: Action space of one environment.
    """
    first = last_output()
    if not isinstance(first, tuple | list) or hasattr(first, "_fields") or len(first) < 3 or not is_array(first[0]):
        return NO_ROLES
    samples = [_ask(questions, last_output, questions.observations, seed) for seed in SEEDS]
    columns = [_column(samples, index) for index in range(min(map(len, samples)))]
    fixed = [index for index, column in enumerate(columns) if index > 0 and _is_fixed(column)]
    mean = _mean_of(questions, last_output, space, fixed) if isinstance(space, spaces.Box) else None
    shapes = {(questions.batch_size,), (questions.batch_size, 1)}
    per_state = [index for index in fixed if index != mean and _shape_of(columns[index]) in shapes]
    return TupleRoles(mean, _value_of(columns, per_state, questions.batch_size))


def _mean_of(
    questions: Questions, last_output: Callable[[], Any], space: spaces.Box, candidates: list[int]
) -> int | None:
    """Returns the position of the entry that the action is if no noise is drawn, also for unusual observations."""
    shape = (questions.batch_size, *space.shape)
    batches = [questions.observations, *questions.noise(wide=True)[:NOISE_BATCHES]]
    try:
        with _WithoutNoise():
            entries = [_ask(questions, last_output, batch, SEEDS[0]) for batch in batches]
    except Exception:  # noqa: BLE001  # such observations do not occur, or the policy draws in another way
        return None
    found = [
        index
        for index in candidates
        if all(_are_equal(each[0], each[index], questions.tolerance, shape) for each in entries)
    ]
    return found[0] if found else None


def _are_equal(action: Floats | None, candidate: Floats | None, tolerance: float, shape: tuple[int, ...]) -> bool:
    if action is None or candidate is None or not action.shape == candidate.shape == shape:
        return False
    return bool(np.allclose(action, candidate, rtol=10 * tolerance, atol=tolerance))


def _ask(questions: Questions, last_output: Callable[[], Any], batch: Any, seed: int) -> _Entries:
    questions.ask(batch, seed=seed)
    return [to_numpy(entry).astype(np.float64) if is_array(entry) else None for entry in last_output()]


def _column(samples: list[_Entries], index: int) -> Floats | None:
    """Returns an entry of all samples, ``[samples, ...]``; None if it is no array of the same shape in each."""
    entries = [each[index] for each in samples]
    arrays = [entry for entry in entries if entry is not None]
    is_stackable = len(arrays) == len(entries) and len({entry.shape for entry in arrays}) == 1
    return np.stack(arrays) if is_stackable else None


def _shape_of(column: Floats | None) -> tuple[int, ...]:
    return () if column is None else column.shape[1:]


def _is_fixed(column: Floats | None) -> bool:
    """Returns whether an entry is the same in all samples, up to rounding."""
    return column is not None and bool(np.allclose(column, column[:1], rtol=1e-4, atol=1e-6))


def _value_of(columns: list[Floats | None], per_state: list[int], batch_size: int) -> int | None:
    """Returns the position of V(s) after the log-probability of the sample and the entropy.

    The entropy is the mean of the negative log-probability, and V(s) is not.
    """
    log_prob = columns[1]
    if len(per_state) != 2 or log_prob is None or 1 in per_state or log_prob.shape[1:2] != (batch_size,):
        return None
    surprise = -log_prob.reshape(len(log_prob), batch_size, -1).sum(axis=2)
    error = ENTROPY_STANDARD_ERRORS * surprise.std(axis=0, ddof=1) / np.sqrt(len(surprise)) + 1e-3
    are_entropies = []
    for index in per_state:
        numbers = columns[index]
        assert numbers is not None, "entries per state are arrays"
        are_entropies.append(bool(np.all(np.abs(surprise.mean(axis=0) - numbers[0].reshape(batch_size)) <= error)))
    return per_state[1] if are_entropies == [True, False] else None
