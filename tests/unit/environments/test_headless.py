from __future__ import annotations

from collections.abc import Callable

import pytest

from rlwandb_callbacks.environments import headless
from rlwandb_callbacks.environments.headless import choose_mujoco_backend


@pytest.fixture
def no_display(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "PYOPENGL_PLATFORM", "MUJOCO_GL"):
        monkeypatch.setenv(name, "")  # so that what the function sets is taken back
        monkeypatch.delenv(name)
    return monkeypatch


def chosen() -> str | None:
    import os

    choose_mujoco_backend()
    return os.environ.get("MUJOCO_GL")


@pytest.mark.parametrize(
    ("libraries", "expected"), [(("EGL", "OSMesa"), "egl"), (("OSMesa",), "osmesa"), (("EGL",), "egl"), ((), None)]
)
def test_the_backend_whose_library_is_there_is_chosen(
    no_display: pytest.MonkeyPatch, libraries: tuple[str, ...], expected: str | None
) -> None:
    no_display.setattr(headless, "loads", lambda library: library in libraries)
    assert chosen() == expected


def test_what_the_user_has_set_stays(no_display: pytest.MonkeyPatch) -> None:
    for backend in ("glfw", "osmesa", ""):
        no_display.setenv("MUJOCO_GL", backend)
        assert chosen() == backend


def test_nothing_is_set_where_there_is_a_display(no_display: pytest.MonkeyPatch) -> None:
    no_display.setenv("DISPLAY", ":0")
    assert chosen() is None


def test_the_kind_that_pyopengl_is_told_to_be_is_kept_to(no_display: pytest.MonkeyPatch) -> None:
    no_display.setattr(headless, "loads", lambda library: True)
    no_display.setenv("PYOPENGL_PLATFORM", "osmesa")
    assert chosen() == "osmesa"


def test_a_library_that_does_not_exist_does_not_load() -> None:
    assert not headless.loads("no_such_library_at_all")


DRAW = """
import os
import gymnasium as gym
from rlwandb_callbacks.environments.factory import env_maker
from rlwandb_callbacks.environments.rendering import render
{before}
env = env_maker({env}, {{}})(render=True)
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
def test_mujoco_draws_without_a_display_and_without_settings(
    run_alone: Callable[[str], str], before: str, env: str
) -> None:
    if not (headless.loads("EGL") or headless.loads("OSMesa")):
        pytest.skip("needs libegl1 or libosmesa6")
    told = run_alone(DRAW.format(before=before, env=env)).splitlines()[-1]
    assert told.split(" ", 1)[0] in ("egl", "osmesa")
    assert told.endswith("(480, 480, 3) True True")


def test_envs_without_mujoco_set_nothing(run_alone: Callable[[str], str]) -> None:
    script = """
    import os
    from rlwandb_callbacks.environments.factory import env_maker
    env_maker("CartPole-v1", {})(render=True)
    print("MUJOCO_GL" in os.environ)
    """
    assert run_alone(script).strip() == "False"
