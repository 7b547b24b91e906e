"""What kept ffmpeg from writing a video, as seen, and its remedy."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

from rlwandb_callbacks.errors import describe_error, sentence

INSTALL = (
    "Install one with 'pip install imageio-ffmpeg', or set the environment variable IMAGEIO_FFMPEG_EXE to the path of "
    "an ffmpeg that has the encoder libx264."
)
WITHOUT_VIDEOS = "The contact sheets need no ffmpeg; video_logger=False turns off both."
CANNOT_RUN = (errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.EISDIR)
DISK_ERRORS = ("No space left on device", "File too large", "Disk quota exceeded", "Read-only file system")
FOLDER_ERRORS = ("No such file or directory", "Permission denied", "Not a directory")
MISSING_ENCODER = ("Unknown encoder", "Encoder not found", "Unrecognized option 'x264-params'")


class EncoderError(OSError):
    """ffmpeg is missing, fails or was ended, which says nothing about the disk."""


def cannot_start(error: Exception) -> EncoderError:
    """Returns the error for an ffmpeg that is not there, or is no program that runs on this machine."""
    program = f" {error.filename}" if isinstance(error, OSError) and error.filename else ""
    given = " and ".join(
        f"{name}={os.environ[name]!r}" for name in ("IMAGEIO_FFMPEG_EXE", "FFMPEG_BINARY") if name in os.environ
    )
    setting = f" The environment has {given}." if given else ""
    is_wrong_program = not isinstance(error, OSError) or error.errno is None or error.errno in CANNOT_RUN
    remedy = f" {INSTALL}" if is_wrong_program else ""
    return EncoderError(f"ffmpeg{program} cannot be started: {describe_error(error)}{setting}{remedy} {WITHOUT_VIDEOS}")


def has_ended(program: str, path: Path, status: int, output: str) -> OSError:
    """Returns the error for an ffmpeg that ended before the video was complete.

    Args:
        program: Path of ffmpeg.
        path: Path of the video.
        status: Exit code ≥ 0, or the negative number of the signal that ended it.
        output: Last output on stderr.

    Returns:
        An EncoderError, or a plain OSError if the disk or the folder is the reason.
    """
    what = f"ffmpeg could not write {path}"
    if _is_of_disk(path, status, output):
        return OSError(f"{what}: {output or 'File too large'}")
    if status < 0:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        said = f" Its last output: {sentence(output)}" if output else ""
        memory = " The system sends it to processes when no memory is left." if name == "SIGKILL" else ""
        return EncoderError(f"{what}: {program} was ended by {name}.{memory}{said} {WITHOUT_VIDEOS}")
    said = sentence(output) if output else "it had no output."
    remedy = f" {INSTALL}" if any(each in output for each in MISSING_ENCODER) else ""
    return EncoderError(f"{what}: {program} ended with exit code {status}: {said}{remedy} {WITHOUT_VIDEOS}")


def _is_of_disk(path: Path, status: int, output: str) -> bool:
    if status == -getattr(signal, "SIGXFSZ", 0) < 0 or any(each in output for each in DISK_ERRORS):
        return True
    is_writable = path.parent.is_dir() and os.access(path.parent, os.W_OK | os.X_OK)
    return not is_writable and any(each in output for each in FOLDER_ERRORS)


def is_stuck(program: str, path: Path, max_seconds: float) -> EncoderError:
    """Returns the error for an ffmpeg that was ended as it took no frame for too long."""
    return EncoderError(
        f"ffmpeg could not write {path}: {program} took no frame for {max_seconds:g} s (half of videos.max_seconds) "
        f"and was ended. {WITHOUT_VIDEOS}"
    )
