"""Environments that are not as Gymnasium's are named before training, with what can be done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from evaluations import KeptErrors
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn
from torchrl.envs import GymEnv

from rlwandb_callbacks.config import EvaluationConfig, WandbRLConfig
from rlwandb_callbacks.core.action_spec import DiscreteActions
from rlwandb_callbacks.errors import ConfigError, EnvError
from rlwandb_callbacks.evaluation.evaluator import Evaluator
from rlwandb_callbacks.evaluation.preserved_state import preserved_state
from rlwandb_callbacks.testing import CorridorEnv, PointEnv


def stay(observations: Any) -> torch.Tensor:
    return torch.zeros(len(observations), dtype=torch.int64)


def evaluator_of(env: Any, module: nn.Module | None = None, **evaluation: Any) -> tuple[Evaluator, list[str]]:
    """Returns an evaluator, and the warnings when it was made."""
    cfg = WandbRLConfig(evaluation=EvaluationConfig(**{"env": env, "policy": stay, "episodes": 2, **evaluation}))
    errors, module = KeptErrors(), module or nn.Module()
    with preserved_state(module, seed=0):
        return Evaluator(cfg, module, errors.warn_once), errors.warnings


def message_for(env: Any, module: nn.Module | None = None) -> str:
    with pytest.raises(EnvError) as caught:
        evaluator_of(env, module)
    return str(caught.value)


class Steps(CorridorEnv):
    """Environment with a given reward and what follows it."""

    steps: Any = ()

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        return (observation, *self.steps) if self.steps else (observation, reward, terminated, truncated, info)


class BareObservation(Steps):
    def reset(self, **options: Any) -> Any:
        super().reset(**options)
        return np.zeros(4, np.float32)


class NoSeed(Steps):
    def reset(self) -> Any:  # type: ignore[override]
        return super().reset(seed=0)[0]


class FourValues(Steps):
    metadata = None  # type: ignore[assignment]
    steps = (1.0, False, {})


class Objectives(Steps):
    steps = (np.array([1.0, -2.0]), False, False, {})


class Agents(Steps):
    steps = ([0.5, 0.5], False, False, {})


class AgentsByName(Steps):
    steps = ({"a": 0.5, "b": 0.5}, False, False, {})


@pytest.mark.parametrize(
    ("env", "fragments"),
    [
        (NoSeed, ["NoSeed has a reset() that takes no seed", "subclass of gymnasium.Env", "{'episodes':"]),
        (BareObservation, ["reset() that returns ndarray of shape (4,) instead of (observation, info)", "the id"]),
        (FourValues, ["step() that returns a tuple of 4 instead of five values", "terminated, truncated, info)"]),
        (lambda: gym.wrappers.TimeLimit(FourValues(), 3), ["FourValues has a step() that returns four values"]),
        (Objectives, ["returned the reward array([ 1., -2.])", "LinearReward(env, weight)"]),
        (
            lambda: SyncVectorEnv([Objectives] * 2),
            ["returned the reward array([ 1., -2.])", "LinearReward(env, weight)"],
        ),
        (Agents, ["returned the reward [0.5, 0.5]", "pettingzoo.ParallelEnv", "{'episodes':"]),
        (AgentsByName, ["returned the reward {'a': 0.5, 'b': 0.5}", "pettingzoo.ParallelEnv"]),
    ],
    ids=["no seed", "no info", "four values", "four in a wrapper", "objectives", "vector", "agents", "agents by name"],
)
def test_other_interface_is_named_with_the_way_round(env: Any, fragments: list[str]) -> None:
    message = message_for(env)
    assert [fragment for fragment in fragments if fragment not in message] == []


def with_base(module: str, name: str = "Env") -> Callable[[], Any]:
    """Returns a class with ``reset`` and ``step`` and a base class of another package."""
    methods = {"reset": lambda self: 0, "step": lambda self, action: (0, 0.0, False, {})}
    base = type(name, (), {**methods, "__module__": module})
    return type("Task", (base,), {})


@pytest.mark.parametrize(
    ("make", "fragments"),
    [
        (
            with_base("gym.core"),
            ["environment of the old package Gym", "the id of a Gymnasium environment", "'episodes'"],
        ),
        (with_base("envpool.python.gym_envpool"), ["pool of EnvPool", "env_type='gymnasium'"]),
        (with_base("dm_env._environment"), ["environment of dm_env", "dm_control/cartpole-swingup-v0"]),
        (with_base("mine"), ["not a subclass of gymnasium.Env", "observation_space", "'episodes'"]),
        (lambda: GymEnv("CartPole-v1"), ["environment of TorchRL", "the id", "ObservationNorm"]),
        (lambda: DummyVecEnv([CorridorEnv]), ["vector of Stable-Baselines3", "VecNormalize"]),
    ],
    ids=["Gym", "EnvPool", "dm_env", "plain", "TorchRL", "Stable-Baselines3"],
)
@pytest.mark.parametrize("is_held", [False, True])
def test_environment_of_another_package_is_named(make: Any, fragments: list[str], is_held: bool) -> None:
    module = nn.Module()
    module.env = make()
    message = message_for("self.env", module) if is_held else message_for(make)
    assert [fragment for fragment in fragments if fragment not in message] == []


def test_environment_without_metadata_is_played() -> None:
    class Bare(CorridorEnv):
        metadata = None  # type: ignore[assignment]

    evaluator, _ = evaluator_of(Bare, max_steps=2)
    assert evaluator.env.fps == 30.0
    assert [played.episode.length for played in evaluator.play(seeds=[0])] == [2]


def test_error_of_a_random_action_warns() -> None:
    class Strict(CorridorEnv):
        def step(self, action: Any) -> Any:
            raise RuntimeError("not in this state")

    _, warnings = evaluator_of(Strict)
    assert [text for text in warnings if "Strict failed at a first step, with the random action" in text]


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*(error from Worker|Raising the last exception|pending call):UserWarning")
@pytest.mark.parametrize("vectorize", [SyncVectorEnv, AsyncVectorEnv])
def test_error_of_the_first_step_of_a_vector_warns(vectorize: Any) -> None:
    class Broken(CorridorEnv):
        def step(self, action: Any) -> Any:
            raise TypeError("an array is assigned to a number")

    _, warnings = evaluator_of(lambda: vectorize([Broken] * 2))
    (warning,) = (text for text in warnings if "failed at a first step, with the random action" in text)
    assert "TypeError: an array is assigned to a number" in warning


class Emulator(CorridorEnv):
    """Environment of which a process can have one, as stable-retro."""

    is_open = False

    def __init__(self, render_mode: str | None = None) -> None:
        if Emulator.is_open:
            raise RuntimeError("Cannot create multiple emulator instances per process")
        super().__init__(render_mode)
        Emulator.is_open = True

    def close(self) -> None:
        Emulator.is_open = False


@pytest.mark.parametrize(("settings", "num_warnings"), [({"episodes": 5}, 1), ({"episodes": 5, "num_envs": 1}, 0)])
def test_an_environment_that_a_process_can_have_once_plays_all_episodes(
    settings: dict[str, int], num_warnings: int
) -> None:
    evaluator, warnings = evaluator_of(Emulator, policy=lambda obs: torch.ones(len(obs), dtype=torch.int64), **settings)
    assert [text[:67] for text in warnings] == [
        "evaluation.env Emulator cannot be made a second time while one is open: RuntimeError"[:67]
    ] * num_warnings
    assert [(each.episode.seed, each.episode.length) for each in evaluator.play()] == [(i, 2 + i) for i in range(5)]
    assert not Emulator.is_open


def test_an_environment_that_the_training_occupies_is_named() -> None:
    held = Emulator()
    message = message_for(Emulator)
    held.close()
    assert "Cannot create multiple emulator instances per process" in message
    assert "Another environment of this process is still open, such as that of the training" in message
    assert "Allowed are the id" not in message


class Pool(VectorEnv[Any, Any, Any]):
    """Vector that takes seeds and ignores them, as EnvPool; each reset starts from another state."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012  # as in Gymnasium
    num_envs = 2
    single_observation_space = spaces.Box(0.0, 99.0, (1,), np.float32)
    single_action_space = spaces.Discrete(2)
    observation_space = batch_space(single_observation_space, 2)
    action_space = batch_space(single_action_space, 2)
    resets = 0

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.resets += 1
        return np.full((2, 1), self.resets, np.float32), {}

    def step(self, actions: Any) -> Any:
        return np.zeros((2, 1), np.float32), np.ones(2), np.ones(2, bool), np.zeros(2, bool), {}

    def close(self, **options: Any) -> None: ...


