"""Kinds of policies: each is found by what it can do, so that no library is imported for it that is not in use."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from rlwandb_callbacks.core.episode import PolicyStep
from rlwandb_callbacks.policies.adapters.callables import CallablePolicy
from rlwandb_callbacks.policies.adapters.stable_baselines import StableBaselinesPolicy
from rlwandb_callbacks.policies.adapters.torchrl import TorchRLPolicy
from rlwandb_callbacks.policies.output_reader import OutputReader


class Adapter(Protocol):
    """Asks one kind of policy."""

    @property
    def has_memory(self) -> bool:
        """Whether the policy carries a state from step to step."""

    @property
    def takes_masks(self) -> bool:
        """Whether the policy wants to be told which actions are allowed."""

    def act(self, observations: Any, begins: NDArray[np.bool_], masks: NDArray[np.bool_] | None = None) -> PolicyStep:
        """Acts in a batch of B states.

        Args:
            observations: As ``gymnasium.vector`` batches them.
            begins: Shape ``[B]``: rows at which an episode begins.
            masks: Shape ``[B, A]``: actions that are allowed, for a policy that takes masks; None for all.

        Raises:
            PolicyError: If the answer cannot be read.
        """


def adapter_for(policy: Any, module: nn.Module, reader: OutputReader) -> Adapter:
    """Chooses the adapter for a policy.

    Args:
        policy: For which :func:`can_be_asked` holds.
        module: The LightningModule.
        reader: Reads the answers.
    """
    if StableBaselinesPolicy.fits(policy):
        return StableBaselinesPolicy(policy, reader)
    if TorchRLPolicy.fits(policy):
        return TorchRLPolicy(policy, module, reader)
    return CallablePolicy(policy, module, reader)


def can_be_asked(policy: Any) -> bool:
    """Tells whether something is a policy of any kind.

    Example:
        >>> can_be_asked(len), can_be_asked(0.5)
        (True, False)
    """
    return callable(policy) or StableBaselinesPolicy.fits(policy)
