"""Turns an episode and its frames into a video, a contact sheet and their captions."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image as PillowImage

from rlwandb_callbacks.core.action_spec import ActionSpec
from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.core.files import whole_file
from rlwandb_callbacks.core.values import Image, Pixels, Value, Video
from rlwandb_callbacks.errors import RenderError
from rlwandb_callbacks.media.drawing import contact_sheet, enlarge, format_number, sheet_indices, thumbnail
from rlwandb_callbacks.media.frames import FrameSource
from rlwandb_callbacks.media.mp4 import write_video
from rlwandb_callbacks.media.panel import annotate


@dataclass(frozen=True)
class ClipStyle:
    """What all clips of an evaluation share.

    Args:
        actions: Names or bounds of the environment's actions.
        has_overlay: Draw the panel beside each frame.
        fps: Frames per second, > 0.
        crf: H.264 quality, 0 to 51.
    """

    actions: ActionSpec
    has_overlay: bool
    fps: float
    crf: int


def caption(rank: str, count: int, episode: Episode, env_steps: float | None, stride: int = 1) -> str:
    """What stands under a video.

    Args:
        rank: ``best``, ``median`` or ``worst``.
        count: Episodes in the evaluation.
        episode: The one that is shown.
        env_steps: Environment steps trained so far, where they are known.
        stride: Steps from one frame to the next.
    """
    parts = [
        f"{rank} of {count}",
        f"return {format_number(episode.total_return)}",
        f"length {episode.length:,}",
        f"{episode.ending}",
        f"seed {episode.seed if episode.seed is not None else 'unknown'}",
    ]
    parts += [f"one frame in {stride}"] if stride > 1 else []
    return " · ".join(parts + ([f"env step {int(env_steps):,}"] if env_steps is not None else []))


def make_clip(
    film: FrameSource, episode: Episode, *, rank: str, text: str, stem: Path, style: ClipStyle
) -> dict[str, Value]:
    """Writes ``<stem>.mp4`` and ``<stem>.png`` in one pass over the frames.

    Args:
        film: The episode's frames.
        episode: The one that is shown.
        rank: Names the keys: ``video/<rank>`` and ``video/<rank>_sheet``.
        text: Caption of both.
        stem: Path without ending; its folder must exist.
        style: What all clips share.

    Raises:
        OSError: If a file cannot be written.
        RenderError: If the frames differ in size.
    """
    steps = film.steps
    kept: dict[int, Pixels] = {}
    video_path = stem.with_suffix(".mp4")
    with _closing(iter(film)) as frames:
        same = _of_one_size(frames)
        pictures = annotate(same, episode, style.actions, steps) if style.has_overlay else map(enlarge, same)
        keeping = _keeping(pictures, sheet_indices(len(steps)), kept)
        write_video(keeping, video_path, fps=style.fps, crf=style.crf)
    sheet = contact_sheet(list(kept.values()), [f"step {steps[index]}" for index in kept])
    with whole_file(stem.with_suffix(".png")) as unfinished:
        PillowImage.fromarray(sheet).save(unfinished)
    return {f"video/{rank}": Video(str(video_path), text), f"video/{rank}_sheet": Image(sheet, text)}


@contextlib.contextmanager
def _closing(frames: Iterator[Pixels]) -> Iterator[Iterator[Pixels]]:
    """Closes a generator that may be left half-way, and with it the environment that it renders."""
    try:
        yield frames
    finally:
        if isinstance(frames, Generator):
            frames.close()


def _of_one_size(frames: Iterable[Pixels]) -> Iterator[Pixels]:
    """Refuses what an encoder would take for the wrong frames, as it sees nothing but a stream of pixels."""
    size: tuple[int, ...] | None = None
    for frame in frames:
        size = size or frame.shape
        if frame.shape != size:
            raise RenderError(
                f"The environment's render() gave pictures of {size[1]} × {size[0]} pixels and then one of "
                f"{frame.shape[1]} × {frame.shape[0]}; in an episode all must have one size."
            )
        yield frame


def _keeping(frames: Iterable[Pixels], indices: Iterable[int], kept: dict[int, Pixels]) -> Iterator[Pixels]:
    wanted = frozenset(indices)
    for index, frame in enumerate(frames):
        if index in wanted:
            kept[index] = thumbnail(frame)
        yield frame
