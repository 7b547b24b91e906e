from __future__ import annotations

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

from rlwandb_callbacks.core.action_spec import (
    BinaryActions,
    ContinuousActions,
    DiscreteActions,
    GroupedActions,
    OtherActions,
)
from rlwandb_callbacks.environments.factory import attribute_of, describe_actions, env_maker, frames_per_second
from rlwandb_callbacks.environments.rendering import render
from rlwandb_callbacks.errors import EnvError, RenderError
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
def test_whatever_stands_for_an_env_makes_fresh_ones_with_and_without_pictures(
    module_of_envs: types.ModuleType, env: Any, kwargs: dict[str, Any], inner: str
) -> None:
    maker = env_maker(env, kwargs)
    plain, pictured = maker(), maker(render=True)
    assert type(plain.unwrapped).__name__ == type(pictured.unwrapped).__name__ == inner
    assert plain is not pictured
    assert plain.render_mode is None
    pictured.reset(seed=0)
    assert render(pictured).ndim == 3
    plain.close()
    pictured.close()


def test_kwargs_reach_the_env() -> None:
    assert env_maker("Pendulum-v1", {"g": 2.5})().unwrapped.g == 2.5
    assert env_maker(CorridorEnv, {"size": (8, 9)})(render=True).render().shape == (8, 9, 3)


def test_an_env_that_was_made_is_made_again_and_not_used_itself() -> None:
    given = gym.make("CartPole-v1", max_episode_steps=7)
    made = env_maker(given, {})()
    assert made.unwrapped is not given.unwrapped
    assert made.spec.max_episode_steps == 7


def test_an_env_without_a_spec_is_copied() -> None:
    given = CorridorEnv(size=(8, 9))
    made = env_maker(given, {})(render=True)
    assert made is not given
    assert made.render().shape == (8, 9, 3)


def test_an_env_that_can_neither_be_made_again_nor_copied_is_refused_with_the_remedy() -> None:
    given = CorridorEnv()
    given.connection = (number for number in range(3))
    with pytest.raises(
        EnvError, match=r"neither be made again from its spec nor be copied.*generator.*Give a function"
    ):
        env_maker(given, {})


def test_arguments_for_an_env_that_was_made_are_refused() -> None:
    with pytest.raises(EnvError, match=r"env_kwargs is \{'g': 3\}.*has its arguments already"):
        env_maker(gym.make("Pendulum-v1"), {"g": 3})


class Agent:
    """Holds what an attribute path may lead to."""

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
def test_attributes_of_the_module_stand_for_what_they_hold(path: str, kwargs: dict[str, Any], inner: str) -> None:
    maker = env_maker(path, kwargs, Agent())
    assert type(maker().unwrapped).__name__ == type(maker(render=True).unwrapped).__name__ == inner


def test_entries_of_dicts_on_the_module_stand_for_what_they_hold_too() -> None:
    assert attribute_of(SimpleNamespace(options={"eval": {"env": "Taxi-v4"}}), "self.options.eval.env") == "Taxi-v4"


def test_a_method_of_the_module_makes_envs_by_its_hyper_parameters() -> None:
    assert env_maker("self.make_env", {}, Agent())().unwrapped.g == 2.5


@pytest.mark.parametrize(
    ("path", "fragments"),
    [
        ("self.env_idd", ["Agent has no 'env_idd'", "Did you mean 'env_id'?"]),
        ("self.nothing", ["Agent has no 'nothing', or it is None"]),
        ("self.args.env", ["SimpleNamespace has no 'env'", "Did you mean 'env_id'?"]),
        ("self.number", ["is 3 of type int"]),
    ],
)
def test_an_attribute_path_that_leads_nowhere_says_where_it_ended(path: str, fragments: list[str]) -> None:
    with pytest.raises(EnvError) as caught:
        env_maker(path, {}, Agent())
    assert [fragment for fragment in fragments if fragment not in str(caught.value)] == []


def test_ids_of_packages_that_nobody_imported_are_known(run_alone: Callable[[str], str]) -> None:
    told = run_alone(
        """
        from rlwandb_callbacks.environments.factory import env_maker
        env = env_maker("ALE/Pong-v5", {"frameskip": 4})()
        print(env.observation_space.shape)
        """
    )
    assert "(210, 160, 3)" in told


def test_a_package_that_is_missing_is_named_with_how_to_install_it() -> None:
    for name, command in [("MiniGrid-Empty-5x5-v0", "minigrid"), ("PandaReach-v3", "panda-gym")]:
        with pytest.raises(EnvError, match=rf"pip install {command} "):
            env_maker(name, {})()


