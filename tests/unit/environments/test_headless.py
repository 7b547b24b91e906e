from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from collections.abc import Callable

import pytest

from rlwandb_callbacks.environments import headless
from rlwandb_callbacks.environments.headless import set_mujoco_backend

UNSET = ("DISPLAY", "WAYLAND_DISPLAY", "PYOPENGL_PLATFORM", "MUJOCO_GL", "SDL_VIDEODRIVER", "PYGLET_HEADLESS")


@pytest.fixture
def no_display(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr("sys.platform", "linux")
    for name in UNSET:
        monkeypatch.setenv(name, "")  # so that what the function sets is taken back
        monkeypatch.delenv(name)
    return monkeypatch


def backend_after_setting() -> str | None:
    set_mujoco_backend()
    return os.environ.get("MUJOCO_GL")


@pytest.mark.parametrize(
    ("libraries", "expected"), [(("EGL", "OSMesa"), "egl"), (("OSMesa",), "osmesa"), (("EGL",), "egl"), ((), None)]
)
def test_backend_with_an_installed_library_is_set(
    no_display: pytest.MonkeyPatch, libraries: tuple[str, ...], expected: str | None
) -> None:
    no_display.setattr(headless, "can_load", lambda library: library in libraries)
    assert backend_after_setting() == expected


def test_setting_of_the_user_is_kept(no_display: pytest.MonkeyPatch) -> None:
    for backend in ("glfw", "osmesa", ""):
        no_display.setenv("MUJOCO_GL", backend)
        assert backend_after_setting() == backend


def test_backend_is_not_set_if_there_is_a_display(no_display: pytest.MonkeyPatch) -> None:
    no_display.setenv("DISPLAY", ":0")
    assert backend_after_setting() is None


def test_platform_of_pyopengl_is_respected(no_display: pytest.MonkeyPatch) -> None:
    no_display.setattr(headless, "can_load", lambda library: True)
    no_display.setenv("PYOPENGL_PLATFORM", "osmesa")
    assert backend_after_setting() == "osmesa"


def test_missing_library_does_not_load() -> None:
    assert not headless.can_load("no_such_library_at_all")


@pytest.mark.parametrize(
    ("versions", "driver"),
    [
        ({"pygame-ce": "2.5.8"}, "offscreen,dummy"),
        ({"pygame": "2.6.1"}, "offscreen,dummy"),
        ({"pygame": "2.4.0"}, "offscreen,dummy"),
        ({"pygame-ce": "2.2.1"}, "offscreen,dummy"),
        ({}, "offscreen,dummy"),
        ({"pygame": "2.3.0"}, "dummy"),
        ({"pygame": "2.1.3"}, "dummy"),
        ({"pygame-ce": "2.1.4"}, "dummy"),
        ({"pygame-ce": "2.2.0"}, "dummy"),
        ({"pygame-ce": "2.5.8", "pygame": "2.1.3"}, "dummy"),
    ],
)
def test_sdl_draws_offscreen_if_the_installed_pygame_can(
    no_display: pytest.MonkeyPatch, versions: dict[str, str], driver: str
) -> None:
    def version(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    no_display.setattr(importlib.metadata, "version", version)
    headless.set_sdl_driver()
    assert os.environ["SDL_VIDEODRIVER"] == driver


def test_drivers_of_the_user_are_kept(no_display: pytest.MonkeyPatch) -> None:
    chosen = {"SDL_VIDEODRIVER": "dummy", "MUJOCO_GL": "osmesa", "PYGLET_HEADLESS": "0"}
    for name, value in chosen.items():
        no_display.setenv(name, value)
    headless.set_headless_backends()
    assert {name: os.environ[name] for name in chosen} == chosen


def test_nothing_is_set_if_there_is_a_display(no_display: pytest.MonkeyPatch) -> None:
    no_display.setenv("DISPLAY", ":0")
    no_display.setattr(headless, "can_load", lambda library: True)
    headless.set_headless_backends()
    assert not {"SDL_VIDEODRIVER", "MUJOCO_GL", "PYGLET_HEADLESS"} & set(os.environ)


def test_pyglet_draws_without_a_window_if_it_is_installed(no_display: pytest.MonkeyPatch) -> None:
    no_display.setattr(headless, "can_load", lambda library: True)
    for installed, value in ((None, None), ("a spec", "1")):
        no_display.setattr(importlib.util, "find_spec", lambda name, found=installed: found)
        headless.set_headless_backends()
        assert os.environ.get("PYGLET_HEADLESS") == value


DRAWS_WITH_SDL = """
import os
os.environ.pop("SDL_VIDEODRIVER", None)
import numpy as np
import gymnasium as gym
from rlwandb_callbacks.environments.factory import env_factory
from rlwandb_callbacks.environments.rendering import render

class Road(gym.Env):
    observation_space = action_space = gym.spaces.Discrete(2)
    def __init__(self, render_mode=None): self.render_mode = render_mode
    def reset(self, seed=None, options=None): return 0, {}
    def render(self):  # like highway-env's viewer
        import pygame
        pygame.init()
        screen = pygame.display.set_mode((60, 40))
        if os.environ.get("SDL_VIDEODRIVER") != "dummy":
            screen.fill((100, 100, 100))
            pygame.draw.rect(screen, (50, 200, 0), (10, 10, 9, 5))
            pygame.display.flip()
        return np.transpose(pygame.surfarray.array3d(screen), (1, 0, 2))

env = env_factory(Road, {})(render=True)
env.reset()
print(np.unique(render(env).reshape(-1, 3), axis=0).tolist())
"""


def test_pygame_environments_that_do_not_draw_with_the_dummy_driver_have_pictures(
    run_alone: Callable[[str], str],
) -> None:
    assert run_alone(DRAWS_WITH_SDL).splitlines()[-1] == "[[50, 200, 0], [100, 100, 100]]"


READS_AT_IMPORT = """
import os, sys
from pathlib import Path
from rlwandb_callbacks.environments.factory import env_factory
Path("simulator.py").write_text('''
import os
BACKEND = os.environ.get("MUJOCO_GL")
import gymnasium as gym
class Arm(gym.Env):
    observation_space = action_space = gym.spaces.Discrete(2)
    def __init__(self, render_mode=None): self.render_mode = render_mode
''')
sys.path.append(".")
env_factory("simulator:Arm", {})
print(sys.modules["simulator"].BACKEND)
"""


def test_mujoco_backend_is_set_before_a_package_is_imported(run_alone: Callable[[str], str]) -> None:
    if not (headless.can_load("EGL") or headless.can_load("OSMesa")):
        pytest.skip("needs libegl1 or libosmesa6")
    pytest.importorskip("mujoco")
    assert run_alone(READS_AT_IMPORT).strip() in ("egl", "osmesa")


DRAW = """
import os
import gymnasium as gym
from rlwandb_callbacks.environments.factory import env_factory
from rlwandb_callbacks.environments.rendering import render
{before}
env = env_factory({env}, {{}})(render=True)
env.reset(seed=0)
frame = render(env)
env.close()
print(os.environ["MUJOCO_GL"], frame.shape, frame.std() > 20, len(set(map(tuple, frame[::8, ::8].reshape(-1, 3)))) > 20)
"""


@pytest.mark.parametrize(
    ("before", "env"),
    [
        ("", "'HalfCheetah-v5'"),
        ("", "lambda render_mode=None: gym.make('HalfCheetah-v5', render_mode=render_mode)"),
        ("gym.make('HalfCheetah-v5').reset(seed=1)", "'HalfCheetah-v5'"),
    ],
    ids=["id", "function", "mujoco was imported before"],
)
def test_mujoco_renders_without_a_display_and_without_settings(
    run_alone: Callable[[str], str], before: str, env: str
) -> None:
    if not (headless.can_load("EGL") or headless.can_load("OSMesa")):
        pytest.skip("needs libegl1 or libosmesa6")
    output = run_alone(DRAW.format(before=before, env=env)).splitlines()[-1]
    assert output.split(" ", 1)[0] in ("egl", "osmesa")
    assert output.endswith("(480, 480, 3) True True")


def test_backend_is_not_set_for_environments_without_mujoco(run_alone: Callable[[str], str]) -> None:
    script = """
    import os
    from rlwandb_callbacks.environments.factory import env_factory
    env_factory("CartPole-v1", {})(render=True)
    print("MUJOCO_GL" in os.environ)
    """
    assert run_alone(script).strip() == "False"
