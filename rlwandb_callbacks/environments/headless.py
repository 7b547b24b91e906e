"""Settings with which simulators render without a display."""

from __future__ import annotations

import ctypes.util
import importlib.metadata
import importlib.util
import os
import re
import sys
from functools import cache

MUJOCO_LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}
# First versions whose SDL has an offscreen driver; earlier ones raise an error for it.
PYGAME_WITH_OFFSCREEN = {"pygame": (2, 4), "pygame-ce": (2, 2, 1)}


def set_headless_backends() -> None:
    """Sets what SDL, MuJoCo and pyglet need if there is no display, unless the user has set it.

    Most packages read these variables when they are imported.
    """
    set_sdl_driver()
    set_mujoco_backend()
    set_pyglet_headless()


def has_display() -> bool:
    """Returns whether a display is available; True on all platforms but Linux."""
    return sys.platform != "linux" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def set_sdl_driver() -> None:
    """Sets the video driver of SDL, with which pygame environments draw, if there is no display.

    Environments may draw nothing with SDL's ``dummy`` driver (highway-env), so it is set only for a pygame that has no
    ``offscreen`` driver.
    """
    if not has_display() and "SDL_VIDEODRIVER" not in os.environ:
        os.environ["SDL_VIDEODRIVER"] = "offscreen,dummy" if _sdl_has_offscreen() else "dummy"


def _sdl_has_offscreen() -> bool:
    """Returns whether the installed pygame has SDL's offscreen driver, without importing it."""
    for name, first in PYGAME_WITH_OFFSCREEN.items():
        try:
            found = re.match(r"\d+(\.\d+)*", importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            continue
        if found and tuple(map(int, found[0].split("."))) < first:
            return False
    return True


def set_mujoco_backend() -> None:
    """Sets ``MUJOCO_GL`` if there is no display and the user has not set it: EGL if its library loads, else OSMesa.

    MuJoCo reads the variable when it first renders, dm_control when it is imported. If neither library loads, the
    variable is not set, and rendering fails with MuJoCo's message.
    """
    if has_display() or "MUJOCO_GL" in os.environ:
        return
    platform = os.environ.get("PYOPENGL_PLATFORM", "").lower()
    for backend, library in MUJOCO_LIBRARIES.items():
        # MuJoCo's backends render through PyOpenGL, which supports one platform per process.
        if platform in ("", backend) and can_load(library):
            os.environ["MUJOCO_GL"] = backend
            return


def set_pyglet_headless() -> None:
    """Sets pyglet's headless option if there is no display: it draws through EGL then, whose library must load."""
    is_needed = not has_display() and "PYGLET_HEADLESS" not in os.environ
    if is_needed and importlib.util.find_spec("pyglet") is not None and can_load("EGL"):
        os.environ["PYGLET_HEADLESS"] = "1"


@cache
def can_load(library: str) -> bool:
    """Returns whether a shared library exists and loads; found out once in a process."""
    name = ctypes.util.find_library(library)
    if name is None:
        return False
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True