def test_makers_go_to_other_processes_with_ids_that_are_known_here_alone() -> None:
    gym.register("OnlyHere-v0", entry_point="rlwandb_callbacks.testing:CorridorEnv", max_episode_steps=5)
    try:
        packed = pickle.dumps(env_maker("OnlyHere-v0", {"size": (4, 5)}))
    finally:
        del gym.registry["OnlyHere-v0"]
    env = pickle.loads(packed)(render=True)
    assert env.spec.max_episode_steps == 5
    env.reset()
    assert env.render().shape == (4, 5, 3)


def test_a_method_of_a_module_does_not_take_it_to_another_process() -> None:
    module = pl.LightningModule()
    module.make_env = types.MethodType(lambda self: CorridorEnv(), module)
    with pytest.raises(TypeError, match="stays in the training process"):
        pickle.dumps(env_maker("self.make_env", {}, module))


@pytest.mark.parametrize(
    ("env", "kwargs", "fragments"),
    [
        ("CartPol-v1", {}, ["'CartPol-v1'", "Did you mean 'CartPole-v1'?", "id of a registered"]),
        ("NoSuchEnvironmentAtAll-v0", {}, ["'NoSuchEnvironmentAtAll-v0'", "import path"]),
        ("no_such_module:make", {}, ["'no_such_module:make'"]),
        ("no_such_module.make", {}, ["'no_such_module.make'"]),
        ("envs_of_a_user:no_such_name", {}, ["'envs_of_a_user:no_such_name'"]),
        ("envs_of_a_user:number", {}, ["'envs_of_a_user:number'"]),
        ("CartPole-v1", {"gravity": 3}, ["env_kwargs {'gravity': 3}", "TypeError"]),
        (CorridorEnv, {"color": 1}, ["env_kwargs {'color': 1}", "TypeError"]),
        (dict, {}, ["gave {} of type dict", "gymnasium.Env"]),
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
def test_an_env_that_cannot_be_made_is_named_with_what_is_allowed(
    module_of_envs: types.ModuleType, env: Any, kwargs: dict[str, Any], fragments: list[str]
) -> None:
    with pytest.raises(EnvError) as caught:
        env_maker(env, kwargs)()
    assert [fragment for fragment in fragments if fragment not in str(caught.value)] == []


class WithSpace(CorridorEnv):
    """A corridor with another action space."""

    def __init__(self, space: spaces.Space[Any]) -> None:
        super().__init__()
        self.action_space = space


def test_names_of_actions_are_found_below_wrappers() -> None:
    assert describe_actions(short_corridor()) == DiscreteActions(("STAY", "RIGHT"))


def test_as_many_names_as_actions_or_none() -> None:
    assert describe_actions(WithSpace(spaces.Discrete(3))) == DiscreteActions(("0", "1", "2"))


def test_actions_are_counted_from_their_start() -> None:
    assert describe_actions(WithSpace(spaces.Discrete(3, start=-1))) == DiscreteActions(("-1", "0", "1"), first=-1)
    assert describe_actions(WithSpace(spaces.Discrete(2, start=5))) == DiscreteActions(("STAY", "RIGHT"), first=5)


def test_bounds_are_flat_and_may_be_infinite() -> None:
    low = np.array([[-1.0, -np.inf], [0.0, 0.5]], np.float32)
    described = describe_actions(WithSpace(spaces.Box(low, np.full((2, 2), 2.0, np.float32))))
    assert isinstance(described, ContinuousActions)
    assert described.low.tolist() == [-1.0, -np.inf, 0.0, 0.5]
    assert described.high.tolist() == [2.0] * 4


def test_several_choices_are_described_one_by_one() -> None:
    two, from_five = DiscreteActions(("0", "1")), DiscreteActions(("5", "6", "7"), first=5)
    space = spaces.MultiDiscrete([2, 3], start=[0, 5])
    assert describe_actions(WithSpace(space)) == GroupedActions((two, from_five)), "names of choices are no options"
    assert describe_actions(WithSpace(spaces.MultiDiscrete(np.full((3, 2), 2)))) == GroupedActions((two,) * 6)


def test_options_and_switches_have_the_names_that_the_environment_gives() -> None:
    env = WithSpace(spaces.MultiDiscrete([2, 3]))
    env.get_action_meanings = lambda: [["stay", "go"], ["left", "ahead"]]
    assert describe_actions(env).groups[0].names == ("stay", "go")
    assert describe_actions(env).groups[1].names == ("0", "1", "2")
    assert describe_actions(WithSpace(spaces.MultiBinary(2))) == BinaryActions(("STAY", "RIGHT"))
    assert describe_actions(WithSpace(spaces.MultiBinary((2, 2)))) == BinaryActions(("a[0]", "a[1]", "a[2]", "a[3]"))


@pytest.mark.parametrize(
    "space", [spaces.Dict({"a": spaces.Discrete(2)}), spaces.Tuple([spaces.Discrete(2)])], ids=["Dict", "Tuple"]
)
def test_other_spaces_are_shown_as_they_are_written(space: spaces.Space[Any]) -> None:
    assert describe_actions(WithSpace(space)) == OtherActions()


@pytest.mark.parametrize(
    ("fps", "expected"), [(12, 12.0), (12.5, 12.5), (0, 30.0), (-5, 30.0), ("50", 30.0), (None, 30.0)]
)
def test_frames_per_second_are_those_of_the_env_where_it_tells_usable_ones(fps: Any, expected: float) -> None:
    env = CorridorEnv()
    env.metadata = {} if fps is None else {"render_fps": fps}
    assert frames_per_second(env) == expected


def test_frames_per_second_of_real_envs() -> None:
    assert frames_per_second(gym.make("CartPole-v1")) == 50.0
    assert frames_per_second(PointEnv()) == 30.0


class Showing(CorridorEnv):
    """A corridor whose picture is what it is told."""

    def __init__(self, picture: Any) -> None:
        super().__init__("rgb_array")
        self._picture = picture

    def render(self) -> Any:
        return self._picture


COLORS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (COLORS, COLORS),
        (np.concatenate([COLORS, np.full((4, 6, 1), 9, np.uint8)], axis=-1), COLORS),
        (COLORS[..., 0], COLORS[..., :1].repeat(3, axis=-1)),
        (COLORS[..., :1], COLORS[..., :1].repeat(3, axis=-1)),
        ([COLORS * 0, COLORS], COLORS),
        (COLORS.astype(np.float32), COLORS),
        (COLORS[:, ::-1], COLORS[:, ::-1]),
    ],
    ids=["RGB", "RGBA", "gray", "gray with an axis", "list of frames", "floats", "view"],
)
def test_pictures_of_any_kind_become_rgb(picture: Any, expected: np.ndarray) -> None:
    frame = render(Showing(picture))
    assert np.array_equal(frame, expected)
    assert (frame.dtype, frame.flags.c_contiguous) == (np.uint8, True)


