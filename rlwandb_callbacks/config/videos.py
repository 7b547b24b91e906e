"""How videos are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from rlwandb_callbacks.config.validation import Bounds, OneOf, PositiveInt, Section, widened
from rlwandb_callbacks.core.episode_choice import CHOICES, DEFAULT_AT_MOST, LABELS
from rlwandb_callbacks.core.import_string import find_object
from rlwandb_callbacks.errors import ConfigError, nearest

PRESETS = ("small", "smallest", "light")

if TYPE_CHECKING:
    Selection: TypeAlias = list[str | Callable[..., Any]] | str | Callable[..., Any]
else:
    Selection = widened(list[str | Callable[..., Any]] | str | Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class VideosConfig(Section, key="videos"):
    """How videos are made.

    Args:
        fps: Frames per second, 0.1 to 1000; by default ``render_fps`` of the environment's metadata, else 30.
        crf: H.264 quality, 0 (lossless) to 51; at 23 small text is legible.
        preset: ``small`` for few bytes: the encoder compares each frame with the eight before it. ``smallest`` also has
            fewer key frames, so that players seek slowly. ``light`` for less memory and CPU time of the encoder: it
            compares with one frame.
        max_bytes: Memory budget of the recorded frames if episodes cannot be replayed, ≥ 1,000,000. Longer episodes
            keep every second, fourth, … frame, and their captions say so.
        select: Which episodes: any of ``best``, ``median``, ``worst``, ``failures``, ``successes``, ``random``,
            ``longest``, ``shortest``, functions that take the episodes and return indices into them, and import paths
            of such functions (``package.module:function``); a list of them, or a single one.
        max_seconds: Time limit in seconds of each video, figure and picture of an evaluation, > 0; None for no limit.
            What takes longer, as ``render()`` or ffmpeg hangs, is left out, and the worker that it blocks is replaced.
            An ffmpeg that takes no frame for half of this time is ended, and the contact sheet is kept.
        max_per_choice: Largest number of videos for each of ``failures``, ``successes``, ``random`` and the indices of
            a function, ≥ 1.

    Example:
        >>> VideosConfig(select=["best", "fails"])
        Traceback (most recent call last):
            ...
        rlwandb_callbacks.errors.ConfigError: videos.select contains 'fails'. Did you mean 'failures'? ...
    """

    fps: Annotated[float, Bounds(ge=0.1, le=1000)] | None = None
    crf: Annotated[int, Bounds(ge=0, le=51)] = 23
    preset: Annotated[str, OneOf(*PRESETS)] = "small"
    max_bytes: Annotated[int, Bounds(ge=1_000_000)] = 2**28
    select: Selection = field(default_factory=lambda: list[str | Callable[..., Any]](LABELS))
    max_seconds: Annotated[float, Bounds(gt=0)] | None = 600.0
    max_per_choice: PositiveInt = DEFAULT_AT_MOST

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.choices():
            raise ConfigError(
                "videos.select is []; it must contain at least one name. To turn videos off, set video_logger to false."
            )

    def choices(self) -> list[str | Callable[..., Any]]:
        """Returns the names in ``select``, and the functions that its import paths lead to."""
        selected = self.select if isinstance(self.select, list) else [self.select]
        return [_choice(each) if isinstance(each, str) else each for each in selected]


def _choice(name: str) -> str | Callable[..., Any]:
    if name in CHOICES:
        return name
    function = find_object(name)
    if not callable(function):
        raise ConfigError(
            f"videos.select contains {name!r}.{nearest(name, CHOICES)} Each entry must be {', '.join(CHOICES)}, or the "
            "import path of a function that takes the episodes and returns indices ('package.module:function')."
        )
    return function  # type: ignore[no-any-return]  # imported objects are Any
