"""Writes frames to an mp4 file, one by one, through moviepy's streaming writer."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from rlwandb_callbacks.core.files import atomic_write
from rlwandb_callbacks.core.values import Pixels
from rlwandb_callbacks.media.drawing import pad_to_even

LOG_TAIL_CHARACTERS = 800
# Fewer frames that x264 holds while it decides: a quarter less memory, and files between 4 % smaller and 5 % larger.
FEW_FRAMES_HELD = "rc-lookahead=4:bframes=1"
# Letters that were orange in an earlier frame keep less of it; files of panels are about a tenth larger.
COLORS_RENEWED = "chroma-qp-offset=-6"


@contextlib.contextmanager
def video_writer(path: Path, *, fps: float, crf: int = 23) -> Iterator[VideoWriter]:
    """Encodes frames as H.264, yuv420p, even-sized, with the index in front so that browsers start at once.

    The file appears under its name only when the block has ended without an error; its folder must exist. ``crf`` is
    the quality, from 0 (lossless) to 51.

    Raises:
        ValueError: If no frame was written.
        OSError: If ffmpeg could not write the file; the message ends with the last output of ffmpeg.
    """
    with atomic_write(path) as unfinished, tempfile.TemporaryFile("w+") as log:
        writer = VideoWriter(path, unfinished, log, fps=fps, crf=crf)
        try:
            yield writer
            writer.finish()
        finally:
            writer.close()


class VideoWriter:
    """Encoder of one video, which holds no frame; made by :func:`video_writer`."""

    def __init__(self, path: Path, unfinished: Path, log: IO[str], *, fps: float, crf: int) -> None:
        self._path = path  # of the complete video, for messages
        self._unfinished, self._log, self._fps, self._crf = unfinished, log, fps, crf
        self._encoder: Any = None

    def write(self, frame: Pixels) -> None:
        """Adds a frame; all must have the same shape."""
        frame = pad_to_even(frame)
        if self._encoder is None:
            self._start(*frame.shape[:2])
        try:
            self._encoder.write_frame(frame)
        except OSError as error:  # ffmpeg has ended
            raise self._error() from error

    def _start(self, height: int, width: int) -> None:
        from moviepy.video.io.ffmpeg_writer import FFMPEG_VideoWriter  # takes 0.5 s, which only videos should cost

        self._encoder = FFMPEG_VideoWriter(
            str(self._unfinished),
            (width, height),
            self._fps,
            codec="libx264",
            preset="veryfast",
            threads=1,
            logfile=self._log,
            ffmpeg_params=[
                *("-crf", str(self._crf), "-x264-params", f"{FEW_FRAMES_HELD}:{COLORS_RENEWED}"),
                *("-vf", "format=yuv420p", "-movflags", "+faststart"),
                *("-hide_banner", "-loglevel", "error"),  # otherwise errors are lost in other output
            ],
        )
        self._process = self._encoder.proc  # moviepy forgets it when it closes

    def finish(self) -> None:
        """Encodes what is left and completes the file."""
        if self._encoder is None:
            raise ValueError(f"There are no frames to write to {self._path}.")
        self._encoder.close()
        if self._process.returncode != 0:
            raise self._error()

    def close(self) -> None:
        """Ends ffmpeg, if it was started and still runs."""
        if self._encoder is not None:
            self._encoder.close()

    def _error(self) -> OSError:
        self._log.seek(0)
        output = self._log.read()[-LOG_TAIL_CHARACTERS:].strip() or f"it ended with status {self._process.wait()}"
        return OSError(f"ffmpeg could not write {self._path}: {output}")
