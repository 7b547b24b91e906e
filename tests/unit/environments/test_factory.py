from __future__ import annotations

import enum
import pickle
import sys
import types
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import pytorch_lightning as pl
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from rlwandb_callbacks.core.action_spec import (
    BinaryActions,
    ContinuousActions,
    DiscreteActions,
    GroupedActions,
    OtherActions,
)
from rlwandb_callbacks.environments.description import describe_actions, frames_per_second
from rlwandb_callbacks.environments.factory import env_factory, resolve_attribute
from rlwandb_callbacks.environments.rendering import render
from rlwandb_callbacks.errors import ConfigError, EnvError, RenderError
from rlwandb_callbacks.testing import CorridorEnv, PointEnv


@pytest.fixture
def module_of_envs() -> Iterator[types.ModuleType]:
    module = types.ModuleType("envs_of_a_user")
    module.make_corridor = lambda render_mode=None: CorridorEnv(render_mode)
    module.Corridor = CorridorEnv
    module.number = 3
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


def short_corridor(render_mode: str | None = None) -> gym.Env[Any, Any]:
    return gym.wrappers.TimeLimit(CorridorEnv(render_mode), max_episode_steps=3)


def passes_on(**kwargs: Any) -> gym.Env[Any, Any]:
    return CorridorEnv(**kwargs)


@pytest.mark.parametrize(
    ("env", "kwargs", "inner"),
    [
        ("CartPole-v1", {}, "CartPoleEnv"),
        ("Pendulum-v1", {"g": 9.81}, "PendulumEnv"),
        ("LunarLander-v3", {"continuous": True}, "LunarLander"),
        (CorridorEnv, {}, "CorridorEnv"),
        (CorridorEnv, {"size": (8, 8)}, "CorridorEnv"),
        (short_corridor, {}, "CorridorEnv"),
        (passes_on, {}, "CorridorEnv"),
        ("envs_of_a_user:make_corridor", {}, "CorridorEnv"),
        ("envs_of_a_user.Corridor", {"size": (8, 8)}, "CorridorEnv"),
    ],
    ids=["id", "id with kwargs", "Box2D", "class", "class with kwargs", "wrapped", "**kwargs", "path:", "path."],
)
def test_factory_makes_new_environments_with_and_without_rendering(
    module_of_envs: types.ModuleType, env: Any, kwargs: dict[str, Any], inner: str
) -> None:
    factory = env_factory(env, kwargs)
    plain, rendering = factory(), factory(render=True)
    assert type(plain.unwrapped).__name__ == type(rendering.unwrapped).__name__ == inner
    assert plain is not rendering
    assert plain.render_mode is None
    rendering.reset(seed=0)
    assert render(rendering).ndim == 3
    plain.close()
    rendering.close()


def test_kwargs_are_passed_to_the_environment() -> None:
    assert env_factory("Pendulum-v1", {"g": 2.5})().unwrapped.g == 2.5
    assert env_factory(CorridorEnv, {"size": (8, 9)})(render=True).render().shape == (8, 9, 3)


def test_environment_with_a_spec_is_made_again() -> None:
    original = gym.make("CartPole-v1", max_episode_steps=7)
    copied = env_factory(original, {})()
    assert copied.unwrapped is not original.unwrapped
    assert copied.spec.max_episode_steps == 7


def test_environment_without_a_spec_is_copied() -> None:
    original = CorridorEnv(size=(8, 9))
    copied = env_factory(original, {})(render=True)
    assert copied is not original
    assert copied.render().shape == (8, 9, 3)


def test_environment_that_cannot_be_copied_raises_with_the_remedy() -> None:
    original = CorridorEnv()
    original.connection = (number for number in range(3))
    with pytest.raises(EnvError, match=r"neither be made again from its spec nor be copied.*generator.*to a function"):
        env_factory(original, {})


def test_kwargs_for_an_existing_environment_raise() -> None:
    with pytest.raises(EnvError, match=r"has its arguments already.*env_kwargs has 'g'\."):
        env_factory(gym.make("Pendulum-v1"), {"g": 3})


