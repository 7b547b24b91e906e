"""Parallel environments of PettingZoo as one environment of Gymnasium."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, create_empty_array, iterate
from numpy.typing import NDArray

from rlwandb_callbacks.core.infos import reward_of
from rlwandb_callbacks.environments.names import env_name
from rlwandb_callbacks.errors import EnvError

AGENT_REWARDS = "agent_rewards"


def is_parallel(env: Any) -> bool:
    """Returns whether an object has the interface of a parallel environment."""
    return not isinstance(env, gym.Env) and all(hasattr(env, name) for name in ("possible_agents", "step", "reset"))


class MultiAgentEnv(gym.Env[dict[str, Any], NDArray[Any]]):
    """A ``pettingzoo.ParallelEnv`` with a joint action of all agents.

    An observation is a dict by agent, with zeros for agents that have left. A joint action is a vector with the actions
    of the agents one after the other (``MultiDiscrete`` if all of them are discrete). The reward is the sum over the
    agents; ``info["agent_rewards"]`` has the parts. An episode ends when no agent is left, or all terminate or are
    truncated at the same step. It is truncated if one of the last agents was, else terminated.
    """

    def __init__(self, env: Any) -> None:
        if hasattr(env, "agent_iter"):
            raise EnvError(
                f"evaluation.env {env_name(env)} is turn-based (AEC); it must be a parallel environment, such as "
                "pettingzoo.utils.aec_to_parallel(env)."
            )
        self.parallel_env = env
        self.agents = tuple(env.possible_agents)
        self.metadata = {**(env.metadata or {})}
        self._observation_spaces = {str(agent): env.observation_space(agent) for agent in self.agents}
        self.observation_space = spaces.Dict(self._observation_spaces)
        self.agent_action_spaces = {str(agent): env.action_space(agent) for agent in self.agents}
        self._sizes = [int(np.prod(space.shape)) for space in self.agent_action_spaces.values()]
        self.action_space = _joint_space(list(self.agent_action_spaces.values()))

    @property
    def action_names(self) -> tuple[str, ...]:
        """Name of each element of the joint action: that of its agent, with an index if the agent has several."""
        counts = zip(self.agent_action_spaces, self._sizes, strict=True)
        return tuple(agent if count == 1 else f"{agent}[{i}]" for agent, count in counts for i in range(count))

    @property
    def render_mode(self) -> str | None:  # type: ignore[override]  # a writable attribute in gymnasium
        return getattr(self.parallel_env.unwrapped, "render_mode", None)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observations, _ = self.parallel_env.reset(seed=seed, options=options)
        return self._joint_observation(observations), {}

    def step(self, action: NDArray[Any]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Passes each remaining agent its part of the joint action."""
        parts = zip(self.agents, self._split(np.asarray(action)), strict=True)
        remaining = set(self.parallel_env.agents)
        observations, rewards, terminated, truncated, infos = self.parallel_env.step(
            {agent: part for agent, part in parts if agent in remaining}
        )
        is_over = not self.parallel_env.agents or all(terminated[agent] or truncated[agent] for agent in terminated)
        is_truncated = is_over and any(truncated.values())
        agent_rewards = {str(agent): reward_of(reward) for agent, reward in rewards.items()}
        info: dict[str, Any] = {AGENT_REWARDS: agent_rewards}
        info |= {f"{agent}_{key}": value for agent, of_agent in infos.items() for key, value in of_agent.items()}
        total = float(sum(agent_rewards.values()))
        return self._joint_observation(observations), total, is_over and not is_truncated, is_truncated, info

    def _split(self, action: NDArray[Any]) -> list[Any]:
        parts = np.split(action.reshape(-1), np.cumsum(self._sizes)[:-1])
        return [
            int(part[0]) if isinstance(space, spaces.Discrete) else part.reshape(space.shape).astype(space.dtype)
            for part, space in zip(parts, self.agent_action_spaces.values(), strict=True)
        ]

    def _joint_observation(self, observations: Mapping[Any, Any]) -> dict[str, Any]:
        return {
            str(agent): observations[agent] if agent in observations else _zeros(self._observation_spaces[str(agent)])
            for agent in self.agents
        }

    def render(self) -> Any:
        return self.parallel_env.render()

    def close(self) -> None:
        self.parallel_env.close()


def _joint_space(parts: list[spaces.Space[Any]]) -> spaces.Space[Any]:
    if all(isinstance(part, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary) for part in parts):
        sizes, starts = zip(*map(_sizes_and_starts, parts), strict=True)
        return spaces.MultiDiscrete(np.concatenate(sizes), start=np.concatenate(starts))
    if not all(isinstance(part, spaces.Box) for part in parts):
        raise EnvError(
            f"evaluation.env has agents with the action spaces {', '.join(map(str, parts))}; they must be Box for all "
            "agents, or discrete (Discrete, MultiDiscrete, MultiBinary) for all."
        )
    boxes = [part for part in parts if isinstance(part, spaces.Box)]
    dtype = np.result_type(*(box.dtype for box in boxes))
    low, high = (np.concatenate([getattr(box, side).ravel() for box in boxes]) for side in ("low", "high"))
    return spaces.Box(low.astype(dtype), high.astype(dtype), dtype=dtype.type)


def _sizes_and_starts(space: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if isinstance(space, spaces.MultiBinary):
        sizes, starts = np.full(space.shape, 2), np.zeros(space.shape)
    else:
        sizes, starts = (space.n if isinstance(space, spaces.Discrete) else space.nvec), space.start
    return np.ravel(sizes).astype(np.int64), np.ravel(starts).astype(np.int64)


def _zeros(space: spaces.Space[Any]) -> Any:
    batch: Any = create_empty_array(space, n=1, fn=np.zeros)
    return next(iter(iterate(batch_space(space, 1), batch)))
