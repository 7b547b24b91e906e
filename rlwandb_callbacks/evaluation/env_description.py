"""Properties of the evaluation environment that hold for a whole training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import gymnasium as gym
from gymnasium.vector import VectorEnv

from rlwandb_callbacks.core.action_spec import ActionSpec
from rlwandb_callbacks.environments.description import describe_actions, frames_per_second, render_modes
from rlwandb_callbacks.environments.factory import Env
from rlwandb_callbacks.environments.pettingzoo import MultiAgentEnv
from rlwandb_callbacks.environments.step_limit import step_limits
from rlwandb_callbacks.environments.wrappers import has_sub_envs, observation_space_of

AnyEnv: TypeAlias = Env | VectorEnv[Any, Any, Any]


@dataclass(frozen=True)
class EnvDescription:
    """Properties of the evaluation environment that hold for a whole training; spaces are those of one environment."""

    actions: ActionSpec
    action_space: gym.Space[Any]
    observation_space: gym.Space[Any]
    agent_action_spaces: Mapping[str, gym.Space[Any]]  # by agent; empty unless there are several
    render_modes: tuple[str, ...]
    fps: float  # of its videos
    is_vector: bool
    can_replay: bool  # single environments can be made to replay its episodes
    step_limits: tuple[int, ...]  # after which it may cut an episode, see environments.step_limit

    @classmethod
    def of(cls, env: AnyEnv, action_names: Sequence[str] = ()) -> EnvDescription:
        """Describes an environment or a vector environment, with names of its actions that replace its own."""
        return cls(
            actions=describe_actions(env, action_names),
            action_space=env.single_action_space if isinstance(env, VectorEnv) else env.action_space,
            observation_space=observation_space_of(env),
            agent_action_spaces=env.agent_action_spaces if isinstance(env, MultiAgentEnv) else {},
            render_modes=render_modes(env),
            fps=frames_per_second(env),
            is_vector=isinstance(env, VectorEnv),
            can_replay=not isinstance(env, VectorEnv) or has_sub_envs(env),
            step_limits=step_limits(env),
        )
