"""How videos are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rlwandb_callbacks.config.validation import check_types, require
from rlwandb_callbacks.core.episode_choice import CHOICES, DEFAULT_AT_MOST, RANKS
from rlwandb_callbacks.core.import_string import import_object
from rlwandb_callbacks.errors import ConfigError, nearest


@dataclass(frozen=True, kw_only=True)
class VideosConfig:
    """How videos are made.

    Args:
        fps: Frames per second, 0.1 to 1000; by default ``render_fps`` of the environment's metadata, else 30.
        crf: H.264 quality, 0 (lossless) to 51; 23 keeps small text legible.
        max_bytes: Frames that may be held at a time, where they cannot be made by playing again, ≥ 1,000,000. Episodes
            that need more are shown with every second, fourth, … frame, and their captions say so.
        select: Which episodes: any of ``best``, ``median``, ``worst``, ``failures``, ``successes``, ``random``,
            ``longest``, ``shortest``, and import paths (``package.module:function``) of functions that take the
            episodes and return indices into them; or one such name, path or function alone.
        max_per_choice: Videos, ≥ 1, for each of ``failures``, ``successes``, ``random`` and a function's indices.

    Example:
        >>> VideosConfig(select=["best", "fails"])
        Traceback (most recent call last):
            ...
        rlwandb_callbacks.errors.ConfigError: videos.select names 'fails'. Did you mean 'failures'? ...
    """

    fps: float | None = None
    crf: int = 23
    max_bytes: int = 2**28
    select: list[str | Callable[..., Any]] | str | Callable[..., Any] = field(
        default_factory=lambda: list[str | Callable[..., Any]](RANKS)
    )
    max_per_choice: int = DEFAULT_AT_MOST

    key_prefix = "videos."

    def __post_init__(self) -> None:
        check_types(self)
        require(self, "fps", lambda value: value is None or 0.1 <= value <= 1000, "a number from 0.1 to 1000")
        require(self, "crf", lambda value: 0 <= value <= 51, "a whole number from 0 to 51")
        require(self, "max_bytes", lambda value: value >= 1_000_000, "a whole number ≥ 1,000,000")
        require(self, "max_per_choice", lambda value: value >= 1, "a whole number ≥ 1")
        require(self, "select", lambda value: value not in ([], ""), "one name or more; video_logger=False ends videos")
        self.choices()

    def choices(self) -> list[str | Callable[..., Any]]:
        """The names of ``select``, and the functions that its import paths lead to."""
        given = self.select if isinstance(self.select, list) else [self.select]
        return [_choice(each) if isinstance(each, str) else each for each in given]


def _choice(name: str) -> str | Callable[..., Any]:
    if name in CHOICES:
        return name
    try:
        found = import_object(name) if "." in name or ":" in name else None
    except (ImportError, AttributeError, ValueError):
        found = None
    if not callable(found):
        raise ConfigError(
            f"videos.select names '{name}'.{nearest(name, CHOICES)} Allowed are {', '.join(CHOICES)}, and the import "
            "path of a function that takes the episodes and returns indices ('package.module:function')."
        )
    return found  # type: ignore[no-any-return]  # import gives Any
