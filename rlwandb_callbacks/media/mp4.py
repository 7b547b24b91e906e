"""Writes frames to an mp4 file, one by one, through moviepy's streaming writer."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from rlwandb_callbacks.core.files import atomic_write
from rlwandb_callbacks.core.values import Pixels
from rlwandb_callbacks.media.drawing import pad_to_even
from rlwandb_callbacks.media.encoder_errors import cannot_start, has_ended, is_stuck
from rlwandb_callbacks.media.encoder_limit import TimeLimit
from rlwandb_callbacks.media.encoder_options import DEFAULT_PRESET, encoder_options

LOG_TAIL_CHARACTERS = 800
# Rate of the input, which moviepy rounds to two decimals; the options of the output give the frames their times. It is
# above all rates of videos: if the last frame of the input took longer than one of the video, ffmpeg would repeat it.
INPUT_FPS = 100_000.0


@contextlib.contextmanager
def video_writer(
    path: Path, *, fps: float, crf: int = 23, preset: str = DEFAULT_PRESET, max_seconds: float | None = None
) -> Iterator[VideoWriter]:
    """Encodes frames as H.264, yuv420p, even-sized, with color tags, and the index in front: browsers start at once.

    Frame k is shown from k / fps on; a player that seeks to (k + 0.5) / fps shows it, whereas k / fps is rounded to the
    frame before for many k.

    The file appears under its name only when the block has ended without an error; its folder must exist.

    Args:
        path: Path of the video.
        fps: Frames per second, > 0; written as a fraction.
        crf: Quality, from 0 (lossless) to 51.
        preset: Key of ``encoder_options.PRESETS``.
        max_seconds: Time in seconds after which an ffmpeg that takes no frame is ended; None for never.

    Raises:
        ValueError: If no frame was written.
        EncoderError: If ffmpeg is missing, fails, or was ended; the message says which.
        OSError: If the disk or the folder is the reason; the message ends with the last output of ffmpeg.
    """
    with atomic_write(path) as unfinished, _log() as log:
        options = encoder_options(preset=preset, fps=fps, crf=crf)
        writer = VideoWriter(path, unfinished, log, options=options, max_seconds=max_seconds)
        try:
            yield writer
            writer.finish()
        finally:
            writer.close()


def _log() -> IO[str]:
    """Opens a file for the output of ffmpeg; where there is no temporary folder to write to, it is lost."""
    try:
        return tempfile.TemporaryFile("w+", errors="replace")
    except OSError:
        return Path(os.devnull).open("w+")


class VideoWriter:
    """Encoder of one video, which holds no frame; made by :func:`video_writer`."""

    def __init__(
        self, path: Path, unfinished: Path, log: IO[str], *, options: list[str], max_seconds: float | None
    ) -> None:
        self._path = path  # of the complete video, for messages
        self._unfinished, self._log, self._options = unfinished, log, options
        self._max_seconds = max_seconds
        self._encoder: Any = None

    def write(self, frame: Pixels) -> None:
        """Adds a frame; all must have the same shape."""
        frame = pad_to_even(frame)
        if self._encoder is None:
            self._start(*frame.shape[:2])
        try:
            with self._limit.running():
                self._encoder.write_frame(frame)
        except OSError as error:  # ffmpeg has ended
            raise self._error() from error

    def _start(self, height: int, width: int) -> None:
        try:
            from moviepy.video.io.ffmpeg_writer import FFMPEG_VideoWriter  # takes 0.5 s, which only videos should cost

            self._encoder = FFMPEG_VideoWriter(
                str(self._unfinished),
                (width, height),
                INPUT_FPS,
                codec="libx264",
                preset="veryfast",
                threads=1,
                logfile=self._log,
                ffmpeg_params=[
                    *self._options,
                    *("-hide_banner", "-loglevel", "error"),  # otherwise errors are lost in other output
                ],
            )
        except Exception as error:  # moviepy looks for ffmpeg when it is imported, and raises errors of many types
            raise cannot_start(error) from error
        self._process = self._encoder.proc  # moviepy forgets it when it closes
        self._limit = TimeLimit(self._process, self._max_seconds)

    def finish(self) -> None:
        """Encodes what is left and completes the file."""
        if self._encoder is None:
            raise ValueError(f"There are no frames to write to {self._path}.")
        try:
            with self._limit.running():
                self._encoder.close()
        except OSError as error:  # ffmpeg has ended
            raise self._error() from error
        if self._process.returncode != 0 or not self._has_content():
            raise self._error()

    def _has_content(self) -> bool:
        return self._unfinished.is_file() and self._unfinished.stat().st_size > 0

    def close(self) -> None:
        """Ends ffmpeg, if it was started and still runs."""
        if self._encoder is None:
            return
        try:
            with self._limit.running(), contextlib.suppress(OSError):
                self._encoder.close()
            self._process.wait()
        finally:
            self._limit.end()

    def _error(self) -> OSError:
        with self._limit.running():
            status = self._process.wait()
        program = str(self._process.args[0])
        if self._limit.was_exceeded and self._max_seconds is not None:
            return is_stuck(program, self._path, self._max_seconds)
        self._log.seek(0)
        return has_ended(program, self._path, status, self._log.read()[-LOG_TAIL_CHARACTERS:].strip())
