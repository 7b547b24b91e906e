"""Adapter for actors that read and write a TensorDict, as those of TorchRL do."""

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
from rlwandb_callbacks.policies.adapters.devices import evaluating, first_float_parameter, network_of, to_tensors
from rlwandb_callbacks.policies.output_reader import OutputReader


class TorchRLPolicy:
    """Adapter that fills the entries that an actor reads, and reads those that it writes.

    A single array of observations becomes the one entry of ``in_keys`` that is not a state; dicts of observations
    become entries of the same names. An entry that the actor reads as ``key`` and writes as ``("next", key)`` is its
    state: it is carried from step to step, and zero where an episode starts. ``is_init`` marks these rows. The reader's
    ``deterministic`` becomes TorchRL's interaction type.
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
        """Returns whether a policy has ``in_keys`` and ``out_keys``; False if tensordict is not imported."""
        return (
            "tensordict" in sys.modules
            and callable(policy)
            and all(isinstance(getattr(policy, name, None), list | tuple) for name in ("in_keys", "out_keys"))
        )

    @property
    def is_recurrent(self) -> bool:
        """Whether the actor reads entries that it writes for the next step."""
        return bool(self._state_keys)

    def act(self, observations: Any, starts: NDArray[np.bool_], masks: NDArray[np.bool_] | None = None) -> PolicyStep:
        """Acts in B states; see :meth:`rlwandb_callbacks.policies.adapters.callables.CallablePolicy.act`."""
        from tensordict.nn import InteractionType, set_interaction_type

        kind = InteractionType.DETERMINISTIC if self._reader.deterministic else InteractionType.RANDOM
        with evaluating(self._network), set_interaction_type(kind):
            inputs = self._inputs(observations, starts)
            written = self._policy(inputs)
            output = self._output(inputs if written is None else written)
        return self._reader.read(output, starts.size)

    @property
    def _state_keys(self) -> list[Any]:
        written = {key[1:] for key in map(_as_path, self._policy.out_keys) if key[0] == "next"}
        return [key for key in self._policy.in_keys if _as_path(key) in written]

    def _inputs(self, observations: Any, starts: NDArray[np.bool_]) -> Any:
        from tensordict import TensorDict

        like = first_float_parameter(self._network, self._module)
        entries = self._entries(to_tensors(observations, like))
        inputs = TensorDict(entries, batch_size=[starts.size], device=like.device)
        is_init = torch.as_tensor(starts, device=like.device)[:, None]
        for key in self._policy.in_keys:
            if _as_path(key)[-1] == "is_init":
                inputs.set(key, is_init)
        for key, value in self._state.items():
            inputs.set(key, torch.where(is_init.reshape(-1, *[1] * (value.ndim - 1)), 0, value))
        return inputs

    def _entries(self, observations: Any) -> dict[Any, Any]:
        if isinstance(observations, dict):
            return observations
        states = {_as_path(key) for key in self._state_keys}
        free = [key for key in self._policy.in_keys if _as_path(key) not in states and _as_path(key)[-1] != "is_init"]
        parts = observations if isinstance(observations, tuple) else (observations,)
        if len(free) == len(parts):
            return dict(zip(free, parts, strict=True))
        raise PolicyError(
            f"The policy {type(self._policy).__name__} reads the entries {free}, but the number of unnamed parts of "
            f"the observation is {len(parts)}. Set evaluation.policy to an actor that reads as many entries, or "
            "evaluation.env to an environment with Dict observations of these names."
        )

    def _output(self, written: Any) -> dict[str, Any]:
        self._state = {key: written.get(("next", *_as_path(key))) for key in self._state_keys}
        entries = {_as_path(key)[-1]: written.get(key, None) for key in self._policy.out_keys if key[0] != "next"}
        names = ("action", "state_value", "logits", "probs", "loc", "scale")
        output = {name: entries[name] for name in names if entries.get(name) is not None}
        distribution = self._distribution(written)
        if distribution is not None:
            output = {"distribution": distribution} | {key: output[key] for key in names[:2] if key in output}
        q_values = self._q_values(written)
        return output if q_values is None else {**output, "q_values": q_values}

    def _distribution(self, written: Any) -> Any:
        """Builds the distribution of the action from written entries, without another forward pass."""
        for part in self._modules_with("distribution_class", "get_dist"):
            makes_action = any(_as_path(key)[-1] == "action" for key in part.out_keys)
            if makes_action and all(written.get(key, None) is not None for key in part.in_keys):
                return part.get_dist(written)
        return None

    def _q_values(self, written: Any) -> Any:
        """Returns the q-values; those of a distributional network are means over its support ``[atoms]``."""
        for part in self._modules_with("action_value_key"):
            values = written.get(part.action_value_key, None)
            support = getattr(part, "support", None)
            if values is not None and isinstance(support, torch.Tensor) and values.ndim > 2:
                return (values.exp() * support.reshape(-1, 1)).sum(dim=-2)
            if values is not None:
                return values
        return written.get("action_value", None)

    def _modules_with(self, *attributes: str) -> Iterator[Any]:
        parts = list(self._network.modules()) if self._network is not None else []
        return (part for part in reversed(parts) if all(hasattr(part, name) for name in attributes))


def _as_path(key: Any) -> tuple[str, ...]:
    return (key,) if isinstance(key, str) else tuple(key)
