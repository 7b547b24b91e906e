"""Turns an episode and its frames into a video, a contact sheet and their caption."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from PIL import Image as PillowImage

from rlwandb_callbacks.core.action_spec import ActionSpec
from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.core.files import atomic_write
from rlwandb_callbacks.core.values import Image, Pixels, Value, Video
from rlwandb_callbacks.errors import RenderError
from rlwandb_callbacks.media.drawing import (
    contact_sheet,
    enlarge,
    format_number,
    limit_size,
    sheet_columns,
    sheet_indices,
    thumbnail,
)
from rlwandb_callbacks.media.encoder_errors import EncoderError
from rlwandb_callbacks.media.encoder_options import DEFAULT_PRESET
from rlwandb_callbacks.media.frame_sources import FrameSource
from rlwandb_callbacks.media.mp4 import video_writer
from rlwandb_callbacks.media.panel import Panel
from rlwandb_callbacks.media.pixel_range import FlatColor, PixelRangeError

OnEncoderError: TypeAlias = Callable[[EncoderError], object]


@dataclass(frozen=True)
class ClipStyle:
    """Settings that all clips of an evaluation share."""

    actions: ActionSpec
    has_panel: bool  # the output of the policy is drawn beside each frame
    fps: float
    crf: int  # H.264 quality, 0 to 51
    preset: str = DEFAULT_PRESET  # of the encoder
    encoder_seconds: float | None = None  # longest time in which ffmpeg takes no frame; None for no limit


def caption(label: str, count: int, episode: Episode, env_steps: float | None, stride: int = 1) -> str:
    """Returns the text below the video of an episode, one of ``count``, with a frame for every ``stride``-th step."""
    parts = [f"{label} of {count}", *([] if episode.task is None else [episode.task])]
    parts += [f"return {format_number(episode.total_return)}"]
    parts += [] if episode.score is None else [f"score of the game {format_number(episode.score)}"]
    parts += [f"length {episode.length:,}"]
    parts += [episode.ending, f"seed {'unknown' if episode.seed is None else episode.seed}"]
    parts += [f"one frame in {stride}"] if stride > 1 else []
    parts += [] if env_steps is None else [f"env step {int(env_steps):,}"]
    return " · ".join(parts)


def make_clip(
    frames: FrameSource,
    episode: Episode,
    *,
    label: str,
    text: str,
    stem: Path,
    style: ClipStyle,
    on_encoder_error: OnEncoderError | None = None,
) -> dict[str, Value]:
    """Writes the video ``<stem>.mp4`` and the contact sheet ``<stem>.png`` in one pass over the frames.

    A second pass follows if the last frames show that the first ones were converted by a wrong range of pixels.

    Args:
        frames: Frames of the episode.
        episode: Without its frames.
        label: Last part of the keys.
        text: Caption of both.
        stem: Path of both files without suffixes, in a folder that exists.
        style: Settings of the clip.
        on_encoder_error: Called if ffmpeg cannot be used or fails, after which only the contact sheet is made; by
            default that error is raised.

    Raises:
        OSError: If a file cannot be written.
        EncoderError: If ffmpeg cannot be used or fails, and there is no ``on_encoder_error``.
        RenderError: If the environment cannot render, or the frames differ in size.
    """
    video_path = stem.with_suffix(".mp4")
    try:
        pictures = _write_video(frames, episode, video_path, style, on_encoder_error)
    except PixelRangeError:
        pictures = _write_video(frames, episode, video_path, style, on_encoder_error)
    sheet = pictures.sheet()
    with atomic_write(stem.with_suffix(".png")) as unfinished:
        PillowImage.fromarray(sheet).save(unfinished)
    color = pictures.flat.color
    text += "" if color is None else f" · all frames have one flat color, RGB {color}"
    values: dict[str, Value] = {f"video/{label}_sheet": Image(sheet, text)}
    return {f"video/{label}": Video(str(video_path), text, color), **values} if pictures.are_encoded else values


def _write_video(
    frames: FrameSource, episode: Episode, path: Path, style: ClipStyle, on_encoder_error: OnEncoderError | None
) -> _Pictures:
    pictures = _Pictures(episode, frames.steps, style)
    with contextlib.closing(iter(frames)) as source:
        drawn = (pictures.add(frame, step) for step, frame in zip(frames.steps, source, strict=True))
        try:
            with video_writer(
                path, fps=style.fps, crf=style.crf, preset=style.preset, max_seconds=style.encoder_seconds
            ) as video:
                for picture in drawn:
                    video.write(picture)
        except EncoderError as error:
            if on_encoder_error is None:
                raise
            on_encoder_error(error)
            pictures.are_encoded = False
            for _ in drawn:  # the contact sheet shows frames of the whole episode
                pass
    return pictures


class _Pictures:
    """Pictures of one clip: each frame scaled, with the panel beside it; keeps those of the contact sheet."""

    def __init__(self, episode: Episode, steps: Sequence[int], style: ClipStyle) -> None:
        self.flat = FlatColor()
        self.are_encoded = True
        self._episode, self._style = episode, style
        self._sheet_steps = {steps[index] for index in sheet_indices(len(steps))}
        self._cells: dict[int, Pixels] = {}
        self._columns = 1
        self._shape: tuple[int, ...] = ()
        self._panel: Panel | None = None

    def add(self, frame: Pixels, step: int) -> Pixels:
        """Takes the frame of a step and returns its picture."""
        self._shape = self._shape or frame.shape
        _check_shape(frame, self._shape)
        self.flat.add(frame)
        picture = enlarge(limit_size(frame))
        if self._style.has_panel:
            self._panel = self._panel or Panel.for_frames(picture, self._episode, self._style.actions)
            picture = self._panel.beside(picture, step)
        if step in self._sheet_steps:
            self._columns = sheet_columns(*picture.shape[:2])
            self._cells[step] = thumbnail(picture, self._columns)
        return picture

    def sheet(self) -> Pixels:
        """Returns the contact sheet."""
        labels = [f"step {step}" for step in self._cells]
        return contact_sheet(list(self._cells.values()), labels, self._columns)


def _check_shape(frame: Pixels, shape: tuple[int, ...]) -> None:
    """Raises an error for a frame of another size, which the encoder would read as wrong pixels."""
    if frame.shape != shape:
        raise RenderError(
            f"The environment's render() returned pictures of {shape[1]} × {shape[0]} pixels and then one of "
            f"{frame.shape[1]} × {frame.shape[0]}; all pictures of an episode must have the same size."
        )
