"""Policies of several agents: their outputs are read per agent and joined to one action."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlwandb_callbacks.core.episode import Floats, Gaussian, Grouped, PolicyScores, PolicyStep, groups_of
from rlwandb_callbacks.errors import PolicyError
from rlwandb_callbacks.policies.adapters.devices import evaluating, map_structure
from rlwandb_callbacks.policies.adapters.libraries import library_policy
from rlwandb_callbacks.policies.output_reader import OutputReader
from rlwandb_callbacks.policies.output_record import OutputRecord
from rlwandb_callbacks.policies.output_tensors import to_numpy
from rlwandb_callbacks.policies.scores import entropy


@dataclass(frozen=True)
class MultiAgentOutputReader:
    """Reader of mappings from agents to outputs, with one reader per agent in the order of a joint action."""

    readers: Mapping[str, OutputReader]

    @property
    def deterministic(self) -> bool:
        """Whether the modes of distributions are taken; the same for all agents."""
        return all(reader.deterministic for reader in self.readers.values())

    @property
    def notes(self) -> set[str]:
        """Notes of the readers of all agents."""
        return set().union(*(reader.notes for reader in self.readers.values()))

    @property
    def records(self) -> list[OutputRecord]:
        """Records of the outputs of all agents."""
        return [reader.record for reader in self.readers.values()]

    def with_scores(self) -> MultiAgentOutputReader:
        """Returns a reader that also gives scores which are not to be shown."""
        return MultiAgentOutputReader({agent: reader.with_scores() for agent, reader in self.readers.items()})

    def read(self, outputs: Any, batch_size: int) -> PolicyStep:
        """Joins the actions of the agents to ``[B, D]``, and their scores to those of the joint action."""
        is_mapping = isinstance(outputs, Mapping)
        missing = [agent for agent in self.readers if not is_mapping or agent not in outputs]
        if missing:
            keys = f" with the keys {list(outputs)}" if is_mapping else ""
            raise PolicyError(
                f"evaluation.policy returned a {type(outputs).__name__}{keys} for the observations of several agents; "
                f"{', '.join(missing)} is missing. Return a dict with an entry for each agent, or set "
                "evaluation.shared_policy=True, which calls the policy with the observations of one agent at a time."
            )
        steps = [reader.read(outputs[agent], batch_size) for agent, reader in self.readers.items()]
        actions = np.concatenate([step.actions.reshape(batch_size, -1) for step in steps], axis=1)
        return PolicyStep(actions, join_scores([step.scores for step in steps]))


def join_scores(parts: Sequence[PolicyScores | None]) -> PolicyScores | None:
    """Joins the scores of agents, each with the leading axis B; returns None if they are of different types."""
    gaussians = [part for part in parts if isinstance(part, Gaussian)]
    if gaussians and len(gaussians) == len(parts):
        mean, std = _flat([part.mean for part in gaussians]), _flat([part.std for part in gaussians])
        entropies = [each for part in gaussians if (each := entropy(part)) is not None]
        return Gaussian(mean, std, np.asarray(np.sum(entropies, axis=0)))
    groups = [groups_of(part) for part in parts]
    joined = tuple(each for group in groups for each in group)
    is_complete = all(groups) and len({type(each) for each in joined}) == 1
    return Grouped(joined) if is_complete else None


def _flat(arrays: Sequence[Floats]) -> Floats:
    return np.concatenate([array.reshape(len(array), -1) for array in arrays], axis=1)


def for_each_agent(policy: Any, *, deterministic: bool = True) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Converts a policy that all agents share to one that takes a dict with the observations of each.

    Args:
        policy: A callable, or a policy object of a library.
        deterministic: Whether the object of a library plays its most likely actions.
    """
    adapted = library_policy(policy, deterministic=deterministic)
    if adapted is None:
        return lambda observations: {agent: policy(batch) for agent, batch in observations.items()}

    def act(observations: Mapping[str, Any]) -> dict[str, Any]:
        with evaluating(adapted.networks):
            inputs = map_structure(to_numpy, observations) if adapted.takes_arrays else observations
            return {agent: adapted(batch) for agent, batch in inputs.items()}

    return act
