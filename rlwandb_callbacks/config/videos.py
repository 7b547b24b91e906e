"""How videos are made."""

from __future__ import annotations

from dataclasses import dataclass

from rlwandb_callbacks.config.checks import check_types, require


@dataclass(frozen=True, kw_only=True)
class VideosConfig:
    """How videos are made.

    Args:
        fps: Frames per second, 0.1 to 1000; by default ``render_fps`` of the environment's metadata, else 30.
        crf: H.264 quality, 0 (lossless) to 51; 23 keeps small text legible.
        max_bytes: Frames that may be held at a time, where they cannot be made by playing again, ≥ 1,000,000. Episodes
            that need more are shown with every second, fourth, … frame, and their captions say so.
    """

    fps: float | None = None
    crf: int = 23
    max_bytes: int = 2**28

    key_prefix = "videos."

    def __post_init__(self) -> None:
        check_types(self)
        require(self, "fps", lambda value: value is None or 0.1 <= value <= 1000, "a number from 0.1 to 1000")
        require(self, "crf", lambda value: 0 <= value <= 51, "a whole number from 0 to 51")
        require(self, "max_bytes", lambda value: value >= 1_000_000, "a whole number ≥ 1,000,000")
