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
from rlwandb_callbacks.errors import EnvError

AGENT_REWARDS = "agent_rewards"


def is_parallel(env: Any) -> bool:
    """Whether something is a parallel environment, by what it can do."""
    return not isinstance(env, gym.Env) and all(hasattr(env, name) for name in ("possible_agents", "step", "reset"))


class TeamEnv(gym.Env[dict[str, Any], NDArray[Any]]):
    """All agents of a parallel environment as one team.

    An observation is a dict by agent; an agent that is out of the game sees zeros. An action is a vector that holds the
    agents' actions one after the other (``MultiDiscrete`` where all of them are discrete). The reward is the team's
    sum; ``info["agent_rewards"]`` holds the parts. The episode terminates when no agent is left, or all have terminated
    at once; it is truncated when no agent is left and one of the last was.

    Args:
        env: A ``pettingzoo.ParallelEnv``.

    Raises:
        EnvError: If it takes turns (AEC), or an agent's actions are neither discrete nor a box.
    """

    def __init__(self, env: Any) -> None:
        if hasattr(env, "agent_iter"):
            raise EnvError(
                f"evaluation.env {env} takes turns (AEC); give a parallel environment, such as that of "
                "pettingzoo.utils.aec_to_parallel(env)."
            )
        self.parallel = env
        self.agents = tuple(env.possible_agents)
        self.metadata = {**env.metadata}
        self._observation_spaces = {str(agent): env.observation_space(agent) for agent in self.agents}
        self.observation_space = spaces.Dict(self._observation_spaces)
        self.agent_action_spaces = {str(agent): env.action_space(agent) for agent in self.agents}
        self.action_space = _joined(list(self.agent_action_spaces.values()))

    @property
    def action_names(self) -> tuple[str, ...]:
        """For each number in the team's action the agent whose it is."""
        counts = {agent: int(np.prod(space.shape or (1,))) for agent, space in self.agent_action_spaces.items()}
        return tuple(agent if count == 1 else f"{agent}[{i}]" for agent, count in counts.items() for i in range(count))

    @property
    def render_mode(self) -> str | None:  # type: ignore[override]  # an attribute in gymnasium, which is only read
        """Of the parallel environment."""
        return getattr(self.parallel.unwrapped, "render_mode", None)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets all agents."""
        observations, _ = self.parallel.reset(seed=seed, options=options)
        return self._seen(observations), {}

    def step(self, action: NDArray[Any]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Gives every agent in the game its part of the action."""
        alive = set(self.parallel.agents)
        parts = dict(zip(self.agents, self._parts(np.asarray(action)), strict=True))
        observations, rewards, terminated, truncated, infos = self.parallel.step(
            {agent: part for agent, part in parts.items() if agent in alive}
        )
        is_over = not self.parallel.agents or all(terminated[agent] or truncated[agent] for agent in terminated)
        is_cut = is_over and any(truncated.values())
        shares = {str(agent): reward_of(reward) for agent, reward in rewards.items()}
        info: dict[str, Any] = {AGENT_REWARDS: shares}
        info |= {f"{agent}_{key}": value for agent, of_agent in infos.items() for key, value in of_agent.items()}
        return self._seen(observations), float(sum(shares.values())), is_over and not is_cut, is_cut, info

    def _parts(self, action: NDArray[Any]) -> list[Any]:
        parts, start = [], 0
        for space in self.agent_action_spaces.values():
            size = spaces.flatdim(space) if isinstance(space, spaces.Box) else int(np.prod(space.shape or (1,)))
            part = action.reshape(-1)[start : start + size]
            shaped = part.reshape(space.shape).astype(space.dtype)
            parts.append(int(part[0]) if isinstance(space, spaces.Discrete) else shaped)
            start += size
        return parts

    def _seen(self, observations: Mapping[Any, Any]) -> dict[str, Any]:
        return {
            str(agent): observations[agent] if agent in observations else _nothing(self._observation_spaces[str(agent)])
            for agent in self.agents
        }

    def render(self) -> Any:
        """The parallel environment's picture."""
        return self.parallel.render()

    def close(self) -> None:
        """Closes the parallel environment."""
        self.parallel.close()


def _joined(parts: list[spaces.Space[Any]]) -> spaces.Space[Any]:
    if all(isinstance(part, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary) for part in parts):
        return spaces.MultiDiscrete(
            np.concatenate([_counts(part) for part in parts]), start=np.concatenate([_starts(part) for part in parts])
        )
    if not all(isinstance(part, spaces.Box) for part in parts):
        raise EnvError(
            f"evaluation.env: the agents act in {', '.join(str(part) for part in parts)}; allowed are boxes for all "
            "agents, or discrete actions (Discrete, MultiDiscrete, MultiBinary) for all."
        )
    boxes = [part for part in parts if isinstance(part, spaces.Box)]
    dtype = np.result_type(*(box.dtype for box in boxes))
    low, high = (np.concatenate([getattr(box, side).ravel() for box in boxes]) for side in ("low", "high"))
    return spaces.Box(low.astype(dtype), high.astype(dtype), dtype=dtype.type)


def _counts(space: Any) -> NDArray[np.int64]:
    if isinstance(space, spaces.Discrete):
        return np.array([space.n], dtype=np.int64)
    return (np.full(space.shape, 2) if isinstance(space, spaces.MultiBinary) else space.nvec).ravel().astype(np.int64)


def _starts(space: Any) -> NDArray[np.int64]:
    if isinstance(space, spaces.MultiBinary):
        return np.zeros(int(np.prod(space.shape)), dtype=np.int64)
    return np.ravel(space.start).astype(np.int64)


def _nothing(space: spaces.Space[Any]) -> Any:
    zeros: Any = create_empty_array(space, n=1, fn=np.zeros)
    return next(iter(iterate(batch_space(space, 1), zeros)))