def test_episodes_of_a_vector_that_ignores_seeds_have_none() -> None:
    evaluator, warnings = evaluator_of(Pool)
    assert [played.episode.seed for played in evaluator.play()] == [None, None]
    assert [text[:60] for text in warnings] == ["evaluation.env Pool starts differently when it is reset twic"]


class Modes(PointEnv):
    """Environment that renders no array, and says so."""

    metadata = {"render_modes": ["human", "ansi"]}  # noqa: RUF012  # as in Gymnasium

    def __init__(self, render_mode: str | None = None) -> None:
        if render_mode == "rgb_array":
            raise ValueError("no such mode\nAllowed are human and ansi.")
        super().__init__(render_mode)


class Unlisted(PointEnv):
    metadata = {"render_modes": ["human"]}  # noqa: RUF012  # as in Gymnasium


class NoModes(PointEnv):
    metadata = {"render_modes": []}  # noqa: RUF012  # as in Gymnasium

    def render(self) -> Any:
        raise NotImplementedError("no pictures")


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        (Modes, "the render modes 'human', 'ansi' and not 'rgb_array'{end} (ValueError: no such mode{off}"),
        (NoModes, "no render modes in its metadata{end} (NotImplementedError: no pictures{off}"),
        (Unlisted, None),
        (PointEnv, None),
    ],
)
def test_missing_render_mode_is_said_in_one_sentence_unless_there_are_pictures(env: Any, expected: str | None) -> None:
    evaluator, warnings = evaluator_of(env, policy=lambda observations: torch.zeros(len(observations), 1))
    assert evaluator.can_render() == (expected is None)
    text = (
        ""
        if expected is None
        else expected.format(
            end=", so no videos are made in this training", off="); video_logger=False turns this warning off."
        )
    )
    assert warnings == ([f"evaluation.env {env.__name__} has {text}"] if text else [])


