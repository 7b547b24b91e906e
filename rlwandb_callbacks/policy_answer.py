"""Reads what a policy answered: tensors, distributions, mappings, tuples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces
from numpy.typing import NDArray
from torch.distributions import Distribution

from rlwandb_callbacks.core.episode import Gaussian, PolicyScores, PolicyStep, Probabilities, QValues
from rlwandb_callbacks.errors import PolicyError

Q_KEYS = ("q_values", "action_value", "action_values", "q_value")
CHOSEN_Q_KEYS = ("state_action_value", "chosen_action_value", "q_value", "action_value")
VALUE_KEYS = ("value", "state_value", "values")
SAMPLES_FOR_MOMENTS = 64
SOFTMAX_OF_Q = "softmax of q-values"


@dataclass(frozen=True)
class Reader:
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
            PolicyError: If it cannot be read; the message says what it was and what would do.
        """
        step = self._step(answer, batch_size)
        if step is None:
            raise PolicyError(
                f"The policy answered {describe(answer)} to {batch_size} observations, for {self.action_space}. "
                f"{self._wish()}"
            )
        if self.wants == "q_value" and self._is_discrete and not isinstance(step.scores, QValues):
            raise PolicyError(
                f"action_logger is 'q_value', but the policy answered {describe(answer)}, which holds no q-values. Set "
                "action_logger to 'action_probability' or true, or point evaluation.policy to the q-network."
            )
        return step

    @property
    def _is_discrete(self) -> bool:
        return isinstance(self.action_space, spaces.Discrete)

    def _wish(self) -> str:
        if isinstance(self.action_space, spaces.Discrete):
            shape = f"[B, {self.action_space.n}] of q-values or logits"
        else:
            shape = f"[B, {', '.join(map(str, self.action_space.shape or ()))}] of actions"
        return (
            f"What would do: a tensor {shape}, a torch Distribution, a mapping with q_values, logits, probs, loc "
            "and scale, "
            "or action, a tuple that begins with one of these, or a rlwandb_callbacks.PolicyStep."
        )

    def _step(self, answer: Any, batch_size: int) -> PolicyStep | None:
        if isinstance(answer, PolicyStep):
            return answer if self._is_consistent(answer, batch_size) else None
        if isinstance(answer, Distribution):
            return self._from_distribution(answer, batch_size)
        if isinstance(answer, Mapping):
            return self._from_mapping(answer, batch_size)
        if isinstance(answer, tuple | list):
            steps = (self._step(entry, batch_size) for entry in answer)
            return next((step for step in steps if step is not None), None)
        if isinstance(answer, torch.Tensor | np.ndarray):
            return self._from_array(to_numpy(answer), batch_size)
        return None

    def _is_consistent(self, step: PolicyStep, batch_size: int) -> bool:
        scores = step.scores
        if scores is not None:
            rows = scores.mean if isinstance(scores, Gaussian) else scores.values
            expected = (batch_size, self.action_space.n) if isinstance(self.action_space, spaces.Discrete) else None
            if len(rows) != batch_size or (expected is not None and rows.shape != expected):
                return False
        per_state = (values for values in (step.values, step.chosen_q) if values is not None)
        return len(step.actions) == batch_size and all(np.shape(values) == (batch_size,) for values in per_state)

    def _from_array(self, array: NDArray[Any], batch_size: int) -> PolicyStep | None:
        if self._is_one_row_of_scores_per_state(array, batch_size):
            values = array.astype(np.float64)
            if self.tensor_means == "q_values" or (self.tensor_means == "unknown" and self.wants in (True, "q_value")):
                return self._from_scores(QValues(values))
            if self.tensor_means == "logits" or self.wants:
                return self._from_scores(Probabilities(softmax(values)))
            return PolicyStep(self._best(values))
        actions = self._as_actions(array, batch_size)
        return None if actions is None else PolicyStep(actions)

    def _is_one_row_of_scores_per_state(self, array: NDArray[Any], batch_size: int) -> bool:
        space = self.action_space
        return isinstance(space, spaces.Discrete) and array.shape == (batch_size, space.n) and array.dtype.kind == "f"

    def _from_scores(self, scores: QValues | Probabilities) -> PolicyStep:
        if isinstance(scores, QValues) or self.deterministic:
            actions = self._best(scores.values)
        else:
            drawn = torch.multinomial(torch.from_numpy(scores.values), 1)[:, 0]
            actions = to_numpy(drawn) + self._first
        if isinstance(scores, QValues) and self.wants == "action_probability":
            drawn_instead = Probabilities(softmax(scores.values), SOFTMAX_OF_Q)
            return PolicyStep(actions, drawn_instead, chosen_q=scores.values.max(axis=-1))
        return PolicyStep(actions, scores)

    def _best(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.asarray(np.argmax(values, axis=-1) + self._first)

    @property
    def _first(self) -> int:
        return int(self.action_space.start) if isinstance(self.action_space, spaces.Discrete) else 0

    def _as_actions(self, array: NDArray[Any], batch_size: int) -> NDArray[Any] | None:
        space = self.action_space
        if isinstance(space, spaces.Discrete):
            if array.shape == (batch_size, space.n) and array.dtype.kind in "iub":
                return np.asarray(np.argmax(array, axis=-1) + self._first)
            is_index = array.shape in ((batch_size,), (batch_size, 1)) and array.dtype.kind in "iu"
            return array.reshape(batch_size).astype(np.int64) if is_index else None
        if array.shape != (batch_size, *(space.shape or ())):
            return None
        if isinstance(space, spaces.Box):
            array = np.clip(array, space.low, space.high)
        return array.astype(space.dtype)

    def _from_distribution(self, distribution: Distribution, batch_size: int) -> PolicyStep | None:
        if self._is_discrete:
            probabilities = to_numpy(getattr(distribution, "probs", torch.empty(0))).astype(np.float64)
            readable = self._is_one_row_of_scores_per_state(probabilities, batch_size)
            return self._from_scores(Probabilities(probabilities)) if readable else None
        chosen = mode_of(distribution) if self.deterministic else distribution.sample()
        actions = self._as_actions(to_numpy(chosen), batch_size)
        if actions is None:
            return None
        return PolicyStep(actions, moments_of(distribution) if isinstance(self.action_space, spaces.Box) else None)

    def _from_mapping(self, answer: Mapping[Any, Any], batch_size: int) -> PolicyStep | None:
        step = self._from_named_scores(answer, batch_size)
        given = answer.get("action")
        actions = None if given is None else self._as_actions(to_numpy(given), batch_size)
        if actions is None and step is None:
            return None
        scores = None if step is None else step.scores
        chosen = actions if actions is not None else step.actions if step is not None else None
        assert chosen is not None
        values = _per_state(answer, VALUE_KEYS, batch_size)
        chosen_q = self._q_of(chosen, answer)
        if chosen_q is None and (actions is not None or self.deterministic):  # else it is not of the action drawn here
            chosen_q = _per_state(answer, CHOSEN_Q_KEYS, batch_size)
        return PolicyStep(chosen, scores, values, chosen_q)

    def _q_of(self, actions: NDArray[Any], answer: Mapping[Any, Any]) -> NDArray[np.float64] | None:
        for key in Q_KEYS:
            values = None if answer.get(key) is None else to_numpy(answer[key])
            if values is not None and self._is_one_row_of_scores_per_state(values, len(actions)):
                index = (actions - self._first).reshape(-1, 1)
                is_valid = bool(np.all((index >= 0) & (index < values.shape[1])))
                return np.take_along_axis(values.astype(np.float64), index, axis=1)[:, 0] if is_valid else None
        return None

    def _from_named_scores(self, answer: Mapping[Any, Any], batch_size: int) -> PolicyStep | None:
        found = self._named_scores(answer)
        if found is None:
            return None
        if isinstance(found, Gaussian):
            if isinstance(self.action_space, spaces.Box) and found.mean.shape[0] == batch_size:
                mean, std = torch.tensor(found.mean), torch.tensor(found.std)
                chosen = mean if self.deterministic else torch.normal(mean, std)
                actions = self._as_actions(to_numpy(chosen), batch_size)
                return None if actions is None else PolicyStep(actions, found)
            return None
        return self._from_scores(found) if self._is_one_row_of_scores_per_state(found.values, batch_size) else None

    def _named_scores(self, answer: Mapping[Any, Any]) -> PolicyScores | None:
        q_values = next((answer[key] for key in Q_KEYS if answer.get(key) is not None), None)
        has_policy = answer.get("probs") is not None or answer.get("logits") is not None
        if self._is_discrete and q_values is not None and not (self.wants == "action_probability" and has_policy):
            return QValues(to_numpy(q_values).astype(np.float64))
        if answer.get("probs") is not None:
            return Probabilities(to_numpy(answer["probs"]).astype(np.float64))
        if answer.get("logits") is not None:
            return Probabilities(softmax(to_numpy(answer["logits"]).astype(np.float64)))
        if answer.get("loc") is not None and answer.get("scale") is not None:
            mean, std = (to_numpy(answer[key]).astype(np.float64) for key in ("loc", "scale"))
            return Gaussian(mean, np.broadcast_to(std, mean.shape))
        return None


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Softmax over the last axis, shifted by the maximum so that no finite input overflows.

    Example:
        >>> softmax(np.array([1000.0, 1000.0]))
        array([0.5, 0.5])
    """
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def to_numpy(value: Any) -> NDArray[Any]:
    """Copies a tensor from any device, or an array, to numpy; bfloat16 becomes float32."""
    if isinstance(value, torch.Tensor):
        value = value.detach()
        copied: NDArray[Any] = (value.float() if value.dtype == torch.bfloat16 else value).cpu().numpy().copy()
        return copied
    return np.array(value)


def mode_of(distribution: Distribution) -> torch.Tensor:
    """The most probable action; where a distribution does not know it, its mean, else the mean of samples."""
    for name in ("mode", "deterministic_sample", "mean"):
        try:
            found = getattr(distribution, name)
        except (NotImplementedError, AttributeError):
            continue
        if isinstance(found, torch.Tensor):
            return found
    return distribution.sample(torch.Size([SAMPLES_FOR_MOMENTS])).float().mean(dim=0)


def moments_of(distribution: Distribution) -> Gaussian:
    """Mean and standard deviation, from the distribution or, where it does not know them, from samples of it."""
    try:
        mean, std = distribution.mean, distribution.stddev
    except (NotImplementedError, AttributeError):
        samples = distribution.sample(torch.Size([SAMPLES_FOR_MOMENTS])).float()
        mean, std = samples.mean(dim=0), samples.std(dim=0)
    return Gaussian(to_numpy(mean).astype(np.float64), to_numpy(std).astype(np.float64))


def _per_state(answer: Mapping[Any, Any], keys: tuple[str, ...], batch_size: int) -> NDArray[np.float64] | None:
    """One number per state, ``[B]`` or ``[B, 1]``, under the first of the keys that holds that."""
    for key in keys:
        values = None if answer.get(key) is None else to_numpy(answer[key])
        if values is not None and values.size == batch_size:
            return values.astype(np.float64).reshape(batch_size)
    return None


def describe(answer: Any) -> str:
    """Says what an answer is: type, shape, dtype, keys."""
    if isinstance(answer, torch.Tensor | np.ndarray):
        return f"a {type(answer).__name__} of shape {list(answer.shape)} and dtype {answer.dtype}"
    if isinstance(answer, Mapping):
        return f"a {type(answer).__name__} with the keys {sorted(map(str, answer.keys()))}"
    if isinstance(answer, tuple | list):
        return f"a {type(answer).__name__} of ({', '.join(describe(entry) for entry in answer)})"
    if isinstance(answer, Distribution):
        return f"the distribution {answer}"
    if isinstance(answer, PolicyStep):
        return f"a PolicyStep with {len(answer.actions)} actions"
    return f"{answer!r} of type {type(answer).__name__}"
