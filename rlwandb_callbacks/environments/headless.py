"""What simulators need in order to draw on a machine without a display."""

from __future__ import annotations

import ctypes.util
import os
import sys

from rlwandb_callbacks.errors import RenderError, describe_error

WITHOUT_VIDEOS = "Numbers are logged all the same; video_logger=False ends this warning."
HEADLESS_REMEDY = (
    "On a machine without a display MuJoCo needs libEGL or libOSMesa (apt-get install libegl1, or apt-get install "
    "libosmesa6); MUJOCO_GL=egl or MUJOCO_GL=osmesa, set before Python starts, tells it which. pygame environments "
    f"need SDL_VIDEODRIVER=dummy. {WITHOUT_VIDEOS}"
)


def drawing_error(what: str, cause: Exception, *, has_drawn: bool) -> RenderError:
    """Says that an environment failed to draw; with the remedy for a missing display where that may be why.

    Args:
        what: Failed, as the beginning of a sentence.
        cause: What the environment raised.
        has_drawn: It gave a picture before, so it has all that it needs in order to draw.
    """
    return RenderError(f"{what}: {describe_error(cause)} {WITHOUT_VIDEOS if has_drawn else HEADLESS_REMEDY}")


def has_display() -> bool:
    """Whether there is a screen to draw on; only Linux is asked, others always have one."""
    return sys.platform != "linux" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def quiet_sdl() -> None:
    """Tells SDL, on which pygame environments draw, not to look for a display where there is none, and complain."""
    if not has_display():
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


def choose_mujoco_backend() -> None:
    """Sets ``MUJOCO_GL`` where there is no display and the user has not set it: EGL where its library is, else OSMesa.

    MuJoCo reads it when it is imported or first draws. Where neither library is found nothing is set, and rendering
    fails with MuJoCo's own message.
    """
    if has_display() or "MUJOCO_GL" in os.environ:
        return
    backends = {"egl": "EGL", "osmesa": "OSMesa"}
    decided = os.environ.get("PYOPENGL_PLATFORM", "").lower()
    for backend, library in backends.items():
        # PyOpenGL, through which MuJoCo's backends draw, can be of one kind only.
        if decided in ("", backend) and loads(library):
            os.environ["MUJOCO_GL"] = backend
            return


def loads(library: str) -> bool:
    """Whether a shared library is there and loads."""
    name = ctypes.util.find_library(library)
    if name is None:
        return False
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True