def test_action_names_of_the_settings_are_checked_when_fit_starts() -> None:
    evaluator, _ = evaluator_of(CorridorEnv, action_names=["wait", "go"])
    assert evaluator.env.actions == DiscreteActions(("wait", "go"))
    with pytest.raises(ConfigError, match="has 1 names, wait; it must have 2, one for each of the actions"):
        evaluator_of(CorridorEnv, action_names=["wait"])


def test_statistics_of_other_observations_warn() -> None:
    module = nn.Module()
    module.envs = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    _, warnings = evaluator_of("CartPole-v1", module)
    (warning,) = warnings
    assert "self.envs normalizes observations, but its running statistics do not fit" in warning


@pytest.mark.parametrize(
    ("env", "kwargs"),
    [
        ("Keyed-v0", {"other": "secret"}),
        (lambda key: 1 / 0, {"key": "secret"}),
        (dict, {"key": "secret"}),
        (gym.make, {"id": "Keyed-v0", "other": "secret"}),
    ],
    ids=["id", "function", "no environment", "function of Gymnasium"],
)
def test_arguments_of_environments_are_in_no_message(env: Any, kwargs: dict[str, Any]) -> None:
    gym.register("Keyed-v0", lambda key: FourValues(), kwargs={"key": "secret" * 200})
    try:
        with pytest.raises(EnvError) as caught:
            evaluator_of(env, env_kwargs=kwargs)
        made = message_for("Keyed-v0")
    finally:
        del gym.registry["Keyed-v0"]
    assert "secret" not in str(caught.value)
    assert made.startswith("evaluation.env 'Keyed-v0' has a step() that returns")
    assert "secret" not in made
