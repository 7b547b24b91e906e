"""A policy for several agents: its answers are read agent by agent and joined to one action."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rlwandb_callbacks.core.episode import Floats, Gaussian, Grouped, PolicyScores, PolicyStep, groups_of
from rlwandb_callbacks.errors import PolicyError
from rlwandb_callbacks.policies.output_reader import OutputReader
from rlwandb_callbacks.policies.scores import entropy


class TeamOutputReader:
    """Reads a mapping from agents to answers.

    Args:
        readers: One per agent, in the order in which a team's action holds them.
    """

    def __init__(self, readers: Mapping[str, OutputReader]) -> None:
        self._readers = readers

    def read(self, answers: Any, batch_size: int) -> PolicyStep:
        """Joins the agents' actions to ``[B, D]``, and what is known of each to the scores of the whole.

        Raises:
            PolicyError: If an agent is missing, or its answer cannot be read.
        """
        missing = [agent for agent in self._readers if not isinstance(answers, Mapping) or agent not in answers]
        if missing:
            told = f"with the keys {list(answers)}" if isinstance(answers, Mapping) else ""
            raise PolicyError(
                f"evaluation.policy answered a {type(answers).__name__} {told} to the observations of several agents, "
                f"without {', '.join(missing)}. It must answer a dict with an entry for each agent; with "
                "evaluation.shared_policy=True it is called for each agent with the batch of its observations."
            )
        steps = [reader.read(answers[agent], batch_size) for agent, reader in self._readers.items()]
        actions = np.concatenate([step.actions.reshape(batch_size, -1) for step in steps], axis=1)
        return PolicyStep(actions, joined_scores([step.scores for step in steps]))


def joined_scores(parts: Sequence[PolicyScores | None]) -> PolicyScores | None:
    """Scores of a team's action from those of its agents, each with a leading axis B; None where they do not match."""
    gaussians = [part for part in parts if isinstance(part, Gaussian)]
    if gaussians and len(gaussians) == len(parts):
        mean, std = _flat([part.mean for part in gaussians]), _flat([part.std for part in gaussians])
        entropies = [told for part in gaussians if (told := entropy(part)) is not None]
        return Gaussian(mean, std, np.asarray(np.sum(entropies, axis=0)))
    groups = [groups_of(part) for part in parts]
    choices = tuple(choice for group in groups for choice in group)
    is_complete = all(groups) and len({type(choice) for choice in choices}) == 1
    return Grouped(choices) if is_complete else None


def _flat(arrays: Sequence[Floats]) -> Floats:
    return np.concatenate([array.reshape(len(array), -1) for array in arrays], axis=1)


def for_each_agent(policy: Callable[..., Any]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Makes of a policy that all agents share one that takes the dict of their observations."""

    def ask(observations: Mapping[str, Any]) -> dict[str, Any]:
        return {agent: policy(batch) for agent, batch in observations.items()}

    return ask
