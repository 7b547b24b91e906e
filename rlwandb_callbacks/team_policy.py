"""A policy for several agents: its answers are read agent by agent and joined to one action."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rlwandb_callbacks.core.episode import PolicyStep
from rlwandb_callbacks.errors import PolicyError
from rlwandb_callbacks.policy_answer import Reader


class TeamReader:
    """Reads a mapping from agents to answers.

    Args:
        readers: One per agent, in the order in which a team's action holds them.
    """

    def __init__(self, readers: Mapping[str, Reader]) -> None:
        self._readers = readers

    def read(self, answers: Any, batch_size: int) -> PolicyStep:
        """Joins the agents' actions to ``[B, D]``.

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
        return PolicyStep(np.concatenate([step.actions.reshape(batch_size, -1) for step in steps], axis=1))


def for_each_agent(policy: Callable[..., Any]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Makes of a policy that all agents share one that takes the dict of their observations."""

    def ask(observations: Mapping[str, Any]) -> dict[str, Any]:
        return {agent: policy(batch) for agent, batch in observations.items()}

    return ask
