"""Runs any policy on batches of observations, by the adapter for its kind.

Kinds are distinguished by their interface, so that no library is imported that is not in use.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import nn

from rlwandb_callbacks.core.episode import PolicyStep
from rlwandb_callbacks.policies.adapters.callables import CallablePolicy
from rlwandb_callbacks.policies.adapters.devices import batch_size_of
from rlwandb_callbacks.policies.adapters.stable_baselines import StableBaselinesPolicy
from rlwandb_callbacks.policies.adapters.torchrl import TorchRLPolicy
from rlwandb_callbacks.policies.output_reader import OutputReader

Adapter: TypeAlias = StableBaselinesPolicy | TorchRLPolicy | CallablePolicy


def adapter_for(policy: Any, module: nn.Module, reader: OutputReader) -> Adapter:
    """Returns the adapter for a policy for which :func:`rlwandb_callbacks.policies.resolve.is_policy` holds."""
    if StableBaselinesPolicy.fits(policy):
        return StableBaselinesPolicy(policy, reader)
    if TorchRLPolicy.fits(policy):
        return TorchRLPolicy(policy, module, reader)
    return CallablePolicy(policy, module, reader)


class PolicyRunner:
    """Runs a policy on batches, on its own device and in its floating-point dtype.

    Args:
        policy: A callable that takes a batch of observations (a tensor, or a dict or tuple of tensors), an actor of
            TorchRL, or a model of Stable-Baselines3.
        module: The LightningModule; its device and dtype are used for policies without parameters.
        reader: Reader of the outputs.
        observation_space: Observation space of one environment.

    Attributes:
        takes_masks: Whether the policy takes action masks.
    """

    def __init__(self, policy: Any, module: nn.Module, reader: OutputReader, observation_space: Any = None) -> None:
        self._observation_space = observation_space
        self._adapter = adapter_for(policy, module, reader)
        self.takes_masks = self._adapter.takes_masks
        self._starts: NDArray[np.bool_] | None = None
        self._masks: NDArray[np.bool_] | None = None

    def set_action_masks(self, masks: NDArray[np.bool_]) -> None:
        """Sets the valid actions in the next batch, shape ``[B, A]``, for a policy that takes masks."""
        self._masks = masks

    def mark_episode_starts(self, rows: NDArray[np.bool_]) -> None:
        """Marks the rows ``[B]`` of the next batch in which an episode starts; in the first batch all rows do."""
        self._starts = rows if self._starts is None else self._starts | rows

    def __call__(self, observations: Any) -> PolicyStep:
        """Acts in a batch of observations as ``gymnasium.vector`` builds it."""
        batch_size = batch_size_of(observations, self._observation_space)
        starts = self._starts
        if starts is None or starts.size != batch_size:
            starts = np.ones(batch_size, dtype=np.bool_)
        self._starts = np.zeros(batch_size, dtype=np.bool_)
        return self._adapter.act(observations, starts, self._masks)

    def dry_run(self, observations: Any, *, staggered: bool) -> None:
        """Runs one step, and two for a recurrent policy, to raise PolicyErrors before training.

        Args:
            observations: Batch of at least two observations.
            staggered: Whether episodes will start while others continue.
        """
        self(observations)
        if self._adapter.is_recurrent:
            batch_size = batch_size_of(observations, self._observation_space)
            self.mark_episode_starts((np.arange(batch_size) == 0) & staggered)
            self(observations)
