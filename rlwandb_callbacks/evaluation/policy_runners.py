"""Makes what calls the policy of a module in an evaluation."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import gymnasium as gym
import torch

from rlwandb_callbacks.config.root import OneEvaluationConfig
from rlwandb_callbacks.evaluation.env_description import EnvDescription
from rlwandb_callbacks.policies.dry_run import PolicyTraits
from rlwandb_callbacks.policies.multi_agent import MultiAgentOutputReader, for_each_agent
from rlwandb_callbacks.policies.output_reader import OutputReader
from rlwandb_callbacks.policies.output_record import OutputRecord
from rlwandb_callbacks.policies.resolve import resolve_policy, tensor_meaning
from rlwandb_callbacks.policies.runner import PolicyRunner


class PolicyRunners:
    """Makes the runner of each evaluation, and keeps what earlier ones have seen of the policy's outputs.

    Args:
        cfg: Settings of the evaluation.
        module: Module in which the policy is looked up each time.
    """

    def __init__(self, cfg: OneEvaluationConfig, module: torch.nn.Module) -> None:
        self._cfg, self._module = cfg, module
        self._records: defaultdict[str, OutputRecord] = defaultdict(OutputRecord)  # by agent

    def runner(self, env: EnvDescription, traits: PolicyTraits) -> PolicyRunner:
        """Returns what calls the policy as it is now."""
        cfg, space = self._cfg.evaluation, env.observation_space
        policy = resolve_policy(self._module, cfg.policy)
        if not env.agent_action_spaces:
            return PolicyRunner(policy, self._module, self._reader(env.action_space), space, traits)
        readers = {agent: self._reader(actions, agent) for agent, actions in env.agent_action_spaces.items()}
        joint_policy = for_each_agent(policy, deterministic=cfg.deterministic) if cfg.shared_policy else policy
        reader: Any = MultiAgentOutputReader(readers)
        return PolicyRunner(joint_policy, self._module, reader, space, traits)

    def _reader(self, action_space: gym.Space[Any], agent: str = "") -> OutputReader:
        meaning = tensor_meaning(self._cfg.evaluation.policy, self._module, self._cfg.action_logger)
        return OutputReader(
            action_space,
            self._cfg.action_logger,
            meaning,
            self._cfg.evaluation.deterministic,
            record=self._records[agent],
        )