class Agent:
    """Module-like object with all kinds of attributes for ``evaluation.env``."""

    def __init__(self) -> None:
        self.env_id, self.nothing, self.number = "Pendulum-v1", None, 3
        self.hparams = {"gravity": 2.5}
        self.env = gym.make("CartPole-v1", max_episode_steps=7)
        self.args = types.SimpleNamespace(env_id="FrozenLake-v1")

    def make_env(self, render_mode: str | None = None, **kwargs: Any) -> gym.Env[Any, Any]:
        return gym.make("Pendulum-v1", g=self.hparams["gravity"], render_mode=render_mode, **kwargs)


@pytest.mark.parametrize(
    ("path", "kwargs", "inner"),
    [
        ("self.env_id", {"g": 1.0}, "PendulumEnv"),
        ("self.args.env_id", {}, "FrozenLakeEnv"),
        ("self.env", {}, "CartPoleEnv"),
        ("self.make_env", {}, "PendulumEnv"),
    ],
)
def test_environment_from_an_attribute_of_the_module(path: str, kwargs: dict[str, Any], inner: str) -> None:
    factory = env_factory(path, kwargs, Agent())
    assert type(factory().unwrapped).__name__ == type(factory(render=True).unwrapped).__name__ == inner


def test_attribute_path_through_dicts() -> None:
    module = SimpleNamespace(options={"eval": {"env": "Taxi-v4"}})
    assert resolve_attribute(module, "self.options.eval.env") == "Taxi-v4"


def test_environment_from_a_method_of_the_module() -> None:
    assert env_factory("self.make_env", {}, Agent())().unwrapped.g == 2.5


@pytest.mark.parametrize(
    ("path", "fragments"),
    [
        ("self.env_idd", ["Agent has no 'env_idd'", "Did you mean 'env_id'?"]),
        ("self.nothing", ["Agent has no 'nothing', or it is None"]),
        ("self.args.env", ["SimpleNamespace has no 'env'", "Did you mean 'env_id'?"]),
        ("self.number", ["is 3 of type int"]),
    ],
)
def test_missing_attribute_raises_with_the_nearest_name(path: str, fragments: list[str]) -> None:
    with pytest.raises(EnvError) as caught:
        env_factory(path, {}, Agent())
    assert [fragment for fragment in fragments if fragment not in str(caught.value)] == []


def test_packages_of_known_ids_are_imported(run_alone: Callable[[str], str]) -> None:
    output = run_alone(
        """
        from rlwandb_callbacks.environments.factory import env_factory
        env = env_factory("ALE/Pong-v5", {"frameskip": 4})()
        print(env.observation_space.shape)
        """
    )
    assert "(210, 160, 3)" in output


def test_missing_package_raises_with_the_install_command() -> None:
    for name, command in [("MiniGrid-Empty-5x5-v0", "minigrid"), ("PandaReach-v3", "panda-gym")]:
        with pytest.raises(EnvError, match=rf"\(pip install {command}\)"):
            env_factory(name, {})()


def test_pickled_factory_includes_the_spec_of_its_id() -> None:
    gym.register("OnlyHere-v0", entry_point="rlwandb_callbacks.testing:CorridorEnv", max_episode_steps=5)
    try:
        packed = pickle.dumps(env_factory("OnlyHere-v0", {"size": (4, 5)}))
    finally:
        del gym.registry["OnlyHere-v0"]
    env = pickle.loads(packed)(render=True)
    assert env.spec.max_episode_steps == 5
    env.reset()
    assert env.render().shape == (4, 5, 3)


def test_method_of_a_module_cannot_be_pickled() -> None:
    module = pl.LightningModule()
    module.make_env = types.MethodType(lambda self: CorridorEnv(), module)
    with pytest.raises(TypeError, match="stays in the training process"):
        pickle.dumps(env_factory("self.make_env", {}, module))


