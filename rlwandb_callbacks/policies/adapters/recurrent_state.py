"""The state of a policy with memory: how it is taken and given, and how single rows of it are begun anew."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import Floats, PolicyStep, row_of, stack_scores
from rlwandb_callbacks.errors import PolicyError

_STATE_NAME = re.compile(
    r"^(?!next_|return_|use_|with_|need_|output_|is_|has_|keep_|reset_|detach_)"
    r"(.*_)?(states?|hiddens?|memory|memories|carry|hxs?|hcs?|h)$",
    re.IGNORECASE,
)
_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)


@dataclass(frozen=True)
class StateParameter:
    """How a policy takes its state.

    Args:
        keyword: The parameter's name; None where the state is the second positional argument.
        is_named: The name says that it is a state.
        is_required: None must be given where there is no state yet.
    """

    keyword: str | None
    is_named: bool
    is_required: bool = False

    def call(self, policy: Callable[..., Any], observations: Any, state: Any) -> Any:
        """Asks a policy; without a state where that is None and not required."""
        if state is None and not self.is_required:
            return policy(observations)
        return policy(observations, state) if self.keyword is None else policy(observations, **{self.keyword: state})

    @staticmethod
    def of(policy: Callable[..., Any]) -> StateParameter | None:
        """Reads the signature of a policy; None where it takes observations only.

        Example:
            >>> StateParameter.of(lambda observations, hidden=None: observations)
            StateParameter(keyword='hidden', is_named=True, is_required=False)
        """
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


def split_answer(answer: Any, parameter: StateParameter | None) -> tuple[Any, Any]:
    """Separates an answer from the state that comes with it: ``state`` of a mapping, or the last entry of a tuple.

    A tuple holds a state only where the policy's signature has a parameter for one.

    Raises:
        PolicyError: If a mapping holds a state that the policy does not take back.
    """
    if isinstance(answer, Mapping):
        state = answer.get("state")
        is_tensordict = hasattr(answer, "batch_size")  # there ``state`` may be an observation that was handed through
        if state is not None and parameter is None and not is_tensordict:
            raise PolicyError(
                "The policy answered `state`, but takes observations only. Give it a parameter `state=None`, which "
                "gets back what it answered at the step before, or leave `state` out of the answer."
            )
        return answer, state if parameter is not None else None
    if isinstance(answer, tuple) and len(answer) > 1 and parameter is not None and parameter.is_named:
        return answer[0] if len(answer) == 2 else answer[:-1], answer[-1]
    return answer, None


def with_rows_begun(begins: NDArray[np.bool_], fresh: PolicyStep, carried: PolicyStep) -> PolicyStep:
    """Takes the rows that begin an episode from one step and the others from another.

    Example:
        >>> first, second = PolicyStep(np.array([1, 1])), PolicyStep(np.array([2, 2]))
        >>> with_rows_begun(np.array([True, False]), first, second).actions
        array([1, 2])
    """
    sources = [fresh if begin else carried for begin in begins]
    scores = [row_of(each.scores, row) for row, each in enumerate(sources) if each.scores is not None]
    return PolicyStep(
        _rows_of(begins, fresh.actions, carried.actions),
        stack_scores(scores),
        _numbers_of(begins, fresh.values, carried.values),
        _numbers_of(begins, fresh.chosen_q, carried.chosen_q),
    )


def _numbers_of(begins: NDArray[np.bool_], fresh: Floats | None, carried: Floats | None) -> Floats | None:
    return None if fresh is None or carried is None else np.where(begins, fresh, carried)


def _rows_of(begins: NDArray[np.bool_], fresh: Any, carried: Any) -> Any:
    if isinstance(fresh, Mapping):
        return {key: _rows_of(begins, fresh[key], carried[key]) for key in fresh}
    if isinstance(fresh, tuple):
        return tuple(_rows_of(begins, *pair) for pair in zip(fresh, carried, strict=True))
    chosen = np.array(carried)
    chosen[begins] = np.asarray(fresh)[begins]
    return chosen


def merged(begins: NDArray[np.bool_], fresh: Any, carried: Any, of_twice_as_many: Any) -> Any:
    """Gives the rows of a state that begin an episode the state of a fresh start; the others keep theirs.

    The axis of rows may be any, and another one in each part: ``[B, H]``, or ``[layers, B, H]`` as ``torch.nn.LSTM``
    has it. It is the one that is longer in the state for a batch of twice the size.

    Args:
        begins: Shape ``[B]``.
        fresh: State after one step from a fresh start: tensors or arrays in dicts, tuples, lists or a TensorDict.
        carried: State after a step from the state before, in the same form.
        of_twice_as_many: State after one step from a fresh start of 2 B rows.

    Raises:
        PolicyError: If a part is not one row per observation, or of another size than from a fresh start.

    Example:
        >>> fresh, carried, doubled = torch.zeros(1, 2, 1), torch.ones(1, 2, 1), torch.zeros(1, 4, 1)
        >>> merged(np.array([True, False]), fresh, carried, doubled).ravel().tolist()
        [0.0, 1.0]
    """
    if fresh is None:
        return carried
    if isinstance(fresh, Mapping):
        return _merged_mapping(begins, fresh, carried, of_twice_as_many)
    if isinstance(fresh, tuple | list):
        entries = [merged(begins, *each) for each in zip(fresh, carried, of_twice_as_many, strict=True)]
        return type(fresh)(*entries) if hasattr(fresh, "_fields") else type(fresh)(entries)
    axis = _axis_of_rows(begins.size, fresh, carried, of_twice_as_many)
    shape = [1] * fresh.ndim
    shape[axis] = begins.size
    if isinstance(fresh, torch.Tensor):
        return torch.where(torch.as_tensor(begins, device=fresh.device).reshape(shape), fresh, carried)
    return np.where(begins.reshape(shape), fresh, carried)


def _merged_mapping(begins: NDArray[np.bool_], fresh: Any, carried: Any, of_twice_as_many: Any) -> Any:
    keys = list(fresh.keys())  # iterating over a TensorDict gives its rows
    parts = {key: merged(begins, fresh[key], carried[key], of_twice_as_many[key]) for key in keys}
    return fresh.clone().update(parts) if hasattr(fresh, "batch_size") else parts


def _axis_of_rows(batch_size: int, fresh: Any, carried: Any, of_twice_as_many: Any) -> int:
    small, same, large = (tuple(getattr(part, "shape", ())) for part in (fresh, carried, of_twice_as_many))
    grown = [axis for axis, (short, long) in enumerate(zip(small, large, strict=False)) if short != long]
    if small != same or len(small) != len(large) or len(grown) != 1 or small[grown[0]] != batch_size:
        raise PolicyError(
            f"The policy's `state` holds {_in_words(fresh)} for {batch_size} observations at the first step, "
            f"{_in_words(carried)} at a later one and {_in_words(of_twice_as_many)} for {2 * batch_size}. Its parts "
            "must be tensors of one size, with one axis along which each observation has a row, so that an episode "
            "can begin while others go on. Bring them to that form, or set evaluation.num_envs to 1 or to as many as "
            "evaluation.episodes."
        )
    return grown[0]


def _in_words(part: Any) -> str:
    shape = getattr(part, "shape", None)
    return repr(part) if shape is None else f"a {type(part).__name__} of shape {list(shape)}"
