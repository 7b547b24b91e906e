"""Short names of environments for messages."""

from __future__ import annotations

from typing import Any

from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

from rlwandb_callbacks.environments.wrappers import wrapper_chain


def env_name(env: Any) -> str:
    """Returns the id of an environment or of its spec, else the name of its class or of the function that makes it.

    Arguments of the environment are left out: their values may be long, or secret.

    Example:
        >>> import gymnasium as gym
        >>> env_name("CartPole-v1"), env_name(gym.make("CartPole-v1", sutton_barto_reward=True)), env_name(gym.make)
        ("'CartPole-v1'", "'CartPole-v1'", 'make')
        >>> env_name(gym.make_vec("CartPole-v1", 2, vectorization_mode="sync"))
        "SyncVectorEnv of 2 'CartPole-v1'"
    """
    if isinstance(env, str):
        return repr(env)
    if isinstance(env, EnvSpec):
        return repr(env.id)
    *_, base = wrapper_chain(env)
    name = _class_name(base)
    spec_id = getattr(getattr(base, "spec", None), "id", None)
    inside = getattr(base, "envs", None)
    if isinstance(base, VectorEnv):
        if spec_id is None and isinstance(inside, list | tuple) and inside:
            return f"{name} of {base.num_envs} {env_name(inside[0])}"
        return f"{name} of {base.num_envs} {spec_id!r}" if isinstance(spec_id, str) else name
    return repr(spec_id) if isinstance(spec_id, str) else name


def _class_name(thing: Any) -> str:
    """Returns the name of a class or function, also of one in a ``functools.partial``, or of an object's class."""
    function = getattr(thing, "func", thing)
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return str(name).replace("<locals>.", "")