@pytest.mark.parametrize(
    ("picture", "answer"),
    [
        (None, "nothing"),
        ("text", "str"),
        ([], "list"),
        (np.zeros((4, 6, 2)), "ndarray of shape (4, 6, 2)"),
        (np.zeros((0, 6, 3)), "ndarray of shape (0, 6, 3)"),
        (np.zeros(3), "ndarray of shape (3,)"),
        (np.zeros((3, 4, 6)), "ndarray of shape (3, 4, 6)"),
    ],
)
def test_what_is_no_picture_is_named_with_what_is_needed(picture: Any, answer: str) -> None:
    with pytest.raises(RenderError) as caught:
        render(Showing(picture))
    assert answer in str(caught.value)
    assert "render_mode='rgb_array'" in str(caught.value)
    assert "[H, W, 3]" in str(caught.value)
    asks_for_the_mode, names_the_shapes = "must take render_mode" in str(caught.value), "[H, W, 1]" in str(caught.value)
    assert (asks_for_the_mode, names_the_shapes) == ((True, False) if picture is None else (False, True))


def test_an_env_that_fails_to_render_is_named_with_the_remedy() -> None:
    class Headless(CorridorEnv):
        def render(self) -> Any:
            raise OSError("no OpenGL platform library")

    with pytest.raises(RenderError) as caught:
        render(Headless("rgb_array"))
    for fragment in ("Headless", "OSError: no OpenGL", "MUJOCO_GL=egl", "SDL_VIDEODRIVER=dummy", "video_logger=False"):
        assert fragment in str(caught.value)


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1", "LunarLander-v3", "BipedalWalker-v3"])
def test_real_envs_give_contiguous_pictures(name: str) -> None:
    env = env_maker(name, {})(render=True)
    env.reset(seed=0)
    frame = render(env)
    env.close()
    assert frame.flags.c_contiguous
    assert frame.shape[-1] == 3
    assert frame.std() > 0
