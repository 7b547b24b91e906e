from __future__ import annotations

from collections.abc import Callable

import pytest

from rlwandb_callbacks.environments import rendering
from rlwandb_callbacks.environments.rendering import set_mujoco_backend


@pytest.fixture
def no_display(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "PYOPENGL_PLATFORM", "MUJOCO_GL"):
        monkeypatch.setenv(name, "")  # so that what the function sets is taken back
        monkeypatch.delenv(name)
    return monkeypatch


def backend_after_setting() -> str | None:
    import os

    set_mujoco_backend()
    return os.environ.get("MUJOCO_GL")


@pytest.mark.parametrize(
    ("libraries", "expected"), [(("EGL", "OSMesa"), "egl"), (("OSMesa",), "osmesa"), (("EGL",), "egl"), ((), None)]
)
def test_backend_with_an_installed_library_is_set(
    no_display: pytest.MonkeyPatch, libraries: tuple[str, ...], expected: str | None
) -> None:
    no_display.setattr(rendering, "can_load", lambda library: library in libraries)
    assert backend_after_setting() == expected


def test_setting_of_the_user_is_kept(no_display: pytest.MonkeyPatch) -> None:
    for backend in ("glfw", "osmesa", ""):
        no_display.setenv("MUJOCO_GL", backend)
        assert backend_after_setting() == backend


def test_backend_is_not_set_if_there_is_a_display(no_display: pytest.MonkeyPatch) -> None:
    no_display.setenv("DISPLAY", ":0")
    assert backend_after_setting() is None


def test_platform_of_pyopengl_is_respected(no_display: pytest.MonkeyPatch) -> None:
    no_display.setattr(rendering, "can_load", lambda library: True)
    no_display.setenv("PYOPENGL_PLATFORM", "osmesa")
    assert backend_after_setting() == "osmesa"


def test_missing_library_does_not_load() -> None:
    assert not rendering.can_load("no_such_library_at_all")


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
    if not (rendering.can_load("EGL") or rendering.can_load("OSMesa")):
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
