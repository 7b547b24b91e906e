"""State of a recurrent policy: how it is passed and returned, and how single rows of it are reset."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import PolicyStep, row_of, stack_scores
from rlwandb_callbacks.errors import PolicyError
from rlwandb_callbacks.policies.adapters.devices import map_structure

_STATE_NAME = re.compile(
    r"^(?!next_|return_|use_|with_|need_|output_|is_|has_|keep_|reset_|detach_)"
    r"(.*_)?(states?|hiddens?|memory|memories|carry|hxs?|hcs?|h)$",
    re.IGNORECASE,
)
_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)


class StateShapeError(PolicyError):
    """The state of a policy cannot be split into rows."""


@dataclass(frozen=True)
class StateParameter:
    """The parameter in which a policy takes its state.

    Args:
        keyword: Name of the parameter; None if the state is the second positional argument.
        is_named: Whether the name is that of a state.
        is_required: Whether the parameter has no default, so that None must be passed at the first step.
    """

    keyword: str | None
    is_named: bool
    is_required: bool = False

    def call(self, policy: Callable[..., Any], observations: Any, state: Any) -> Any:
        """Calls a policy; omits the state if it is None and not required."""
        if state is None and not self.is_required:
            return policy(observations)
        return policy(observations, state) if self.keyword is None else policy(observations, **{self.keyword: state})

    @staticmethod
    def of(policy: Callable[..., Any]) -> StateParameter | None:
        """Reads the signature of a policy; returns None if it takes observations only."""
        policy = getattr(policy, "_orig_mod", policy)  # torch.compile hides the signature
        try:
            signature = inspect.signature(policy.forward if isinstance(policy, torch.nn.Module) else policy)
        except (TypeError, ValueError):
            return None
        further = list(signature.parameters.values())[1:]
        found = next((each for each in further if _STATE_NAME.match(each.name)), None)
        if found is not None:
            return StateParameter(_keyword(found), is_named=True, is_required=found.default is found.empty)
        if any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values()):
            return StateParameter("state", is_named=False)
        second = next((each for each in further if each.kind is not each.KEYWORD_ONLY), None)
        return None if second is None else StateParameter(_keyword(second), is_named=False)


def _keyword(parameter: inspect.Parameter) -> str | None:
    return None if parameter.kind in _BY_POSITION else parameter.name


def split_state(output: Any, parameter: StateParameter | None) -> tuple[Any, Any]:
    """Separates an output from its state: the entry ``state`` of a mapping, or the last entry of a tuple.

    The last entry of a tuple is a state only if a parameter of the policy has the name of one. ``parameter`` is None
    for a policy that takes observations only; then a mapping with a state raises a PolicyError.
    """
    if isinstance(output, Mapping):
        state = output.get("state")
        is_tensordict = hasattr(output, "batch_size")  # its ``state`` may be an observation
        if state is not None and parameter is None and not is_tensordict:
            raise PolicyError(
                "The policy returned `state`, but takes observations only. Give it a parameter `state=None`, which "
                "receives the state of the previous step, or remove `state` from the output."
            )
        return output, state if parameter is not None else None
    if isinstance(output, tuple) and len(output) > 1 and parameter is not None and parameter.is_named:
        return output[0] if len(output) == 2 else output[:-1], output[-1]
    return output, None


def insert_step(starts: NDArray[np.bool_], fresh: PolicyStep, carried: PolicyStep) -> PolicyStep:
    """Replaces the rows in which an episode starts, the K true entries of ``starts [B]``, by those of a step of K rows.

    Example:
        >>> insert_step(np.array([True, False]), PolicyStep(np.array([1])), PolicyStep(np.array([2, 2]))).actions
        array([1, 2])
    """

    def insert(fresh_rows: Any, carried_rows: Any) -> Any:
        if fresh_rows is None or carried_rows is None:
            return None
        rows = np.array(carried_rows)
        rows[starts] = fresh_rows
        return rows

    scores = None
    if fresh.scores is not None and carried.scores is not None:
        rows = [row_of(carried.scores, row) for row in range(starts.size)]
        for index, row in enumerate(np.flatnonzero(starts)):
            rows[row] = row_of(fresh.scores, index)
        scores = stack_scores(rows)
    return PolicyStep(
        map_structure(insert, fresh.actions, carried.actions),
        scores,
        insert(fresh.values, carried.values),
        insert(fresh.chosen_q, carried.chosen_q),
    )


def join_steps(steps: Sequence[PolicyStep]) -> PolicyStep:
    """Returns steps of one row each as one step.

    Example:
        >>> join_steps([PolicyStep(np.array([1])), PolicyStep(np.array([2]))]).actions
        array([1, 2])
    """

    def join(arrays: Sequence[Any]) -> Any:
        return None if any(array is None for array in arrays) else np.concatenate(arrays)

    scores = [step.scores for step in steps]
    rows = [row_of(each, 0) for each in scores if each is not None]
    return PolicyStep(
        map_structure(lambda *parts: np.concatenate(parts), *[step.actions for step in steps]),
        stack_scores(rows) if len(rows) == len(steps) else None,
        join([step.values for step in steps]),
        join([step.chosen_q for step in steps]),
    )


def insert_state(starts: NDArray[np.bool_], fresh: Any, carried: Any) -> Any:
    """Replaces the rows of a state in which an episode starts by those of a state of K < B rows, like insert_step.

    Both are tensors or arrays in dicts, tuples, lists or a TensorDict of the same structure. Each part may have its
    batch axis at another position: ``[B, H]``, or ``[layers, B, H]`` as in ``torch.nn.LSTM``. It is the only axis in
    which the states differ, with the lengths K and B; otherwise a StateShapeError is raised.

    Example:
        >>> insert_state(np.array([True, False]), torch.zeros(1, 1, 3), torch.ones(1, 2, 3)).tolist()
        [[[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]]
    """

    def insert(carried: Any, fresh: Any) -> Any:
        if carried is None or fresh is None:
            return carried
        axis = _batch_axis(starts, fresh, carried)
        rows = carried.clone() if isinstance(carried, torch.Tensor) else np.array(carried)
        rows[(slice(None),) * axis + (np.flatnonzero(starts),)] = fresh
        return rows

    return carried if fresh is None else map_structure(insert, carried, fresh)


def _batch_axis(starts: NDArray[np.bool_], fresh: Any, carried: Any) -> int:
    small, large = (tuple(getattr(part, "shape", ())) for part in (fresh, carried))
    sizes = [(axis, short, long) for axis, (short, long) in enumerate(zip(small, large, strict=False)) if short != long]
    if len(small) != len(large) or [size[1:] for size in sizes] != [(starts.sum(), starts.size)]:
        raise StateShapeError(
            f"The policy's `state` is {_describe(carried)} for {starts.size} observations after several steps, and "
            f"{_describe(fresh)} for {starts.sum()} after one step. Its parts must be tensors of constant shape with "
            "one axis of the length of the batch, so that one episode can start while others continue."
        )
    return sizes[0][0]


def _describe(part: Any) -> str:
    shape = getattr(part, "shape", None)
    return repr(part) if shape is None else f"a {type(part).__name__} of shape {list(shape)}"
