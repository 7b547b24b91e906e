"""Remedies for environments that fail to render because a display or a graphics library is missing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from rlwandb_callbacks.environments.headless import MUJOCO_LIBRARIES, can_load

MUJOCO_PACKAGES = ("mujoco", "dm_control", "gymnasium.envs.mujoco", "robosuite")
XVFB = "start the training under a virtual display: xvfb-run -a python … (apt-get install xvfb)"
APT_GET = {"egl": "apt-get install libegl1", "osmesa": "apt-get install libosmesa6"}
MUJOCO_TEXT = re.compile(r"MUJOCO_GL|mjr_makeContext", re.IGNORECASE)
OPENGL_TEXT = re.compile(r"\bE?GL\b|eglQuery|glGet|OpenGL|gladLoad|OSMesa|GLFW|GLX|\blibE?GL\b", re.IGNORECASE)
SDL_TEXT = re.compile(
    r"video (device|driver)|not available|initialize video|open.*(display|console)|X11|wayland|KMSDRM|OpenGL|EGL",
    re.IGNORECASE,
)
DISPLAY_TEXT = re.compile(
    r"NoSuchDisplay|DISPLAY environment|\$DISPLAY|no display|\bX11? ?server|XOpenDisplay|"
    r"(connect|open|find|access)\w*( to)?( the| a| any)? (X |X11 )?display",
    re.IGNORECASE,
)
PYGLET_TEXT = re.compile(r"display|context|config|library \"?\w*GL|EGL|headless", re.IGNORECASE)


def display_remedy(error: BaseException) -> str:
    """Returns what to do about an error of rendering, as a sentence and a space.

    It is empty unless the error, or one that led to it, names a display, OpenGL or a video driver.

    Example:
        >>> display_remedy(ValueError("wrong number of colors"))
        ''
    """
    return next((f"{remedy} " for each in _chain(error) if (remedy := _remedy(each))), "")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and those that led to it, the latest first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _remedy(error: BaseException) -> str:
    kind, text = type(error).__module__, f"{type(error).__name__}: {error}"
    modules = {kind, *_modules_of(error)}
    if _any_of(modules, ("pyglet",)) and PYGLET_TEXT.search(text):
        return _pyglet_remedy(text)
    if kind.partition(".")[0] == "pygame":
        return _sdl_remedy() if SDL_TEXT.search(text) else ""
    if MUJOCO_TEXT.search(text) or (_any_of(modules, MUJOCO_PACKAGES) and _names_display(text)):
        return _mujoco_remedy()
    if "interactive framework" in text:
        return "Matplotlib draws without a display with MPLBACKEND=Agg, set before Python starts."
    if _names_display(text):
        return f"Without a display, {XVFB}."
    return ""


def _modules_of(error: BaseException) -> Iterator[str]:
    """Yields the names of the modules that an error has passed through."""
    traceback = error.__traceback__
    while traceback is not None:
        yield str(traceback.tb_frame.f_globals.get("__name__", ""))
        traceback = traceback.tb_next


def _any_of(modules: set[str], packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for module in modules for package in packages)


def _names_display(text: str) -> bool:
    return bool(OPENGL_TEXT.search(text) or DISPLAY_TEXT.search(text))


def _pyglet_remedy(text: str) -> str:
    if "library" in text.lower():
        return "pyglet needs the libraries of OpenGL: apt-get install libgl1 libglu1-mesa libegl1."
    if os.environ.get("PYGLET_HEADLESS"):
        return f"PYGLET_HEADLESS is set, and pyglet does not work with it here. Remove it, and {XVFB}."
    return (
        "pyglet draws without a display if PYGLET_HEADLESS=1 is set before Python starts (it needs libEGL, apt-get "
        f"install libegl1). Otherwise {XVFB}."
    )


def _sdl_remedy() -> str:
    driver = os.environ.get("SDL_VIDEODRIVER")
    if driver is None:
        return "pygame draws without a display if SDL_VIDEODRIVER=offscreen is set before Python starts."
    return (
        f"SDL_VIDEODRIVER is {driver!r}, which does not work here. Without a display 'offscreen' works with pygame "
        "2.4, pygame-ce 2.2 and later, and 'dummy' with earlier ones."
    )


def _mujoco_remedy() -> str:
    current = os.environ.get("MUJOCO_GL", "")
    loads = [backend for backend, library in MUJOCO_LIBRARIES.items() if can_load(library)]
    others = [f"set MUJOCO_GL={backend} before Python starts" for backend in loads if backend != current]
    others += [APT_GET[backend] for backend in MUJOCO_LIBRARIES if backend not in loads]
    if not loads:
        return (
            "MuJoCo renders without a display through libEGL or libOSMesa, and neither is installed: "
            f"{' or '.join(others)}."
        )
    if not current:
        return f"MuJoCo renders without a display if you {others[0]}."
    return f"MUJOCO_GL is {current!r}, which does not work here: {', or '.join(others)}."
