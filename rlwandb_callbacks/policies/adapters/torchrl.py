"""Actors that take and give a TensorDict, as TorchRL's do (``TensorDictModule``, ``ProbabilisticActor``, …)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rlwandb_callbacks.core.episode import PolicyStep
from rlwandb_callbacks.errors import PolicyError
from rlwandb_callbacks.policies.adapters.devices import evaluating, network_of, parameter_like, to_tensors
from rlwandb_callbacks.policies.output_reader import OutputReader


class TorchRLPolicy:
    """Fills the entries that an actor reads, and reads those that it writes.

    A single array of observations becomes the one entry of ``in_keys`` that is no state; dicts of observations become
    entries by their names. What an actor writes as ``("next", key)`` and reads as ``key`` is its state: it is carried
    from step to step, and is zero where an episode begins, as TorchRL has it; ``is_init`` says where.

    Args:
        policy: Has ``in_keys`` and ``out_keys``.
        module: The LightningModule.
        reader: Reads the answers. Its ``deterministic`` becomes TorchRL's exploration type.
    """

    takes_masks = False

    def __init__(self, policy: Callable[..., Any], module: nn.Module, reader: OutputReader) -> None:
        self._policy: Any = policy
        self._network = network_of(policy)
        self._module = module
        self._reader = reader
        self._state: dict[Any, torch.Tensor] = {}

    @staticmethod
    def fits(policy: Any) -> bool:
        """Tells whether this is such an actor; where tensordict was not imported there is none."""
        return (
            "tensordict" in sys.modules
            and callable(policy)
            and all(isinstance(getattr(policy, name, None), list | tuple) for name in ("in_keys", "out_keys"))
        )

    @property
    def has_memory(self) -> bool:
        """Whether the actor reads entries that it writes for the next step."""
        return bool(self._state_keys)

    def act(self, observations: Any, begins: NDArray[np.bool_], masks: NDArray[np.bool_] | None = None) -> PolicyStep:
        """Acts in B states; see :class:`rlwandb_callbacks.policies.adapters.Adapter`."""
        from tensordict.nn import InteractionType, set_interaction_type

        kind = InteractionType.DETERMINISTIC if self._reader.deterministic else InteractionType.RANDOM
        count = begins.size
        with evaluating(self._network), set_interaction_type(kind):
            asked = self._question(observations, begins, count)
            written = self._policy(asked)
            answer = self._answer(asked if written is None else written)
        return self._reader.read(answer, count)

    @property
    def _state_keys(self) -> list[Any]:
        """Entries that are read, and written for the next step."""
        written = {key[1:] for key in map(_as_path, self._policy.out_keys) if key[0] == "next"}
        return [key for key in self._policy.in_keys if _as_path(key) in written]

    def _question(self, observations: Any, begins: NDArray[np.bool_], count: int) -> Any:
        from tensordict import TensorDict

        like = parameter_like(self._network, self._module)
        entries = self._entries(to_tensors(observations, like))
        question = TensorDict(entries, batch_size=[count], device=like.device)
        started = torch.as_tensor(begins, device=like.device)[:, None]
        for key in self._policy.in_keys:
            if _as_path(key)[-1] == "is_init":
                question.set(key, started)
        for key, value in self._state.items():
            question.set(key, torch.where(started.reshape(-1, *[1] * (value.ndim - 1)), 0, value))
        return question

    def _entries(self, observations: Any) -> dict[Any, Any]:
        if isinstance(observations, dict):
            return observations
        states = {_as_path(key) for key in self._state_keys}
        free = [key for key in self._policy.in_keys if _as_path(key) not in states and _as_path(key)[-1] != "is_init"]
        given = observations if isinstance(observations, tuple) else (observations,)
        if len(free) == len(given):
            return dict(zip(free, given, strict=True))
        raise PolicyError(
            f"The policy {type(self._policy).__name__} reads the entries {free}, and the environment gives "
            f"{len(given)} without a name. Give evaluation.policy an actor that reads as many, or evaluation.env an "
            "environment whose observations are a Dict with these names."
        )

    def _answer(self, written: Any) -> dict[str, Any]:
        self._state = {key: written.get(("next", *_as_path(key))) for key in self._state_keys}
        entries = {_as_path(key)[-1]: written.get(key, None) for key in self._policy.out_keys if key[0] != "next"}
        names = ("action", "state_value", "logits", "probs", "loc", "scale")
        answer = {name: entries[name] for name in names if entries.get(name) is not None}
        distribution = self._distribution(written)
        if distribution is not None:
            answer = {"distribution": distribution} | {key: answer[key] for key in names[:2] if key in answer}
        q_values = self._q_values(written)
        return answer if q_values is None else {**answer, "q_values": q_values}

    def _distribution(self, written: Any) -> Any:
        """That from which the action was taken, in the action's units, without asking the network again."""
        for part in self._parts("distribution_class", "get_dist"):
            makes_action = any(_as_path(key)[-1] == "action" for key in part.out_keys)
            if makes_action and all(written.get(key, None) is not None for key in part.in_keys):
                return part.get_dist(written)
        return None

    def _q_values(self, written: Any) -> Any:
        """Q-values under whatever name; of a distributional network their means over the support ``[atoms]``."""
        for part in self._parts("action_value_key"):
            values = written.get(part.action_value_key, None)
            support = getattr(part, "support", None)
            if values is not None and isinstance(support, torch.Tensor) and values.ndim > 2:
                return (values.exp() * support.reshape(-1, 1)).sum(dim=-2)
            if values is not None:
                return values
        return written.get("action_value", None)

    def _parts(self, *attributes: str) -> Iterator[Any]:
        parts = list(self._network.modules()) if self._network is not None else []
        return (part for part in reversed(parts) if all(hasattr(part, name) for name in attributes))


def _as_path(key: Any) -> tuple[str, ...]:
    return (key,) if isinstance(key, str) else tuple(key)