@pytest.mark.parametrize(
    ("env", "kwargs", "fragments"),
    [
        ("CartPol-v1", {}, ["'CartPol-v1'", "Did you mean 'CartPole-v1'?", "id of a registered"]),
        ("NoSuchEnvironmentAtAll-v0", {}, ["'NoSuchEnvironmentAtAll-v0'", "import path"]),
        ("no_such_module:make", {}, ["'no_such_module:make'"]),
        ("no_such_module.make", {}, ["'no_such_module.make'"]),
        ("envs_of_a_user:no_such_name", {}, ["'envs_of_a_user:no_such_name'"]),
        ("envs_of_a_user:number", {}, ["'envs_of_a_user:number'"]),
        ("CartPole-v1", {"gravity": 3}, ["env_kwargs 'gravity' cannot be made", "TypeError"]),
        (CorridorEnv, {"color": 1}, ["env_kwargs 'color' cannot be made", "TypeError"]),
        (dict, {}, ["dict returned an object of type dict", "gymnasium.Env"]),
        (lambda: 1 / 0, {}, ["ZeroDivisionError"]),
    ],
    ids=[
        "typo",
        "unknown id",
        "unknown module",
        "unknown module.",
        "unknown name",
        "no function",
        "unknown kwarg of id",
        "unknown kwarg of class",
        "no env",
        "raises",
    ],
)
def test_environment_that_cannot_be_made_raises_with_what_is_allowed(
    module_of_envs: types.ModuleType, env: Any, kwargs: dict[str, Any], fragments: list[str]
) -> None:
    with pytest.raises(EnvError) as caught:
        env_factory(env, kwargs)()
    assert [fragment for fragment in fragments if fragment not in str(caught.value)] == []


class WithSpace(CorridorEnv):
    """A corridor with another action space."""

    def __init__(self, space: spaces.Space[Any]) -> None:
        super().__init__()
        self.action_space = space


def test_action_names_are_found_inside_wrappers() -> None:
    assert describe_actions(short_corridor()) == DiscreteActions(("STAY", "RIGHT"))


class Moves(enum.IntEnum):
    """Actions of an environment, in the way of MiniGrid."""

    left = 0
    right = 1
    forward = 2
    pickup = 3


class Crafting(WithSpace):
    """Environment with the attribute ``action_names``, as Crafter."""

    def __init__(self, space: spaces.Space[Any], names: Any) -> None:
        super().__init__(space)
        self.get_action_meanings = None
        self.action_names = names


class WithMoves(WithSpace):
    """Environment with an enum of actions, as MiniGrid, BabyAI and MiniWorld."""

    get_action_meanings = None

    def __init__(self, count: int = 3, actions: Any = Moves) -> None:
        super().__init__(spaces.Discrete(count))
        self.actions = actions


class Renamed(gym.Wrapper[Any, Any, Any, Any]):
    """Wrapper with its own names."""

    def __init__(self, env: Any, *names: str) -> None:
        super().__init__(env)
        self.names = list(names)

    def get_action_meanings(self) -> list[str]:
        return self.names


class Swapped(gym.ActionWrapper[Any, Any, Any]):
    """Wrapper with actions in another order."""

    def action(self, action: Any) -> Any:
        return 1 - action


