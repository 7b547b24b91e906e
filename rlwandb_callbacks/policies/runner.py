"""Runs any policy on batches of observations, by the adapter for its kind.

Kinds are distinguished by their interface, so that no library is imported that is not in use.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from rlwandb_callbacks.core.episode import PolicyStep
from rlwandb_callbacks.policies.adapters.callables import CallablePolicy
from rlwandb_callbacks.policies.adapters.devices import batch_size_of, first_float_parameter, network_of
from rlwandb_callbacks.policies.adapters.libraries import LibraryAdapter, library_policy
from rlwandb_callbacks.policies.adapters.row_by_row import Adapter, RowByRowPolicy
from rlwandb_callbacks.policies.adapters.stable_baselines import StableBaselinesPolicy
from rlwandb_callbacks.policies.adapters.torchrl import TorchRLPolicy
from rlwandb_callbacks.policies.dry_run import DryRun, PolicyTraits
from rlwandb_callbacks.policies.output_reader import OutputReader
from rlwandb_callbacks.policies.output_tuples import NO_ROLES
from rlwandb_callbacks.policies.questions import Questions

ACTION_SCALE = "action scale"  # kind of warning


def adapter_for(policy: Any, module: nn.Module, reader: OutputReader, observation_space: Any = None) -> Adapter:
    """Returns the adapter for a policy for which :func:`rlwandb_callbacks.policies.resolve.is_policy` holds."""
    if StableBaselinesPolicy.fits(policy):
        return StableBaselinesPolicy(policy, reader)
    if TorchRLPolicy.fits(policy):
        return TorchRLPolicy(policy, module, reader)
    adapted = library_policy(policy, deterministic=reader.deterministic)
    if adapted is not None:
        return LibraryAdapter(adapted, reader, observation_space)
    return CallablePolicy(policy, module, reader, observation_space)


class PolicyRunner:
    """Runs a policy on batches, on its own device and in its floating-point dtype.

    Args:
        policy: A callable that takes a batch of observations (a tensor, or a dict or tuple of tensors), or a policy
            object of Stable-Baselines3, sbx, TorchRL, Tianshou, skrl, rsl-rl or d3rlpy.
        module: The LightningModule; its device and dtype are used for policies without parameters.
        reader: Reader of the outputs.
        observation_space: Observation space of one environment.
        traits: How the policy must be called, as :meth:`dry_run` found out.

    Attributes:
        takes_masks: Whether the policy takes action masks.
    """

    def __init__(
        self,
        policy: Any,
        module: nn.Module,
        reader: OutputReader,
        observation_space: Any = None,
        traits: PolicyTraits = PolicyTraits(),  # noqa: B008  # immutable
    ) -> None:
        if traits.reads_std or not traits.reads_value or traits.roles != NO_ROLES:
            reader = replace(reader, reads_std=traits.reads_std, reads_value=traits.reads_value, roles=traits.roles)
        self._policy, self._module, self._reader = policy, module, reader
        self._observation_space = observation_space
        self._adapter: Adapter | RowByRowPolicy
        if traits.row_by_row:
            self._adapter = RowByRowPolicy(self._new_adapter, policy, observation_space, traits.state)
        else:
            self._adapter = self._new_adapter()
        self.takes_masks = self._adapter.takes_masks
        self._starts: NDArray[np.bool_] | None = None
        self._masks: NDArray[np.bool_] | None = None

    def _new_adapter(self, reads_std: bool = False, *, shows_scores: bool = False) -> Adapter:
        reader = replace(self._reader, reads_std=True) if reads_std else self._reader
        reader = reader.with_scores() if shows_scores else reader
        return adapter_for(self._policy, self._module, reader, self._observation_space)

    def restore(self) -> None:
        """Puts state that the policy keeps in Python attributes back to what it was when this was made."""
        if isinstance(self._adapter, RowByRowPolicy):
            self._adapter.restore()

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

    def dry_run(self, observations: Any, *, num_rows: int, staggered: bool) -> PolicyTraits:
        """Returns how the policy must be called, and raises PolicyErrors before training.

        The random states that it changes must be restored by the caller.

        Args:
            observations: Batch of observations.
            num_rows: Environments that will be played together.
            staggered: Whether episodes will start while others continue.
        """
        questions = Questions(
            self._policy,
            partial(self._new_adapter, shows_scores=True),
            observations,
            observation_space=self._observation_space,
            masks=self._masks,
            like=first_float_parameter(network_of(self._policy), self._module),
        )
        run = DryRun(
            questions,
            getattr(self._reader, "action_space", None),
            num_rows=num_rows,
            staggered=staggered,
            deterministic=self._reader.deterministic,
            last_output=lambda: self._reader.records[0].trial_output,
        )
        for record in self._reader.records:
            record.begin_trial()
        traits = run.run()
        for record in self._reader.records:
            record.end_trial()
        return replace(traits, warnings=(*traits.warnings, *self.warnings()))

    def warnings(self) -> list[tuple[str, str]]:
        """Returns what users should know about the outputs so far: kind and message."""
        unscaled = [warning for record in self._reader.records if (warning := record.extremes.warning()) is not None]
        return [*((ACTION_SCALE, warning) for warning in unscaled[:1]), *((n, n) for n in sorted(self._reader.notes))]
