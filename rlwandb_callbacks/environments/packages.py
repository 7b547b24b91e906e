"""Packages that must be imported before Gymnasium knows their environments."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass

import gymnasium as gym

MUJOCO_MODULES = ("gymnasium.envs.mujoco", "gymnasium_robotics")


@dataclass(frozen=True)
class EnvPackage:
    """A package that registers the ids with its prefixes when its module is imported; pip installs the requirement."""

    prefixes: tuple[str, ...]
    module: str
    requirement: str


PACKAGES = (
    EnvPackage(("ALE/",), "ale_py", '"rlwandb-callbacks[atari]"'),
    EnvPackage(("MiniGrid-", "BabyAI-"), "minigrid", "minigrid"),
    EnvPackage(
        ("Fetch", "Hand", "Adroit", "FrankaKitchen", "PointMaze_", "AntMaze_"),
        "gymnasium_robotics",
        "gymnasium-robotics",
    ),
    EnvPackage(("Panda",), "panda_gym", "panda-gym"),
    EnvPackage(("highway-", "merge-", "roundabout-", "parking-", "intersection-"), "highway_env", "highway-env"),
    EnvPackage(("dm_control/",), "shimmy", '"shimmy[dm-control]"'),
    EnvPackage((), "pettingzoo", '"rlwandb-callbacks[pettingzoo]"'),
)


def register(env_id: str) -> None:
    """Imports the package of an id that Gymnasium does not know, which registers it; does nothing if not installed."""
    package = _package_of(env_id)
    if env_id in gym.registry or package is None or importlib.util.find_spec(package.module) is None:
        return
    gym.register_envs(importlib.import_module(package.module))


def install_hint(env_id: str) -> str:
    """Returns a sentence on how to install the package of an id or import path; empty if it is installed or unknown."""
    package = _package_of(env_id)
    if env_id in gym.registry or package is None or importlib.util.find_spec(package.module) is not None:
        return ""
    return f" Its package is not installed (pip install {package.requirement})."


def _package_of(env_id: str) -> EnvPackage | None:
    module = env_id.partition(":")[0].partition(".")[0]
    matches = (each for each in PACKAGES if env_id.startswith(each.prefixes) or module == each.module)
    return next(matches, None)


def uses_mujoco(spec: gym.envs.registration.EnvSpec) -> bool:
    """Returns whether the class of an environment belongs to a package that renders with MuJoCo."""
    return isinstance(spec.entry_point, str) and spec.entry_point.startswith(MUJOCO_MODULES)
