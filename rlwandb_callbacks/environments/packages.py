"""Ids of environments whose packages must be imported before Gymnasium knows them."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass

import gymnasium as gym

MUJOCO_HOMES = ("gymnasium.envs.mujoco", "gymnasium_robotics")


@dataclass(frozen=True)
class EnvPackage:
    """A package that registers environments when it is imported.

    Args:
        prefixes: What its ids begin with.
        module: To import.
        install: What pip is told.
    """

    prefixes: tuple[str, ...]
    module: str
    install: str


PACKAGES = (
    EnvPackage(("ALE/",), "ale_py", '"rlwandb-callbacks[atari]"'),
    EnvPackage(("MiniGrid-", "BabyAI-"), "minigrid", "minigrid"),
    EnvPackage(("Fetch", "Hand", "Adroit", "FrankaKitchen", "PointMaze_", "AntMaze_"), "gymnasium_robotics", ""),
    EnvPackage(("Panda",), "panda_gym", "panda-gym"),
    EnvPackage(("highway-", "merge-", "roundabout-", "parking-", "intersection-"), "highway_env", "highway-env"),
    EnvPackage(("dm_control/",), "shimmy", '"shimmy[dm-control]"'),
)
OF_IMPORT_PATHS = {"pettingzoo": '"rlwandb-callbacks[pettingzoo]"', "ale_py": '"rlwandb-callbacks[atari]"'}


def register(env_id: str) -> None:
    """Imports the package that an id belongs to, where Gymnasium does not know the id, and has it register its ids."""
    package = _package_of(env_id)
    if env_id in gym.registry or package is None or importlib.util.find_spec(package.module) is None:
        return
    gym.register_envs(importlib.import_module(package.module))


def advice(env_id: str) -> str:
    """How to install the package that an id or an import path belongs to, as the end of a sentence.

    Empty where the package is there, or not known.

    Example:
        >>> advice("CartPole-v1")
        ''
    """
    package = _package_of(env_id)
    top = env_id.partition(":")[0].partition(".")[0]
    module, install = (
        (package.module, package.install or package.module.replace("_", "-"))
        if package is not None
        else (top, OF_IMPORT_PATHS.get(top, ""))
    )
    if not install or env_id in gym.registry or importlib.util.find_spec(module) is not None:
        return ""
    return f" It comes with another package: pip install {install}"


def _package_of(env_id: str) -> EnvPackage | None:
    return next((package for package in PACKAGES if env_id.startswith(package.prefixes)), None)


def is_mujoco(spec: gym.envs.registration.EnvSpec) -> bool:
    """Whether an environment draws with MuJoCo, by where its class lies."""
    return isinstance(spec.entry_point, str) and spec.entry_point.startswith(MUJOCO_HOMES)
