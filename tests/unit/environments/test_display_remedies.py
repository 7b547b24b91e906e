"""An error of rendering has a remedy only if it names a display or a graphics library, and that of its cause."""

from __future__ import annotations

import os
import types

import pytest

from rlwandb_callbacks.environments import display_remedies
from rlwandb_callbacks.environments.display_remedies import display_remedy


def error_of(module: str, name: str, text: str) -> Exception:
    """Returns an error whose class belongs to a module, as the real one does."""
    return type(name, (Exception,), {"__module__": module})(text)


def raised_in(module: str, error: Exception) -> Exception:
    """Returns an error that has passed through a function of a module."""
    code = types.ModuleType(module)
    exec("def fail(error):\n    raise error", code.__dict__)
    try:
        code.fail(error)
    except Exception as caught:  # noqa: BLE001  # whatever was given
        return caught
    raise AssertionError


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Graphics libraries that load, to be changed by the test."""
    found = ["EGL"]
    monkeypatch.setattr(display_remedies, "can_load", lambda library: library in found)
    for name in ("MUJOCO_GL", "SDL_VIDEODRIVER", "PYGLET_HEADLESS"):
        monkeypatch.delenv(name, raising=False)
    return found


@pytest.mark.parametrize(
    "error",
    [
        ValueError("could not broadcast input array from shape (3,) into shape (4,)"),
        AttributeError("'Car' object has no attribute 'viewer'"),
        ModuleNotFoundError("No module named 'cv2'"),
        TypeError("cannot pickle 'mmap.mmap' object"),
        ConnectionRefusedError("could not connect to server localhost:2000"),
        error_of("pygame", "error", "font not initialized"),
        error_of("pygame", "error", "File is not a Windows BMP file"),
        raised_in("gymnasium.envs.mujoco.mujoco_rendering", KeyError("camera")),
        raised_in("pyglet.text", ValueError("bad font size")),
        KeyError(),
    ],
)
def test_other_errors_have_no_remedy(libraries: list[str], error: Exception) -> None:
    assert display_remedy(error) == ""


@pytest.mark.parametrize(
    ("error", "fragments"),
    [
        (error_of("pyglet.canvas.xlib", "NoSuchDisplayException", 'Cannot connect to "None"'), ["PYGLET_HEADLESS=1"]),
        (raised_in("pyglet.lib", ImportError('Library "GLU" not found.')), ["libglu1-mesa"]),
        (error_of("pygame", "error", "No available video device"), ["SDL_VIDEODRIVER=offscreen"]),
        (error_of("mujoco", "FatalError", "an OpenGL platform library has not been loaded"), ["MUJOCO_GL=egl"]),
        (
            raised_in("mujoco.egl", AttributeError("'NoneType' object has no attribute 'eglQueryString'")),
            ["MUJOCO_GL=egl"],
        ),
        (raised_in("dm_control._render", RuntimeError("GLFW could not be initialized")), ["MUJOCO_GL=egl"]),
        (error_of("_tkinter", "TclError", "no display name and no $DISPLAY environment variable"), ["xvfb-run"]),
        (RuntimeError("Could not open display"), ["xvfb-run"]),
        (
            ImportError("Cannot load backend 'TkAgg' which requires the 'tk' interactive framework"),
            ["MPLBACKEND=Agg"],
        ),
    ],
)
def test_each_cause_has_its_own_remedy(libraries: list[str], error: Exception, fragments: list[str]) -> None:
    remedy = display_remedy(error)
    assert all(fragment in remedy for fragment in fragments)
    others = {"PYGLET_HEADLESS", "libglu1", "SDL_VIDEODRIVER", "MUJOCO_GL", "MPLBACKEND"}
    assert not [other for other in others if other in remedy and not any(other in each for each in fragments)]


def test_the_cause_of_an_error_counts(libraries: list[str]) -> None:
    wrapped = ValueError("The environment failed.")
    wrapped.__cause__ = error_of("pygame", "error", "No available video device")
    assert "SDL_VIDEODRIVER" in display_remedy(wrapped)


@pytest.mark.parametrize(
    ("driver", "fragments"), [("x11", ["SDL_VIDEODRIVER is 'x11'", "'offscreen'"]), ("offscreen,dummy", ["'dummy'"])]
)
def test_a_driver_that_is_set_is_named(
    libraries: list[str], monkeypatch: pytest.MonkeyPatch, driver: str, fragments: list[str]
) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", driver)
    remedy = display_remedy(error_of("pygame", "error", f"{driver} not available"))
    assert all(fragment in remedy for fragment in fragments)


@pytest.mark.parametrize(
    ("backend", "loads", "fragments"),
    [
        (None, [], ["neither is installed", "libegl1", "libosmesa6"]),
        (None, ["OSMesa"], ["MUJOCO_GL=osmesa"]),
        ("glfw", ["EGL"], ["MUJOCO_GL is 'glfw'", "MUJOCO_GL=egl"]),
        ("egl", ["EGL"], ["MUJOCO_GL is 'egl'", "libosmesa6"]),
        ("egl", ["EGL", "OSMesa"], ["MUJOCO_GL is 'egl'", "MUJOCO_GL=osmesa"]),
    ],
)
def test_the_remedy_of_mujoco_names_what_is_set_and_what_is_installed(
    libraries: list[str],
    monkeypatch: pytest.MonkeyPatch,
    backend: str | None,
    loads: list[str],
    fragments: list[str],
) -> None:
    libraries[:] = loads
    if backend is not None:
        monkeypatch.setitem(os.environ, "MUJOCO_GL", backend)
    remedy = display_remedy(error_of("mujoco", "FatalError", "gladLoadGL error"))
    assert all(fragment in remedy for fragment in fragments)


def test_pyglet_that_fails_with_its_headless_option_needs_a_virtual_display(
    libraries: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYGLET_HEADLESS", "1")
    remedy = display_remedy(error_of("pyglet.gl", "ContextException", "Could not create GL context"))
    assert "xvfb-run" in remedy
    assert "PYGLET_HEADLESS=1" not in remedy
