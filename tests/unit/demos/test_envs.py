"""Environments of the demo agents: Atari with its wrappers, and errors for missing simulators."""

from __future__ import annotations

import importlib
import re
import sys

import numpy as np
import pytest
import torch
from episodes import play_in_single_envs

from rlwandb_callbacks.cli import shorten
from rlwandb_callbacks.core.action_spec import DiscreteActions
from rlwandb_callbacks.core.episode import PolicyStep
from rlwandb_callbacks.demos.atari import make_atari, make_qbert
from rlwandb_callbacks.demos.dqn import DQN
from rlwandb_callbacks.demos.playing import make_env
from rlwandb_callbacks.environments.description import describe_actions, frames_per_second
from rlwandb_callbacks.environments.factory import env_factory
from rlwandb_callbacks.environments.rendering import render
from rlwandb_callbacks.errors import EnvError
from rlwandb_callbacks.evaluation.replay import replay


def test_qbert_has_small_gray_observations_and_renders_in_color() -> None:
    make = env_factory("rlwandb_callbacks.demos.atari:make_qbert", {})
    env = make(render=True)
    observation, _ = env.reset(seed=0)
    frame = render(env)
    assert (observation.shape, observation.dtype) == ((4, 84, 84), np.uint8)
    assert frame.shape == (210, 160, 3)
    assert len(np.unique(frame.reshape(-1, 3), axis=0)) > 2
    assert (frame[..., 0] != frame[..., 2]).any()
    assert make().render_mode is None


def test_atari_actions_have_names() -> None:
    assert describe_actions(make_qbert()) == DiscreteActions(("NOOP", "FIRE", "UP", "RIGHT", "LEFT", "DOWN"), 0)


@pytest.mark.parametrize(("frame_skip", "fps"), [(4, 15.0), (2, 30.0)])
def test_atari_videos_play_at_the_speed_of_the_game(frame_skip: int, fps: float) -> None:
    env = make_qbert(frame_skip=frame_skip)
    assert frames_per_second(env) == fps
    env.reset(seed=0)
    before = env.unwrapped.ale.getFrameNumber()  # type: ignore[attr-defined]  # of the emulator
    env.step(0)
    assert env.unwrapped.ale.getFrameNumber() - before == frame_skip  # type: ignore[attr-defined]  # as above


def test_a_game_of_thousands_of_frames_is_replayed_exactly() -> None:
    def make(*, render_mode: str | None = None) -> object:
        return make_atari("ALE/Freeway-v5", render_mode=render_mode)

    maker = env_factory(make, {})
    actions = np.random.default_rng(0).integers(3, size=5_000)
    taken = iter(actions)
    (played,) = play_in_single_envs(
        maker, lambda _: PolicyStep(np.array([next(taken)])), seeds=[7], num_envs=1, max_steps=27_000
    )
    assert played.episode.length > 2_000
    assert not played.episode.truncated
    frames = sum(1 for _ in replay(lambda: maker(render=True), played.episode))
    assert frames == played.episode.length + 1


def test_the_q_network_scales_images_to_0_to_1() -> None:
    module = DQN("rlwandb_callbacks.demos.atari:make_qbert", hidden_size=16, buffer_size=50, stacked_frames=4)
    images = torch.as_tensor(module.player._observation)[None]
    scaled = module.q_network[0](images)
    assert 0.0 <= float(scaled.min()) < float(scaled.max()) <= 1.0
    assert module(images).shape == (1, 6)


def test_an_unknown_env_is_an_error_that_suggests_the_nearest_name() -> None:
    with pytest.raises(EnvError, match="Did you mean 'CartPole-v1'"):
        make_env("CartPole-v11")


@pytest.mark.parametrize(("env_id", "agent"), [("Blackjack-v1", "dqn.DQN"), ("CartPole-v1", "sac.SAC")])
def test_unsupported_spaces_are_an_error(env_id: str, agent: str) -> None:
    name, _, kind = agent.partition(".")
    module = importlib.import_module(f"rlwandb_callbacks.demos.{name}")
    with pytest.raises(ValueError, match=f"{kind} needs"):
        getattr(module, kind)(env_id)


@pytest.mark.parametrize(
    ("env_id", "package", "home", "extra"),
    [
        ("LunarLander-v3", "Box2D", "gymnasium.envs.box2d", "box2d"),
        ("HalfCheetah-v5", "mujoco", "gymnasium.envs.mujoco", "mujoco"),
        ("rlwandb_callbacks.demos.atari:make_qbert", "ale_py", "ale_py", "atari"),
        ("rlwandb_callbacks.demos.atari:make_qbert", "cv2", "cv2", "atari"),
    ],
)
def test_a_missing_simulator_is_an_error_with_the_install_command(
    env_id: str, package: str, home: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith(home)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # makes the import fail
    with pytest.raises(ImportError, match=re.escape(f'pip install "rlwandb-callbacks[{extra}]"')):
        make_env(env_id)


def test_the_command_line_shortens_that_error() -> None:
    said = (
        "Does not validate against any of the Union subtypes\nErrors:\n"
        "  - Problem with given class_path 'rlwandb_callbacks.demos.ppo.PPO':\n"
        '      LunarLander-v3 needs box2d; install it with: pip install "rlwandb-callbacks[box2d]"\n'
        "  - Expected a <class 'NoneType'>"
    )
    assert shorten(said) == 'LunarLander-v3 needs box2d; install it with: pip install "rlwandb-callbacks[box2d]"'
