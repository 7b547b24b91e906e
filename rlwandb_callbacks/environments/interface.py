"""Checks that an environment has the interface of Gymnasium, so that another one is named before training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space

from rlwandb_callbacks.core.infos import without_tensor
from rlwandb_callbacks.environments.held_environments import is_environment
from rlwandb_callbacks.environments.names import env_name
from rlwandb_callbacks.environments.wrappers import sub_envs
from rlwandb_callbacks.errors import EnvError, describe_error

BATCH_SIZE = "batch_size"  # argument of the vectors of ale-py and EnvPool
EPISODES = "return the episodes from validation_step, {'episodes': [rlwandb_callbacks.Episode(…), …]}"
ID = "Set evaluation.env to the id of a Gymnasium environment, or to a function that makes one"
METHODS = (
    "whose reset() takes seed and options and returns (observation, info), and whose step() returns (observation, "
    "reward, terminated, truncated, info)"
)
OLD_GYM = f"{ID}; or wrap this one in a subclass of gymnasium.Env {METHODS}; or {EPISODES}."
FOREIGN = {
    "gym": f"It is an environment of the old package Gym. {OLD_GYM}",
    "torchrl": f"It is an environment of TorchRL. {ID}; the policy may be an actor of TorchRL. Statistics of its "
    "ObservationNorm or VecNorm are used if the module holds this environment as self.env.",
    "stable_baselines3": f"It is a vector of Stable-Baselines3. {ID}, without the vector. Statistics of its "
    "VecNormalize are used if the module holds this vector as self.env.",
    "envpool": "It is a pool of EnvPool without the interface of Gymnasium. Make it with env_type='gymnasium'. "
    f"{ID}, if it is to have videos.",
    "dm_env": f"It is an environment of dm_env. {ID}, such as 'dm_control/cartpole-swingup-v0' (pip install "
    '"shimmy[dm-control]").',
}
PLAIN = (
    "It has reset() and step(), but is not a subclass of gymnasium.Env. Make it one, with an observation_space and an "
    f"action_space, {METHODS}; or {EPISODES}."
)
ALLOWED = "It must be a gymnasium.Env, a gymnasium.vector.VectorEnv or a pettingzoo.ParallelEnv."
SEVERAL_OBJECTIVES = (
    "With several objectives, wrap it so that they are weighted, as by mo_gymnasium.wrappers.LinearReward(env, weight)."
)
SEVERAL_AGENTS = (
    "With several agents, wrap it so that their rewards are one number (a gymnasium.Wrapper whose step() returns their "
    f"sum), make it a pettingzoo.ParallelEnv, or {EPISODES}."
)
UNPACK = "values to unpack (expected 5, got 4)"


def describe_foreign(env: Any) -> str:
    """Returns what an object is that is not an environment of Gymnasium, and how it can be evaluated."""
    packages = [cls.__module__.partition(".")[0] for cls in type(env).__mro__]
    found = next((FOREIGN[package] for package in packages if package in FOREIGN), "")
    if found:
        return found
    return PLAIN if is_environment(env) else ALLOWED


def checked_reset(env: gym.Env[Any, Any], seed: int) -> Any:
    """Resets an environment and returns its observation.

    Raises:
        EnvError: If it does not take a seed, or returns anything but an observation and a dict.
    """
    try:
        result: Any = env.reset(seed=seed)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise EnvError(_old(env, f"has a reset() that takes no seed: {describe_error(error)}")) from error
    if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], dict):
        raise EnvError(_old(env, f"has a reset() that returns {_kind(result)} instead of (observation, info)."))
    return result[0]


def check_step(env: Any, warn: Callable[[str], None]) -> bool:
    """Takes a random action in an environment or vector that has been reset; returns whether it can go on.

    Another error than a wrong interface is passed to ``warn``: the policy may know which actions are valid.

    Raises:
        EnvError: If the result does not have five entries, or a reward is not a single number.
    """
    action = random_action(env)
    try:
        result = env.step(action)
    except Exception as error:  # environments may raise anything
        if UNPACK in str(error):
            raise EnvError(_old(env, "has a step() that returns four values instead of five.")) from error
        for single in sub_envs(getattr(env, "unwrapped", None))[:1]:  # which may show why the vector fails
            check_step(single, lambda _: None)
        warn(
            f"evaluation.env {env_name(env)} failed at a first step, with the random action {_plain(action)}: "
            f"{describe_error(error)} Evaluations fail if the policy's actions do so too."
        )
        return False
    if not isinstance(result, tuple) or len(result) != 5:
        raise EnvError(_old(env, f"has a step() that returns {_kind(result)} instead of five values."))
    _, reward, terminated, truncated, _ = result
    _check_reward(env, reward)
    return not (np.any(without_tensor(terminated)) or np.any(without_tensor(truncated)))


def _plain(action: Any) -> str:
    return shortened(action.item() if isinstance(action, np.generic) else action)


def random_action(env: Any) -> Any:
    """Returns a random action of an environment, or one for each environment of a vector.

    ``action_space`` of a pool of EnvPool is that of a single environment.
    """
    if not isinstance(env, VectorEnv):
        return env.action_space.sample()
    space = batch_space(env.single_action_space, env.num_envs)
    return (env.action_space if env.action_space == space else _seeded_like(env, space)).sample()


def _seeded_like(env: Any, space: Any) -> Any:
    space.seed(int(env.action_space.np_random.integers(2**31)))
    return space


def check_batch(env: Any) -> None:
    """Checks that a step of a vector returns all of its environments.

    Raises:
        EnvError: If it returns those that are ready first.
    """
    base = env.unwrapped if isinstance(env, VectorEnv) else None
    config = getattr(getattr(base, "spec", None), "config", None)
    size = getattr(base, BATCH_SIZE, getattr(config, BATCH_SIZE, None))
    if isinstance(size, int) and 0 < size < env.num_envs:
        raise EnvError(
            f"evaluation.env {env_name(env)} was made with {BATCH_SIZE}={size}: a step returns {size} of its "
            f"{env.num_envs} environments, those that are ready first. Make it with {BATCH_SIZE}={env.num_envs}, so "
            "that a step returns all of them."
        )


def _check_reward(env: Any, reward: Any) -> None:
    count = env.num_envs if isinstance(env, VectorEnv) else 1
    if isinstance(reward, dict) or np.size(without_tensor(reward)) != count:
        remedies = (
            SEVERAL_AGENTS if isinstance(reward, dict | list | tuple) else f"{SEVERAL_OBJECTIVES} {SEVERAL_AGENTS}"
        )
        raise EnvError(
            f"evaluation.env {env_name(env)} returned the reward {shortened(reward)}; it must be a single number"
            f"{' for each environment' if isinstance(env, VectorEnv) else ''}. {remedies}"
        )


def _old(env: Any, what: str) -> str:
    return f"evaluation.env {env_name(env)} {what} {OLD_GYM}"


def _kind(result: Any) -> str:
    if isinstance(result, tuple):
        return f"a tuple of {len(result)}"
    shape = getattr(result, "shape", None)
    return f"{type(result).__name__} of shape {tuple(shape)}" if shape is not None else type(result).__name__


def shortened(value: Any) -> str:
    """Returns the ``repr`` of a value, of at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
