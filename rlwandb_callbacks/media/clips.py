"""Turns an episode and its frames into a video, a contact sheet and their caption."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from PIL import Image as PillowImage

from rlwandb_callbacks.core.action_spec import ActionSpec
from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.core.files import atomic_write
from rlwandb_callbacks.core.values import Image, Pixels, Value, Video
from rlwandb_callbacks.errors import RenderError
from rlwandb_callbacks.media.drawing import contact_sheet, enlarge, format_number, sheet_indices, thumbnail
from rlwandb_callbacks.media.frame_sources import FrameSource
from rlwandb_callbacks.media.mp4 import video_writer
from rlwandb_callbacks.media.panel import Panel


@dataclass(frozen=True)
class ClipStyle:
    """Settings that all clips of an evaluation share."""

    actions: ActionSpec
    has_panel: bool  # the output of the policy is drawn beside each frame
    fps: float
    crf: int  # H.264 quality, 0 to 51


def caption(label: str, count: int, episode: Episode, env_steps: float | None, stride: int = 1) -> str:
    """Returns the text below the video of an episode, one of ``count``, with a frame for every ``stride``-th step."""
    parts = [f"{label} of {count}", f"return {format_number(episode.total_return)}", f"length {episode.length:,}"]
    parts += [episode.ending, f"seed {'unknown' if episode.seed is None else episode.seed}"]
    parts += [f"one frame in {stride}"] if stride > 1 else []
    parts += [] if env_steps is None else [f"env step {int(env_steps):,}"]
    return " · ".join(parts)


def make_clip(
    frames: FrameSource, episode: Episode, *, label: str, text: str, stem: Path, style: ClipStyle
) -> dict[str, Value]:
    """Writes the video ``<stem>.mp4`` and the contact sheet ``<stem>.png`` in one pass over the frames.

    Raises:
        OSError: If a file cannot be written.
        RenderError: If the environment cannot render, or the frames differ in size.
    """
    video_path = stem.with_suffix(".mp4")
    sheet_steps = {frames.steps[index] for index in sheet_indices(len(frames.steps))}
    cells: dict[int, Pixels] = {}
    panel: Panel | None = None
    shape: tuple[int, ...] = ()
    with contextlib.closing(iter(frames)) as pictures, video_writer(video_path, fps=style.fps, crf=style.crf) as video:
        for step, frame in zip(frames.steps, pictures, strict=True):
            shape = shape or frame.shape
            _check_shape(frame, shape)
            picture = enlarge(frame)
            if style.has_panel:
                panel = panel or Panel.for_frames(picture, episode, style.actions)
                picture = panel.beside(picture, step)
            video.write(picture)
            if step in sheet_steps:
                cells[step] = thumbnail(picture)
    sheet = contact_sheet(list(cells.values()), [f"step {step}" for step in cells])
    with atomic_write(stem.with_suffix(".png")) as unfinished:
        PillowImage.fromarray(sheet).save(unfinished)
    return {f"video/{label}": Video(str(video_path), text), f"video/{label}_sheet": Image(sheet, text)}


def _check_shape(frame: Pixels, shape: tuple[int, ...]) -> None:
    """Raises an error for a frame of another size, which the encoder would read as wrong pixels."""
    if frame.shape != shape:
        raise RenderError(
            f"The environment's render() returned pictures of {shape[1]} × {shape[0]} pixels and then one of "
            f"{frame.shape[1]} × {frame.shape[0]}; all pictures of an episode must have the same size."
        )
