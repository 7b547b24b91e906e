"""Packages that must be imported before Gymnasium knows their environments."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from rlwandb_callbacks.core.process_settings import preserved_process_settings

MUJOCO_MODULES = ("gymnasium.envs.mujoco",)
MODULES_WITHOUT_MUJOCO = ("gymnasium.envs.", "ale_py")  # but for the above


@dataclass(frozen=True)
class EnvPackage:
    """A package that registers the ids with its prefixes when its module is imported; pip installs the requirement."""

    prefixes: tuple[str, ...]
    module: str
    requirement: str


ATARI_GAMES = (  # noqa: SIM905  # a list would fill a page
    "Adventure AirRaid Alien Amidar Assault Asterix Asteroids Atlantis BankHeist BattleZone BeamRider Berzerk Bowling "
    "Boxing Breakout Carnival Centipede ChopperCommand CrazyClimber Defender DemonAttack DoubleDunk ElevatorAction "
    "Enduro FishingDerby Freeway Frostbite Gopher Gravitar Hero IceHockey Jamesbond JourneyEscape Kangaroo Krull "
    "KungFuMaster MontezumaRevenge MsPacman NameThisGame Phoenix Pitfall Pong Pooyan PrivateEye Qbert Riverraid "
    "RoadRunner Robotank Seaquest Skiing Solaris SpaceInvaders StarGunner Tennis TimePilot Tutankham UpNDown Venture "
    "VideoPinball WizardOfWor YarsRevenge Zaxxon"
).split()
ATARI_SUFFIXES = (
    "-v0",
    "-v4",
    "NoFrameskip-v",
    "Deterministic-v",
    "-ram-v",
    "-ramNoFrameskip-v",
    "-ramDeterministic-v",
)
ATARI_IDS = tuple(f"{game}{suffix}" for game in ATARI_GAMES for suffix in ATARI_SUFFIXES)
HIGHWAY_SCENES = (
    "highway-",
    "merge-",
    "roundabout-",
    "parking-",
    "intersection-",
    "racetrack-",
    "two-way-",
    "exit-",
    "u-turn-",
    "lane-keeping-",
)
MULTI_OBJECTIVE = (
    "mo-",
    "deep-sea-treasure-",
    "breakable-bottles-",
    "fishwood-",
    "four-room-",
    "fruit-tree-",
    "minecart-",
    "resource-gathering-",
    "water-reservoir-",
)

PACKAGES = (
    EnvPackage(("ALE/", *ATARI_IDS), "ale_py", '"rlwandb-callbacks[atari]"'),
    EnvPackage(("MiniGrid-", "BabyAI-"), "minigrid", "minigrid"),
    EnvPackage(
        ("Fetch", "Hand", "Adroit", "FrankaKitchen", "PointMaze_", "AntMaze_"),
        "gymnasium_robotics",
        "gymnasium-robotics",
    ),
    EnvPackage(("Panda",), "panda_gym", "panda-gym"),
    EnvPackage(HIGHWAY_SCENES, "highway_env", "highway-env"),
    EnvPackage(("MiniWorld-",), "miniworld", "miniworld"),
    EnvPackage(("Meta-World/",), "metaworld", "metaworld"),
    EnvPackage(("FlappyBird-",), "flappy_bird_gymnasium", "flappy-bird-gymnasium"),
    EnvPackage(MULTI_OBJECTIVE, "mo_gymnasium", "mo-gymnasium"),
    EnvPackage(("rware-",), "rware", "rware"),
    EnvPackage(("Foraging-",), "lbforaging", "lbforaging"),
    EnvPackage(("TradingEnv", "MultiDatasetTradingEnv"), "gym_trading_env", "gym-trading-env"),
    EnvPackage(("dm_control/",), "shimmy", '"shimmy[dm-control]"'),
    EnvPackage((), "pettingzoo", '"rlwandb-callbacks[pettingzoo]"'),
)


def register(env_id: str) -> None:
    """Imports the package of an id that Gymnasium does not know, which registers it; does nothing if not installed."""
    package = _package_of(env_id)
    if env_id in gym.registry or package is None or importlib.util.find_spec(package.module) is None:
        return
    with preserved_process_settings():
        gym.register_envs(importlib.import_module(package.module))


def install_hint(env_id: str) -> str:
    """Returns a sentence on how to install the package of an id or import path; empty if it is installed or unknown."""
    package = _package_of(env_id)
    if env_id in gym.registry or package is None or importlib.util.find_spec(package.module) is not None:
        return ""
    return f" Such ids are those of {package.module}, which is not installed (pip install {package.requirement})."


def _package_of(env_id: str) -> EnvPackage | None:
    module = env_id.partition(":")[0].partition(".")[0]
    matches = (each for each in PACKAGES if env_id.startswith(each.prefixes) or module == each.module)
    return next(matches, None)


def may_use_mujoco(env: Any) -> bool:
    """Returns whether an environment, given by its spec or a function, may render with MuJoCo.

    Only the specs of Gymnasium and ALE show that it does not.
    """
    entry_point = env.entry_point if isinstance(env, EnvSpec) else None
    if isinstance(entry_point, str) and entry_point.startswith(MODULES_WITHOUT_MUJOCO):
        return entry_point.startswith(MUJOCO_MODULES)
    return importlib.util.find_spec("mujoco") is not None
