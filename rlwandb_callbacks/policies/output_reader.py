"""Reads what a policy answered: tensors, distributions, mappings, tuples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces
from numpy.typing import NDArray
from torch.distributions import Distribution

from rlwandb_callbacks.core.episode import Floats, Gaussian, PolicyStep, Probabilities, QValues, groups_of
from rlwandb_callbacks.errors import PolicyError
from rlwandb_callbacks.policies.output_actions import batch_of_actions, first_outside
from rlwandb_callbacks.policies.output_discrete import Choices, shown_as_probabilities
from rlwandb_callbacks.policies.output_tensors import mode_of, moments_of, softmax, to_numpy

Q_KEYS = ("q_values", "action_value", "action_values", "q_value")
CHOSEN_Q_KEYS = ("state_action_value", "chosen_action_value", "q_value", "action_value")
VALUE_KEYS = ("value", "state_value", "values")
DISTRIBUTION_KEYS = ("distribution", "dist")


@dataclass(frozen=True)
class OutputReader:
    """How answers are read.

    Args:
        action_space: Of one environment.
        wants: ``q_value`` or ``action_probability``; True or False for what the policy gives.
        tensor_means: What a bare tensor ``[B, A]`` holds: ``q_values``, ``logits``, or ``unknown``.
        deterministic: Take the mode of a distribution; otherwise sample.
    """

    action_space: Space[Any]
    wants: bool | str
    tensor_means: str
    deterministic: bool

    def read(self, answer: Any, batch_size: int) -> PolicyStep:
        """Turns an answer for ``batch_size`` states into actions and scores.

        Raises:
            PolicyError: If it cannot be read, or holds an action that the environment does not have; the message says
                what it was and what would do.
        """
        step = self._step(answer, batch_size)
        if step is None:
            raise PolicyError(
                f"The policy answered {describe(answer)} to {batch_size} observations, for {self.action_space}. "
                f"{wish(self.action_space)}"
            )
        outside = first_outside(self.action_space, step.actions)
        if outside is not None:
            space, action = outside
            raise PolicyError(
                f"The policy answered {describe(answer)}, in which {action} is no action of {space}. "
                f"{own_actions(space)} {wish(self.action_space)}"
            )
        has_q_values = any(isinstance(group, QValues) for group in groups_of(step.scores))
        if self.wants == "q_value" and self._choices is not None and not has_q_values:
            raise PolicyError(
                f"action_logger is 'q_value', but the policy answered {describe(answer)}, which holds no q-values. Set "
                "action_logger to 'action_probability' or true, or point evaluation.policy to the q-network."
            )
        return step

    @cached_property
    def _choices(self) -> Choices | None:
        return Choices.of(self.action_space)

    def _step(self, answer: Any, batch_size: int) -> PolicyStep | None:
        if isinstance(answer, PolicyStep):
            return answer if self._is_consistent(answer, batch_size) else None
        if isinstance(answer, Distribution):
            return self._from_distribution(answer, batch_size)
        if isinstance(answer, Mapping):
            return self._from_mapping(answer, batch_size)
        if isinstance(answer, tuple | list):
            return self._from_sequence(answer, batch_size)
        if isinstance(answer, torch.Tensor | np.ndarray):
            return self._from_array(answer, batch_size)
        wrapped = getattr(answer, "distribution", None)  # agents' own classes around torch's, or a list of these
        return None if wrapped is None else self._step(wrapped, batch_size)

    def _is_consistent(self, step: PolicyStep, batch_size: int) -> bool:
        scores, choices = step.scores, self._choices
        if isinstance(scores, Gaussian) and len(scores.mean) != batch_size:
            return False
        shapes = [group.values.shape for group in groups_of(scores)]
        if shapes and choices is not None and shapes != [(batch_size, size) for size in choices.sizes]:
            return False
        if any(shape[0] != batch_size for shape in shapes):
            return False
        per_state = (values for values in (step.values, step.chosen_q) if values is not None)
        return _rows(step.actions) == batch_size and all(np.shape(values) == (batch_size,) for values in per_state)

    def _from_sequence(self, answer: Sequence[Any], batch_size: int) -> PolicyStep | None:
        """One entry for each choice or part of the action; else the first entry that can be read counts."""
        if self._choices is not None and not self._choices.is_single:
            columns = self._choices.columns(answer, batch_size, self._bare_meaning)
            if columns is not None:
                return self._act(self._bare_meaning, columns)
            columns = self._choices.columns_of_distribution(answer, batch_size)
            if columns is not None:
                return self._act("probs", columns)
        whole = self._structured(answer, batch_size)
        if whole is not None:
            return whole
        steps = (self._step(entry, batch_size) for entry in answer)
        return next((step for step in steps if step is not None), None)

    def _structured(self, answer: Any, batch_size: int) -> PolicyStep | None:
        """Actions of ``Dict`` and ``Tuple`` spaces."""
        if not isinstance(self.action_space, spaces.Dict | spaces.Tuple):
            return None
        actions = batch_of_actions(self.action_space, answer, batch_size)
        return None if actions is None else PolicyStep(actions)

    def _from_array(self, answer: torch.Tensor | NDArray[Any], batch_size: int) -> PolicyStep | None:
        if self._choices is not None:
            columns = self._choices.columns(answer, batch_size, self._bare_meaning)
            if columns is not None:
                step = self._act(self._bare_meaning, columns)
                is_anything = self.tensor_means == "unknown" and not self.wants
                return PolicyStep(step.actions) if is_anything else step
        actions = batch_of_actions(self.action_space, answer, batch_size)
        return None if actions is None else PolicyStep(actions)

    @property
    def _bare_meaning(self) -> str:
        """What a bare tensor holds; where nothing tells, q-values of a single choice, and logits of several."""
        if self.tensor_means != "unknown":
            return self.tensor_means
        is_single = self._choices is not None and self._choices.is_single
        return "q_values" if self.wants == "q_value" or (is_single and self.wants in (True, False)) else "logits"

    def _act(self, meaning: str, columns: Sequence[Floats]) -> PolicyStep:
        assert self._choices is not None
        if meaning != "q_values":
            shares = columns if meaning == "probs" else [softmax(column) for column in columns]
            return self._choices.act([Probabilities(share) for share in shares], samples=not self.deterministic)
        scores = [QValues(column) for column in columns]
        step = self._choices.act(scores, samples=False)
        if self.wants != "action_probability":
            return step
        drawn_instead = self._choices.joined([shown_as_probabilities(each) for each in scores])
        return PolicyStep(step.actions, drawn_instead, chosen_q=self._choices.value_of(step.actions, columns))

    def _from_distribution(self, distribution: Distribution, batch_size: int) -> PolicyStep | None:
        if self._choices is not None:
            columns = self._choices.columns_of_distribution(distribution, batch_size)
            if columns is not None:
                return self._act("probs", columns)
            if self._choices.is_single:
                return None
        chosen = mode_of(distribution) if self.deterministic else distribution.sample()
        actions = batch_of_actions(self.action_space, chosen, batch_size)
        if actions is None:
            return None
        return PolicyStep(actions, moments_of(distribution) if isinstance(self.action_space, spaces.Box) else None)

    def _from_mapping(self, answer: Mapping[Any, Any], batch_size: int) -> PolicyStep | None:
        whole = self._structured(answer, batch_size)
        if whole is not None:
            return whole
        step = self._from_named_scores(answer, batch_size)
        given = answer.get("action")
        actions = None if given is None else batch_of_actions(self.action_space, given, batch_size)
        is_drawn_here = actions is None and not self.deterministic
        if actions is None:
            if step is None:
                return None
            actions = step.actions
        chosen_q = self._q_of(actions, answer, batch_size)
        if chosen_q is None and not is_drawn_here:  # else it is Q of another action
            chosen_q = _per_state(answer, CHOSEN_Q_KEYS, batch_size)
        scores, values = None if step is None else step.scores, _per_state(answer, VALUE_KEYS, batch_size)
        return PolicyStep(actions, scores, values, chosen_q)

    def _q_of(self, actions: Any, answer: Mapping[Any, Any], batch_size: int) -> Floats | None:
        q_values = _first(answer, Q_KEYS)
        if self._choices is None or q_values is None:
            return None
        columns = self._choices.columns(_readable(q_values), batch_size, "q_values")
        return None if columns is None else self._choices.value_of(actions, columns)

    def _from_named_scores(self, answer: Mapping[Any, Any], batch_size: int) -> PolicyStep | None:
        if self._choices is not None:
            for meaning, given in self._named_choices(answer):
                columns = self._choices.columns(_readable(given), batch_size, meaning)
                if columns is not None:
                    return self._act(meaning, columns)
        distribution = _first(answer, DISTRIBUTION_KEYS)
        if distribution is not None:
            return self._step(distribution, batch_size)
        return self._from_loc_and_scale(answer, batch_size) if isinstance(self.action_space, spaces.Box) else None

    def _named_choices(self, answer: Mapping[Any, Any]) -> list[tuple[str, Any]]:
        named = {"q_values": _first(answer, Q_KEYS), "probs": answer.get("probs"), "logits": answer.get("logits")}
        has_policy = any(answer.get(key) is not None for key in ("probs", "logits", *DISTRIBUTION_KEYS))
        if self.wants == "action_probability" and has_policy:
            del named["q_values"]
        return [(meaning, given) for meaning, given in named.items() if given is not None]

    def _from_loc_and_scale(self, answer: Mapping[Any, Any], batch_size: int) -> PolicyStep | None:
        if answer.get("loc") is None or answer.get("scale") is None:
            return None
        mean, std = (to_numpy(answer[key]).astype(np.float64) for key in ("loc", "scale"))
        if mean.shape[:1] != (batch_size,):
            return None
        std = np.broadcast_to(std, mean.shape)
        chosen = mean if self.deterministic else torch.normal(torch.tensor(mean), torch.tensor(std))
        actions = batch_of_actions(self.action_space, chosen, batch_size)
        return None if actions is None else PolicyStep(actions, Gaussian(mean, std))


def _rows(actions: Any) -> int:
    """Length of the first axis of actions, also where they are dicts or tuples of arrays."""
    if isinstance(actions, Mapping):
        return _rows(next(iter(actions.values())))
    return _rows(actions[0]) if isinstance(actions, tuple) else len(actions)


def _first(answer: Mapping[Any, Any], keys: Sequence[str]) -> Any:
    return next((answer[key] for key in keys if answer.get(key) is not None), None)


def _readable(given: Any) -> Any:
    """Lists of numbers as an array; lists of tensors, one for each choice, as they are."""
    is_of_arrays = isinstance(given, list | tuple) and all(isinstance(e, torch.Tensor | np.ndarray) for e in given)
    return given if is_of_arrays else to_numpy(given)


def _per_state(answer: Mapping[Any, Any], keys: Sequence[str], batch_size: int) -> NDArray[np.float64] | None:
    """One number per state, ``[B]`` or ``[B, 1]``, under the first of the keys that holds that."""
    for key in keys:
        values = None if answer.get(key) is None else to_numpy(answer[key])
        if values is not None and values.size == batch_size:
            return values.astype(np.float64).reshape(batch_size)
    return None


def own_actions(space: Space[Any]) -> str:
    """Says which integers are the actions of a finite space, and how they differ from positions among scores."""
    choices = Choices.of(space)
    assert choices is not None, "only finite spaces have such actions"
    ranges = dict.fromkeys(
        f"{first} to {first + size - 1}" for first, size in zip(choices.firsts, choices.sizes, strict=True)
    )
    told = f"Integers are the environment's own actions, here from {', from '.join(ranges)}"
    if not any(choices.firsts):
        return f"{told}."
    return (
        f"{told}, and q-values or logits are told apart by their positions, from 0 on: answer those themselves rather "
        "than their argmax, or add the start of the space to it."
    )


def wish(space: Space[Any]) -> str:
    """Says which answers would do for an action space."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return (
            "What would do: {'action': actions}, with a batch of actions for each part of the space, or a list of one "
            "action for each observation."
        )
    shape, lists = f"[B, {', '.join(map(str, space.shape or ()))}] of actions", ""
    if isinstance(space, spaces.Discrete):
        numbers = f"integers from {space.start} to {space.start + space.n - 1}"
        shape = f"[B, {space.n}] of q-values or logits or [B] of actions ({numbers})"
    elif (choices := Choices.of(space)) is not None:
        options = choices.shape if choices.are_switches else (sum(choices.sizes),)
        shape += f" (integers) or [B, {', '.join(map(str, options))}] of logits"
        lists = "a list of one tensor or Distribution for each choice, "
    return (
        f"What would do: a tensor {shape}, a torch Distribution, {lists}a mapping with q_values, logits, probs, loc "
        "and scale, "
        "or action, a tuple that begins with one of these, or a rlwandb_callbacks.PolicyStep."
    )


def describe(answer: Any) -> str:
    """Says what an answer is: type, shape, dtype, keys."""
    if isinstance(answer, torch.Tensor | np.ndarray):
        return f"a {type(answer).__name__} of shape {list(answer.shape)} and dtype {answer.dtype}"
    if isinstance(answer, Mapping):
        arrays = {str(key): value for key, value in answer.items() if isinstance(value, torch.Tensor | np.ndarray)}
        shapes = "".join(f", {key} of shape {list(value.shape)}" for key, value in arrays.items())
        return f"a {type(answer).__name__} with the keys {sorted(map(str, answer.keys()))}{shapes}"
    if isinstance(answer, tuple | list):
        return f"a {type(answer).__name__} of ({', '.join(describe(entry) for entry in answer)})"
    if isinstance(answer, Distribution):
        return f"the distribution {answer}"
    if isinstance(answer, PolicyStep):
        return f"a PolicyStep with {len(answer.actions)} actions"
    return f"{answer!r} of type {type(answer).__name__}"