class PassingOn(gym.Wrapper[Any, Any, Any, Any]):
    """Wrapper in the way of old Gym, which passes all names on."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (WithMoves, ("left", "right", "forward")),
        (lambda: WithMoves(2), ("left", "right")),
        (lambda: WithMoves(5), ("0", "1", "2", "3", "4")),
        (lambda: WithMoves(2, (Moves.pickup, Moves.left)), ("pickup", "left")),
        (lambda: WithMoves(2, {1: "faster", 0: "slower"}), ("slower", "faster")),
        (lambda: WithMoves(2, {"faster": 1, "slower": 0}), ("slower", "faster")),
        (lambda: WithMoves(2, np.array([0.5, 1.0])), ("0", "1")),
        (lambda: Crafting(spaces.Discrete(2), ["noop", "sleep"]), ("noop", "sleep")),
        (lambda: Renamed(WithMoves(2), "up", "down"), ("up", "down")),
        (lambda: Renamed(WithMoves(2), "up", "down", "jump"), ("left", "right")),
        (lambda: gym.wrappers.TimeLimit(Renamed(WithMoves(2), "up", "down"), 3), ("up", "down")),
        (lambda: Swapped(WithMoves(2)), ("0", "1")),
        (lambda: PassingOn(Swapped(short_corridor())), ("0", "1")),
        (lambda: Renamed(Swapped(WithMoves(2)), "b", "a"), ("b", "a")),
        (lambda: gym.wrappers.StickyAction(WithMoves(2), 0.1), ("left", "right")),
        (lambda: SyncVectorEnv([lambda: Renamed(WithMoves(2), "up", "down")] * 2), ("up", "down")),
        (lambda: AsyncVectorEnv([lambda: WithMoves(2)] * 2), ("left", "right")),
        (lambda: gym.make_vec("ALE/Freeway-v5", 2), ("NOOP", "UP", "DOWN")),
    ],
)
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_actions_have_the_names_of_the_outermost_layer_that_names_all_of_them(make: Any, expected: Any) -> None:
    env = make()
    assert describe_actions(env) == DiscreteActions(expected)
    env.close()


def test_dimensions_have_the_names_of_the_environment() -> None:
    box, pair = spaces.Box(-1.0, 1.0, (2,)), spaces.MultiDiscrete([2, 3])
    assert describe_actions(Crafting(box, ["steer", "gas"])).names == ("steer", "gas")
    assert describe_actions(Crafting(box, ["steer"])).names == ()
    assert describe_actions(Crafting(pair, ["steer", "gas"])).titles == ("steer", "gas")
    assert describe_actions(Crafting(spaces.MultiBinary(2), ["fire", "jump"])).names == ("fire", "jump")


@pytest.mark.parametrize(
    ("space", "part"),
    [
        (spaces.Discrete(2, start=5), "names"),
        (spaces.Box(-1.0, 1.0, (2,)), "names"),
        (spaces.MultiDiscrete([2, 3]), "titles"),
        (spaces.MultiBinary(2), "names"),
    ],
)
def test_given_action_names_replace_those_of_the_environment(space: Any, part: str) -> None:
    assert getattr(describe_actions(WithSpace(space), ["a", "b"]), part) == ("a", "b")
    with pytest.raises(
        ConfigError, match=r"evaluation\.action_names has 3 names, a, b, c; it must have 2, one for each"
    ):
        describe_actions(WithSpace(space), ["a", "b", "c"])


def test_given_names_for_actions_without_names_raise() -> None:
    with pytest.raises(ConfigError, match=r"have no names\. Remove it"):
        describe_actions(WithSpace(spaces.Dict({"a": spaces.Discrete(2)})), ["a"])


def test_action_names_of_another_number_are_ignored() -> None:
    assert describe_actions(WithSpace(spaces.Discrete(3))) == DiscreteActions(("0", "1", "2"))


def test_action_names_include_the_start_of_the_space() -> None:
    assert describe_actions(WithSpace(spaces.Discrete(3, start=-1))) == DiscreteActions(("-1", "0", "1"), first=-1)
    assert describe_actions(WithSpace(spaces.Discrete(2, start=5))) == DiscreteActions(("STAY", "RIGHT"), first=5)


def test_bounds_are_flattened_and_may_be_infinite() -> None:
    low = np.array([[-1.0, -np.inf], [0.0, 0.5]], np.float32)
    described = describe_actions(WithSpace(spaces.Box(low, np.full((2, 2), 2.0, np.float32))))
    assert isinstance(described, ContinuousActions)
    assert described.low.tolist() == [-1.0, -np.inf, 0.0, 0.5]
    assert described.high.tolist() == [2.0] * 4


def test_multi_discrete_actions_are_described_per_dimension() -> None:
    two, from_five = DiscreteActions(("0", "1")), DiscreteActions(("5", "6", "7"), first=5)
    space = spaces.MultiDiscrete([2, 3], start=[0, 5])
    assert describe_actions(WithSpace(space)) == GroupedActions((two, from_five)), "names of dimensions, not of options"
    assert describe_actions(WithSpace(spaces.MultiDiscrete(np.full((3, 2), 2)))) == GroupedActions((two,) * 6)


def test_options_have_the_names_of_the_environment() -> None:
    env = WithSpace(spaces.MultiDiscrete([2, 3]))
    env.get_action_meanings = lambda: [["stay", "go"], ["left", "ahead"]]
    assert describe_actions(env).groups[0].names == ("stay", "go")
    assert describe_actions(env).groups[1].names == ("0", "1", "2")
    assert describe_actions(WithSpace(spaces.MultiBinary(2))) == BinaryActions(("STAY", "RIGHT"))
    assert describe_actions(WithSpace(spaces.MultiBinary((2, 2)))) == BinaryActions(("a[0]", "a[1]", "a[2]", "a[3]"))


@pytest.mark.parametrize(
    "space", [spaces.Dict({"a": spaces.Discrete(2)}), spaces.Tuple([spaces.Discrete(2)])], ids=["Dict", "Tuple"]
)
def test_dict_and_tuple_actions_have_no_description(space: spaces.Space[Any]) -> None:
    assert describe_actions(WithSpace(space)) == OtherActions()


@pytest.mark.parametrize(
    ("fps", "expected"), [(12, 12.0), (12.5, 12.5), (0, 30.0), (-5, 30.0), ("50", 30.0), (None, 30.0)]
)
def test_frames_per_second_of_the_metadata_or_the_default(fps: Any, expected: float) -> None:
    env = CorridorEnv()
    env.metadata = {} if fps is None else {"render_fps": fps}
    assert frames_per_second(env) == expected


def test_frames_per_second_of_real_envs() -> None:
    assert frames_per_second(gym.make("CartPole-v1")) == 50.0
    assert frames_per_second(PointEnv()) == 30.0


class FixedFrameEnv(CorridorEnv):
    """A corridor that renders a fixed object."""

    def __init__(self, rendered: Any) -> None:
        super().__init__("rgb_array")
        self._rendered = rendered

    def render(self) -> Any:
        return self._rendered


COLORS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


@pytest.mark.parametrize(
    ("rendered", "expected"),
    [
        (COLORS, COLORS),
        (np.concatenate([COLORS, np.full((4, 6, 1), 9, np.uint8)], axis=-1), COLORS),
        (COLORS[..., 0], COLORS[..., :1].repeat(3, axis=-1)),
        (COLORS[..., :1], COLORS[..., :1].repeat(3, axis=-1)),
        ([COLORS * 0, COLORS], COLORS),
        (COLORS[:, ::-1], COLORS[:, ::-1]),
    ],
    ids=["RGB", "RGBA", "gray", "gray with an axis", "list of frames", "view"],
)
def test_frames_of_any_kind_become_rgb(rendered: Any, expected: np.ndarray) -> None:
    frame = render(FixedFrameEnv(rendered))
    assert np.array_equal(frame, expected)
    assert (frame.dtype, frame.flags.c_contiguous) == (np.uint8, True)


@pytest.mark.parametrize(
    ("rendered", "description"),
    [
        (None, "returned None"),
        ("text", "str"),
        ([], "list"),
        (np.zeros((4, 6, 2)), "ndarray of shape (4, 6, 2)"),
        (np.zeros((0, 6, 3)), "ndarray of shape (0, 6, 3)"),
        (np.zeros(3), "ndarray of shape (3,)"),
        (np.zeros((3, 4, 6)), "ndarray of shape (3, 4, 6)"),
    ],
)
def test_invalid_frame_raises_with_what_is_needed(rendered: Any, description: str) -> None:
    with pytest.raises(RenderError) as caught:
        render(FixedFrameEnv(rendered))
    assert description in str(caught.value)
    assert "render_mode='rgb_array'" in str(caught.value)
    assert "[H, W, 3]" in str(caught.value)
    assert ("must take render_mode" in str(caught.value)) == (rendered is None)
    assert ("[H, W, 1]" in str(caught.value)) == (rendered is not None)


def test_failed_rendering_raises_with_the_remedy() -> None:
    class Headless(CorridorEnv):
        def render(self) -> Any:
            raise OSError("no OpenGL platform library")

    with pytest.raises(RenderError) as caught:
        render(Headless("rgb_array"))
    for fragment in ("Headless", "OSError: no OpenGL", "xvfb-run", "video_logger=False"):
        assert fragment in str(caught.value)


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1", "LunarLander-v3", "BipedalWalker-v3"])
def test_frames_of_real_envs_are_contiguous(name: str) -> None:
    env = env_factory(name, {})(render=True)
    env.reset(seed=0)
    frame = render(env)
    env.close()
    assert frame.flags.c_contiguous
    assert frame.shape[-1] == 3
    assert frame.std() > 0
